"""One edge's stream: complete and contiguous, bounded, and nobody waits for it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import stream as stream_module
from services.rooms.bus import MembershipEnded
from services.rooms.messages import Message, Run
from services.rooms.presence import Action, Change
from tests.helpers.rooms_world import FakePiece, RoomsWorld, publish, rooms_world, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from services.rooms.store import RoomRecord
    from services.rooms.stream import Parcel, Stream


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        yield made


class Reader:
    """The edge's end of a stream: takes parcels and checks the promises as they come."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.results: dict[int, str | int] = {}
        self.seqs: dict[str, list[int]] = {}
        self.texts: list[str] = []
        self.largest = 0

    def take(self) -> Parcel | None:
        parcel = self.stream.take()
        if parcel is None:
            return None
        for sent, outcome in parcel.results:
            assert sent.number not in self.results
            self.results[sent.number] = outcome.code.value if outcome.code else outcome.seq
        for piece in parcel.pieces:
            assert isinstance(piece, FakePiece)
            seqs = self.seqs.setdefault(piece.room_id, [])
            assert not seqs or piece.first_seq == seqs[-1] + 1, "a gap, a repeat or an inversion"
            seqs += piece.seqs
            self.texts += [message.text for message in piece.run.messages]
        self.largest = max(self.largest, sum(piece.size for piece in parcel.pieces))
        return parcel

    def drain(self) -> None:
        while self.take() is not None:
            pass

    async def until(self, room: RoomRecord, last_seq: int) -> None:
        """Reads until a message has come."""
        while last_seq not in self.seqs.get(room.room_id, []):
            if self.take() is None:
                await self.stream.wait()


async def say_many(world: RoomsWorld, room: RoomRecord, count: int, *, chars: int = 10) -> None:
    await world.append(*(publish("alice", room.room_id, "x" * chars) for _ in range(count)))


def follow(world: RoomsWorld, stream: Stream, room: RoomRecord, after: int, epoch: str | None = None) -> None:
    world.streams.follow(stream, room.room_id, epoch or room.epoch, after)


async def test_what_is_missed_comes_from_the_log_and_then_live(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await say_many(world, room, 450)
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 20)
    await say_many(world, room, 5)
    await reader.until(room, 455)
    assert reader.seqs[room.room_id] == list(range(21, 456))
    await say_many(world, room, 1)
    reader.drain()
    assert reader.seqs[room.room_id][-1] == 456
    assert world.counts.pages_read.value == 3


async def test_a_result_comes_before_its_event(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 0)
    mine = publish("alice", room.room_id, "mine")
    reader.stream.publish([mine])
    await world.log.settled()
    parcel = reader.take()
    assert parcel is not None
    assert [publish.number for publish, _ in parcel.results] == [mine.number]


async def test_another_life_of_the_log_sends_nothing_old(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await say_many(world, room, 3)
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 70, "older")
    await until(lambda: reader.stream.follows[room.room_id].is_resolved)
    await say_many(world, room, 1)
    await reader.until(room, 4)
    assert reader.seqs[room.room_id] == [4]


