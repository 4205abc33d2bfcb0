"""The message log: who is told what and when, what survives, and what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.bus import MembershipEnded
from services.rooms.messages import File, Head, Outcome, Publish, Run
from tests.helpers.rooms_world import RoomsWorld, publish, rooms_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        yield made


def seqs(outcomes: Sequence[Outcome]) -> list[int | str]:
    return [f"={o.seq}" if o.is_duplicate else o.seq if o.code is None else o.code.value for o in outcomes]


async def test_the_publisher_is_told_before_the_bus(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    world.events.clear()
    world.log.append([publish("alice", room.room_id, "hi")], lambda *answer: world.events.append(answer))
    world.log.append([publish("alice", room.room_id, "ho")], lambda *answer: world.events.append(answer))
    await world.log.settled()
    kinds = [type(event).__name__ for event in world.events]
    assert kinds == ["tuple", "Run", "tuple", "Run"]
    assert [run.messages[0].text for run in world.events if isinstance(run, Run)] == ["hi", "ho"]


async def test_what_queues_up_is_stored_together(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    commits = world.counts.commit_duration.count
    outcomes = await asyncio.gather(*(world.say("alice", room, f"text {n}") for n in range(100)))
    assert seqs(outcomes) == list(range(1, 101))
    assert world.counts.commit_duration.count - commits < 20
    assert world.counts.stored.value == 100
    assert world.counts.batch_size.sum == 100


async def test_duplicates_in_a_later_batch_and_after_a_restart(tmp_path: Path) -> None:
    async with rooms_world(tmp_path) as world:
        room = await world.create("alice", "lobby")
        assert seqs(await world.append(publish("alice", room.room_id, "a", "k"))) == [1]
        assert seqs(await world.append(publish("alice", room.room_id, "a", "k"))) == ["=1"]
    async with rooms_world(tmp_path) as world:
        publishes = [publish("alice", room.room_id, "b", "k2"), publish("alice", room.room_id, "a", "k")]
        assert seqs(await world.append(*publishes, publish("alice", room.room_id, "c", "k"))) == [2, "=1", "conflict"]
        assert [(m.seq, m.text) for m in await world.stored(room)] == [(1, "a"), (2, "b")]
        assert world.counts.duplicates.value == 1
        assert world.counts.refused.value == 1


async def test_a_duplicate_is_not_announced_again(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await world.say("alice", room, "a", "k")
    world.events.clear()
    assert (await world.say("alice", room, "a", "k")).is_duplicate
    assert world.events == []


async def test_joining_publishing_and_leaving_keep_their_order(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    world.events.clear()
    joined = asyncio.ensure_future(world.join("bob", room))
    await asyncio.sleep(0)
    first = asyncio.ensure_future(world.say("bob", room, "I am here"))
    await asyncio.sleep(0)
    left = asyncio.ensure_future(world.leave("bob", room))
    await asyncio.sleep(0)
    last = asyncio.ensure_future(world.say("bob", room, "still here?"))
    await asyncio.gather(joined, left)
    assert (await first).seq == 1
    assert (await last).code is ErrorCode.NOT_A_MEMBER
    ended = next(event for event in world.events if isinstance(event, MembershipEnded))
    assert ended.last_seq == 1
    spoken = next(event for event in world.events if isinstance(event, Run))
    assert world.events.index(spoken) < world.events.index(ended)


async def test_more_than_fits_is_refused_at_once(tmp_path: Path) -> None:
    async with rooms_world(tmp_path, pending_max=3) as world:
        room = await world.create("alice", "lobby")
        answers: list[tuple[list[str], list[int | str]]] = []

        def answer(part: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
            assert outcomes is not None
            answers.append(([one.text for one in part], seqs(outcomes)))
            assert all(outcome.retry_after_s > 0 for outcome in outcomes if outcome.code is not None)

        world.log.append([publish("alice", room.room_id, text) for text in "abcde"], answer)
        assert answers == [(["d", "e"], ["overloaded", "overloaded"])]
        assert world.log.pending_count == 3
        world.log.append([publish("alice", room.room_id, "f")], answer)
        assert answers[1] == (["f"], ["overloaded"])
        await world.log.settled()
        assert answers[2] == (["a", "b", "c"], [1, 2, 3])
        assert world.log.pending_count == 0
        assert seqs(await world.append(publish("alice", room.room_id, "g"))) == [4]
        assert [m.text for m in await world.stored(room)] == ["a", "b", "c", "g"]
        assert world.counts.refused.value == 3


async def test_a_closed_database_stores_nothing(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await world.database.close()
    assert (await world.say("alice", room, "x")).code is ErrorCode.UNAVAILABLE


def fail_with(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*_args: Any) -> Any:
        raise error

    monkeypatch.setattr("services.rooms.appender.Appender._load_rooms", broken)


async def test_a_defect_is_told_as_internal_and_stores_nothing(
    world: RoomsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.create("alice", "lobby")
    with monkeypatch.context() as patch:
        fail_with(world, patch, RuntimeError("boom"))
        assert (await world.say("alice", room, "x")).code is ErrorCode.INTERNAL
    assert (await world.say("alice", room, "y")).seq == 1


async def test_a_failing_storage_is_told_as_unavailable(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await world.create("alice", "lobby")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    with monkeypatch.context() as patch:
        fail_with(world, patch, error)
        outcome = await world.say("alice", room, "x")
    assert outcome.code is ErrorCode.UNAVAILABLE
    assert outcome.retry_after_s > 0
    assert (await world.say("alice", room, "y")).seq == 1


async def test_a_failing_insert_stores_nothing_of_the_batch(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    full = await world.create("alice", "full")
    await world.database.write(
        lambda c: c.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON messages WHEN NEW.text = 'bomb'"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    )
    outcomes = await world.append(
        publish("alice", room.room_id, "a"), publish("alice", full.room_id, "bomb"), publish("alice", room.room_id, "b")
    )
    assert len(set(seqs(outcomes))) == 1
    assert outcomes[0].code is not None
    assert await world.stored(room) == []
    assert (await world.room(room)).last_seq == 0
    assert (await world.say("alice", room, "c")).seq == 1


async def test_a_full_disk_refuses_and_then_goes_on(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    pages = await world.database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await world.database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages + 8}"))
    with capture_logs():
        outcomes = [await world.say("alice", room, "x" * 4_000) for _ in range(40)]
    stored = [outcome.seq for outcome in outcomes if outcome.code is None]
    refused = {outcome.code for outcome in outcomes if outcome.code is not None}
    assert stored == list(range(1, len(stored) + 1))
    assert refused == {ErrorCode.UNAVAILABLE}
    assert [m.seq for m in await world.stored(room)] == stored
    await world.database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000"))
    assert (await world.say("alice", room, "y")).seq == len(stored) + 1


async def test_a_failed_commit_is_nobodys_knowledge(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await world.create("alice", "lobby")
    answers: list[Sequence[Outcome] | None] = []
    failure = ParleyError(ErrorCode.UNKNOWN_OUTCOME, "the storage failed while it was committing")
    future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(world.log._writer, "submit", lambda _item: future)
    world.log.append([publish("alice", room.room_id, "x")], lambda _part, outcomes: answers.append(outcomes))
    future.set_exception(failure)
    await world.log.settled()
    assert answers == [None]
    assert world.log.pending_count == 0


async def test_heads_hold_nothing_that_is_still_to_be_announced(
    world: RoomsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees what is committed before the event loop has heard of the commit."""
    room = await world.create("alice", "lobby")
    announced: list[int] = []
    world.bus.subscribe(lambda event: announced.append(event.last_seq) if isinstance(event, Run) else None)

    def read_when_stored(work: Callable[[Connection], Any]) -> Any:
        while True:  # holds the event loop up, so that nothing is announced meanwhile
            with world.database._read_engine.connect() as connection:
                found = work(connection)
            if found[room.room_id].last_seq == 1:
                return found
            time.sleep(0.001)

    async def read(work: Callable[[Connection], Any]) -> Any:
        return read_when_stored(work)

    monkeypatch.setattr(world.database, "read", read)
    world.log.append([publish("alice", room.room_id, "x")], lambda *_: None)
    heads = await world.log.heads([room.room_id])
    assert heads == {room.room_id: Head(room.epoch, 1)}
    assert announced == [1]


