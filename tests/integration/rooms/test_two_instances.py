"""Two instances of the log on one PostgreSQL, writing to the same rooms at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from services.common.wire.codes import ErrorCode
from services.rooms.messages import Outcome
from tests.helpers.bus_net import memory_net
from tests.helpers.rooms_world import RoomsWorld, publish, rooms_world, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.helpers.postgres import PostgresServer

ROUNDS = 40
A_DAY_S = 86_400.0


@pytest.fixture
async def two(postgres_url: str, tmp_path: Path) -> AsyncIterator[list[RoomsWorld]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(rooms_world(tmp_path, url=postgres_url)) for _ in range(2)]


async def test_both_write_to_the_same_rooms_at_once(two: list[RoomsWorld]) -> None:
    rooms = [await two[0].create("alice", name) for name in ("one", "two", "three")]
    answers: dict[tuple[str, str], set[tuple[str, int]]] = {}

    async def talk(world: RoomsWorld, seed: int) -> None:
        dice = random.Random(seed)
        for number in range(ROUNDS):
            # Half of the keys are the other instance's too, as when an edge has moved: stored once.
            names = [f"{number}-{n}" if n % 2 else f"{seed}-{number}-{n}" for n in range(dice.randrange(1, 20))]
            asked = [publish("alice", dice.choice(rooms).room_id, f"text {name}", name) for name in names]
            for one, outcome in zip(asked, await world.append(*asked), strict=True):
                assert outcome.code is None
                answers.setdefault((one.room_id, one.key), set()).add((one.text, outcome.seq))

    await asyncio.gather(*(talk(world, seed) for seed, world in enumerate(two) for _ in range(1)))
    assert all(len(found) == 1 for found in answers.values())
    for room in rooms:
        stored = await two[1].stored(room)
        assert [message.seq for message in stored] == list(range(1, len(stored) + 1))
        told = sorted(
            (seq, text) for (room_id, _), found in answers.items() if room_id == room.room_id for text, seq in found
        )
        assert told == [(message.seq, message.text) for message in stored]


async def test_a_stream_shows_what_both_write_in_order(two: list[RoomsWorld]) -> None:
    here, there = two
    room = await here.create("alice", "lobby")
    stream = here.stream()
    here.streams.follow(stream, room.room_id, room.epoch, 0)
    repair = here.repair()
    for number in range(ROUNDS):
        await asyncio.gather(here.say("alice", room, f"here {number}"), there.say("alice", room, f"there {number}"))
    await repair.check()
    await until(lambda: stream.follows[room.room_id].position == 2 * ROUNDS)
    shown: list[int] = []
    while (parcel := stream.take()) is not None:
        shown += [seq for piece in parcel.pieces for seq in piece.seqs]  # type: ignore[attr-defined]
    assert shown == list(range(1, 2 * ROUNDS + 1))


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_bus_loses_a_stream_has_no_gap(postgres_url: str, tmp_path: Path, seed: int) -> None:
    """Batches are lost silently or aloud, at random; a jump is read from the log, and a look finds what came last."""
    dice = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        net = await stack.enter_async_context(memory_net())
        two = [
            await stack.enter_async_context(rooms_world(tmp_path, url=postgres_url, bus=net.bus())) for _ in range(2)
        ]
        rooms = [await two[0].create("alice", name) for name in ("one", "two")]
        streams, repairs = [], []
        for world in two:
            stream = world.stream()
            for room in rooms:
                world.streams.follow(stream, room.room_id, room.epoch, 0)
            streams.append(stream)
            repairs.append(world.repair())
        for number in range(ROUNDS):
            for transport in net.transports:
                transport.is_up, transport.swallows = dice.random() < 0.7, dice.random() < 0.5
            await asyncio.gather(
                *(world.say("alice", dice.choice(rooms), f"text {number}") for world in dice.sample(two, 2))
            )
            if dice.random() < 0.3:
                await net.clock.advance(0.1)  # type: ignore[attr-defined]
        for repair in repairs:
            await repair.check()
        ends = {room.room_id: (await two[0].room(room)).last_seq for room in rooms}
        assert sum(ends.values()) == 2 * ROUNDS
        for stream in streams:
            await until(
                lambda stream=stream: {room_id: follow.position for room_id, follow in stream.follows.items()} == ends
            )
            shown: dict[str, list[int]] = {room_id: [] for room_id in ends}
            while (parcel := stream.take()) is not None:
                for piece in parcel.pieces:
                    shown[piece.room_id] += piece.seqs  # type: ignore[attr-defined]
            assert shown == {room_id: list(range(1, end + 1)) for room_id, end in ends.items()}


async def test_a_retry_a_day_later_on_another_instance_gets_the_first_number(two: list[RoomsWorld]) -> None:
    here, there = two
    room = await here.create("alice", "lobby")
    first = await here.say("alice", room, "a text", "key")
    await there.clock.advance(A_DAY_S)
    again = await there.say("alice", room, "a text", "key")
    assert (again.seq, again.sent_at_ms, again.is_duplicate) == (first.seq, first.sent_at_ms, True)
    assert (await there.say("alice", room, "another text", "key")).code is ErrorCode.CONFLICT


async def test_who_was_removed_elsewhere_cannot_send(two: list[RoomsWorld]) -> None:
    here, there = two
    room = await here.create("alice", "lobby")
    await here.join("bob", room)
    assert (await here.say("bob", room, "hi")).seq == 1
    await there.directory.remove_member("lobby", "bob")
    assert (await here.say("bob", room, "ho")).code is ErrorCode.NOT_A_MEMBER


async def test_joins_that_race_make_one_member(two: list[RoomsWorld]) -> None:
    room = await two[0].create("alice", "lobby")
    await asyncio.gather(*(world.join(name, room) for name in ("bob", "carol") for world in two))
    assert (await two[0].room(room)).member_count == 3


async def test_joins_and_texts_of_both_do_not_get_into_each_others_way(two: list[RoomsWorld]) -> None:
    """Joins lock one room and texts several, in one transaction: two instances that do so could wait in a circle."""
    rooms = [await two[0].create("alice", f"room {number}") for number in range(6)]
    for room in rooms:
        await two[0].join("bob", room)

    async def come_and_go(world: RoomsWorld, seed: int) -> None:
        dice = random.Random(seed)
        for number in range(ROUNDS):
            name = f"guest {seed} {number}"
            chosen = dice.sample(rooms, 2)
            for room in chosen:
                await world.join(name, room)
            await world.leave(name, chosen[0])

    async def talk(world: RoomsWorld, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(ROUNDS):
            chosen = dice.sample(rooms, 4)
            outcomes = await world.append(*(publish("bob", room.room_id, "a text") for room in chosen))
            assert [outcome.code for outcome in outcomes] == [None] * 4

    with capture_logs() as logs:
        await asyncio.gather(
            *(come_and_go(world, seed) for seed, world in enumerate(two * 3)),
            *(talk(world, seed) for seed, world in enumerate(two * 3)),
        )
    assert logs == []
    for room in rooms:
        stored = await two[0].stored(room)
        assert [message.seq for message in stored] == list(range(1, len(stored) + 1))


async def test_a_text_that_cannot_be_held_is_refused_alone(two: list[RoomsWorld]) -> None:
    room = await two[0].create("alice", "lobby")
    outcomes = await two[0].append(
        publish("alice", room.room_id, "good"),
        publish("alice", room.room_id, "b\0d"),
        publish("alice", room.room_id, "too"),
    )
    assert [outcome.code or outcome.seq for outcome in outcomes] == [1, ErrorCode.BAD_REQUEST, 2]


async def test_a_killed_database_heals_in_five_seconds(own_postgres: PostgresServer, tmp_path: Path) -> None:
    async with rooms_world(tmp_path, url=own_postgres.make_database()) as world:
        room = await world.create("alice", "lobby")
        assert (await world.say("alice", room, "before", "k1")).seq == 1
        await asyncio.to_thread(own_postgres.kill)
        refused: Outcome = await world.say("alice", room, "while", "k2")
        assert refused.code is ErrorCode.UNAVAILABLE
        await asyncio.to_thread(own_postgres.start)
        async with asyncio.timeout(5):
            while (outcome := await world.say("alice", room, "while", "k2")).code is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert outcome.seq == 2
        assert (await world.say("alice", room, "before", "k1")).is_duplicate