async def test_an_unknown_room_is_followed_by_nobody(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    with capture_logs() as logs:
        world.streams.follow(reader.stream, "nosuchroom00", "e", 0)
        follow(world, reader.stream, room, 0)
        await until(lambda: "nosuchroom00" not in reader.stream.follows)
    assert [entry["event"] for entry in logs] == ["follow of an unknown room"]
    await say_many(world, room, 1)
    await reader.until(room, 1)


async def test_unfollowing_takes_back_what_is_queued(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 0)
    await until(lambda: reader.stream.follows[room.room_id].is_live)
    await say_many(world, room, 3)
    world.streams.unfollow(reader.stream, room.room_id)
    world.streams.unfollow(reader.stream, room.room_id)
    assert reader.take() is None
    await say_many(world, room, 1)
    assert reader.take() is None
    assert reader.stream.waiting_bytes == 0


async def test_following_again_begins_anew(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await say_many(world, room, 3)
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 0)
    await reader.until(room, 3)
    await say_many(world, room, 2)
    follow(world, reader.stream, room, 1)
    reader.seqs.clear()
    await reader.until(room, 5)
    assert reader.seqs[room.room_id] == [2, 3, 4, 5]


async def test_a_slow_edge_costs_bounded_memory_and_misses_nothing(world: RoomsWorld) -> None:
    rooms = [await world.create("alice", f"room {n}") for n in range(3)]
    slow, quick = Reader(world.stream(bytes_max=2_000)), Reader(world.stream(boot_id="boot-2"))
    for room in rooms:
        follow(world, slow.stream, room, 0)
        follow(world, quick.stream, room, 0)
    await until(lambda: all(f.is_live for r in (slow, quick) for f in r.stream.follows.values()))
    peak = 0
    for _ in range(30):
        for room in rooms:
            await say_many(world, room, 10, chars=50)
            quick.drain()
            peak = max(peak, slow.stream.waiting_bytes)
    assert all(quick.seqs[room.room_id] == list(range(1, 301)) for room in rooms)
    assert peak <= 2_000
    for room in rooms:
        await slow.until(room, 300)
    assert all(slow.seqs[room.room_id] == list(range(1, 301)) for room in rooms)
    assert slow.stream.waiting_bytes == 0
    for room in rooms:
        await say_many(world, room, 1)
        await slow.until(room, 301)


async def test_a_parcel_is_bounded(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "PARCEL_BYTES_MAX", 100)
    monkeypatch.setattr(stream_module, "RESULTS_MAX", 4)
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 0)
    await until(lambda: reader.stream.follows[room.room_id].is_live)
    for _ in range(10):
        reader.stream.publish([publish("alice", room.room_id, "x" * 30)])
    await world.log.settled()
    sizes = []
    while (parcel := reader.take()) is not None:
        sizes.append((len(parcel.results), len(parcel.pieces)))
    assert sizes == [(4, 4), (4, 4), (2, 2)]


async def test_an_edge_that_does_not_read_its_results_is_not_read(
    world: RoomsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "RESULTS_MAX", 4)
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    await asyncio.wait_for(reader.stream.wait_for_room(), 5)
    reader.stream.publish([publish("alice", room.room_id, "x") for _ in range(9)])
    await world.log.settled()
    waiting = asyncio.ensure_future(reader.stream.wait_for_room())
    await asyncio.sleep(0)
    reader.take()
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.take()
    await asyncio.wait_for(waiting, 5)


async def test_too_many_presence_changes_become_counts(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "CHANGES_MAX", 3)
    stream = world.stream()
    stream.add_changes([Change("r", Action.ONLINE, "a", 1), Change("q", Action.JOIN, "b", 7)])
    stream.add_changes([Change("r", Action.ONLINE, "c", 2), Change("r", Action.OFFLINE, "a", 1)])
    parcel = stream.take()
    assert parcel is not None
    assert parcel.changes == [Change("r", Action.COUNT, "", 1), Change("q", Action.COUNT, "", 7)]
    assert stream.take() is None