async def test_pages(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    other = await world.create("alice", "kitchen")
    await world.append(*(publish("alice", room.room_id, f"text {n}") for n in range(1, 11)))
    await world.say("alice", other, "elsewhere")

    async def page(after: int, up_to: int, limit: int) -> list[int]:
        found = await world.log.page(room.room_id, after_seq=after, up_to_seq=up_to, limit=limit)
        assert found is not None
        assert found.head == Head(room.epoch, 10)
        return [message.seq for message in found.messages]

    assert await page(0, 10, 4) == [1, 2, 3, 4]
    assert await page(4, 6, 4) == [5, 6]
    assert await page(10, 10, 4) == []
    assert await world.log.page("unknown0000", after_seq=0, up_to_seq=1, limit=1) is None
    assert await world.log.heads([]) == {}
    assert set(await world.log.heads([room.room_id, "unknown0000"])) == {room.room_id}


async def test_a_file_that_was_given_up_is_not_posted(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    posting = publish("alice", room.room_id, "", "f1")
    posting.file = File("a" * 32, "a.txt", 1, "0" * 64)
    ordinary = publish("alice", room.room_id, "hi")
    assert seqs(await world.append(posting, ordinary)) == ["no_such_file", 1]
    assert [message.file for message in await world.stored(room)] == [None]