async def test_ended_memberships_go_first(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    stream = world.stream(bytes_max=100)
    follow(world, stream, room, 0)
    await until(lambda: stream.follows[room.room_id].is_live)
    await say_many(world, room, 50, chars=50)
    ended = MembershipEnded(room.room_id, "idbob", 50)
    world.bus.publish(ended)
    parcel = stream.take()
    assert parcel is not None
    assert parcel.ended == [ended]


async def test_a_failing_storage_is_tried_again(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await world.create("alice", "lobby")
    await say_many(world, room, 3)
    reader = Reader(world.stream())
    heads, page = world.log.heads, world.log.page
    failure = ParleyError(ErrorCode.UNAVAILABLE, "no", retry_after_s=2)

    async def fail(*_args: object, **_options: object) -> None:
        raise failure

    monkeypatch.setattr(world.log, "heads", fail)
    monkeypatch.setattr(world.log, "page", fail)
    follow(world, reader.stream, room, 1)
    await world.clock.wait_for_sleepers()
    monkeypatch.setattr(world.log, "heads", heads)
    await world.clock.advance(2)
    await world.clock.wait_for_sleepers()
    assert reader.take() is None
    monkeypatch.setattr(world.log, "page", page)
    world.clock.advance(2)
    await reader.until(room, 3)
    assert reader.seqs[room.room_id] == [2, 3]


async def test_a_log_that_lacks_what_was_announced_is_reported(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await say_many(world, room, 2)
    reader = Reader(world.stream())
    follow(world, reader.stream, room, 2)
    await until(lambda: reader.stream.follows[room.room_id].is_live)
    with capture_logs() as logs:
        world.bus.publish(Run(room.room_id, room.epoch, [Message(9, "u", "n", "from nowhere", 1)]))
        await until(lambda: reader.stream.follows[room.room_id].is_live)
    assert [entry["event"] for entry in logs] == ["the log lacks what was announced"]


async def test_a_stream_finishes_when_what_is_under_way_is_answered(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    reader = Reader(world.stream())
    mine = publish("alice", room.room_id, "x")
    reader.stream.publish([mine])
    reader.stream.finish()
    assert not reader.stream.is_finished
    await world.log.settled()
    reader.drain()
    assert reader.stream.is_finished
    assert reader.results == {mine.number: 1}


async def test_an_unknown_outcome_breaks_the_stream(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = world.stream()
    monkeypatch.setattr(world.log, "append", lambda publishes, answer: answer(publishes, None))
    stream.publish([publish("alice", "room", "x")])
    assert stream.is_broken
    assert stream.stopped.is_set()


class Chaos:
    """Publishers, and two streams, one of them slow, that follow and unfollow at any moment."""

    def __init__(self, world: RoomsWorld, rooms: list[RoomRecord], seed: int) -> None:
        self.world = world
        self.rooms = rooms
        self.dice = random.Random(seed)
        self.readers = [Reader(world.stream(bytes_max=300)), Reader(world.stream(bytes_max=5_000, boot_id="boot-2"))]
        self.starts: dict[tuple[int, str], int] = {}
        self.announced: dict[str, int] = {}
        world.bus.subscribe(self.note)

    def note(self, event: object) -> None:
        if isinstance(event, Run):
            self.announced[event.room_id] = event.last_seq

    def publish(self, which: int, room: RoomRecord) -> None:
        texts = ["y" * 20] * self.dice.randrange(1, 5)
        self.readers[which].stream.publish([publish("alice", room.room_id, text) for text in texts])

    def follow(self, which: int, room: RoomRecord) -> None:
        after = self.dice.randrange(self.announced.get(room.room_id, 0) + 1)
        self.readers[which].seqs.pop(room.room_id, None)
        self.starts[which, room.room_id] = after
        follow(self.world, self.readers[which].stream, room, after)

    def unfollow(self, which: int, room: RoomRecord) -> None:
        self.world.streams.unfollow(self.readers[which].stream, room.room_id)
        self.readers[which].seqs.pop(room.room_id, None)
        self.starts.pop((which, room.room_id), None)

    def take(self, which: int, _room: RoomRecord) -> None:
        self.readers[which].take()

    async def run(self, steps: int) -> None:
        actions = [self.publish, self.publish, self.publish, self.follow, self.unfollow, self.take, self.take]
        for _ in range(steps):
            self.dice.choice(actions)(self.dice.randrange(2), self.dice.choice(self.rooms))
            for reader in self.readers:
                held = sum(follow.held_bytes for follow in reader.stream.follows.values())
                assert reader.stream._held_bytes == held
                assert reader.stream._waiting_bytes == sum(piece.size for _, piece in reader.stream._pieces)
            await asyncio.sleep(self.dice.choice([0, 0, 0, 0.001]))


@pytest.mark.parametrize("seed", range(6))
async def test_any_interleaving_is_contiguous_and_complete(tmp_path: Path, seed: int) -> None:
    async with rooms_world(tmp_path) as world:
        chaos = Chaos(world, [await world.create("alice", f"room {n}") for n in range(3)], seed)
        await chaos.run(250)
        await world.log.settled()
        ends = await world.log.heads([room.room_id for room in chaos.rooms])
        for (which, room_id), after in chaos.starts.items():
            reader = chaos.readers[which]
            while (reader.seqs.get(room_id) or [after])[-1] < ends[room_id].last_seq:
                if reader.take() is None:
                    await asyncio.wait_for(reader.stream.wait(), 10)
            assert reader.seqs.get(room_id, []) == list(range(after + 1, ends[room_id].last_seq + 1))
