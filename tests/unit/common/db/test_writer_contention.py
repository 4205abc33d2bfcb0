"""Two writers on one PostgreSQL: what they do to each other is settled among them, and no caller hears of it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from services.common.db import Database, watchdog
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.sql_table import ACCESS, Gate, create, fail, put, rows, sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.helpers.postgres import PostgresServer

WAIT_S = 30


@pytest.fixture
async def two(postgres_url: str) -> AsyncIterator[list[Database]]:
    """Two instances, and a table with the rows a and b."""
    made = [Database(postgres_url, access=ACCESS) for _ in range(2)]
    await made[0].write(create)
    for value in "ab":
        await made[0].write(put(value))
    yield made
    for database in made:
        await database.close()


def lock(connection: Connection, value: str) -> None:
    connection.execute(text("SELECT v FROM t WHERE v = :v FOR UPDATE"), {"v": f'"{value}"'})


class Meeting:
    """Has the first transactions of several writers reach the same point."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=WAIT_S)
        self._seen: set[object] = set()

    def wait(self, who: object) -> None:
        if who not in self._seen:
            self._seen.add(who)
            self._barrier.wait()


async def batch(database: Database, *work: Callable[[], asyncio.Future[Any]]) -> list[Any]:
    """Queues these so that they go into one transaction."""
    gate = Gate(database)
    await gate.reached()
    futures = [submit() for submit in work]
    gate.open()
    return await asyncio.gather(*futures, return_exceptions=True)


async def test_batches_that_wait_for_each_other_in_a_circle_are_both_stored(two: list[Database]) -> None:
    """As when one has a join of room a and texts for room b, and the other the reverse."""
    meeting = Meeting(2)
    order: dict[int, list[str]] = {0: [], 1: []}

    def work_of(index: int, first: str, second: str) -> list[Callable[[], asyncio.Future[Any]]]:
        database = two[index]

        def join(connection: Connection) -> str:
            lock(connection, first)
            meeting.wait(index)
            put(f"join {index}")(connection)
            return f"joined {index}"

        def store(connection: Connection, items: list[str]) -> list[str]:
            lock(connection, second)
            for item in items:
                put(f"{index} {item}")(connection)
            return items

        writer = database.writer(store)
        note = order[index].append
        return [
            lambda: _noting(database.submit(join), note),
            *(lambda item=item: _noting(writer.submit(item), note) for item in "xyz"),  # type: ignore[misc]
            lambda: _noting(database.submit(put(f"last {index}")), note),
        ]

    with capture_logs() as logs:
        results = await asyncio.gather(batch(two[0], *work_of(0, "a", "b")), batch(two[1], *work_of(1, "b", "a")))
    for index in range(2):
        assert results[index] == [f"joined {index}", "x", "y", "z", f"last {index}"]
        assert order[index] == results[index]
    assert logs == []
    found = await two[0].read(rows)
    assert len(found) == len(set(found)) == 2 + 2 * 5


def _noting(future: asyncio.Future[Any], note: Callable[[Any], None]) -> asyncio.Future[Any]:
    future.add_done_callback(lambda done: note(done.result()))
    return future


async def test_items_alone_that_lose_a_deadlock_are_run_again(two: list[Database]) -> None:
    meeting = Meeting(2)
    runs: list[int] = []

    def storing(index: int, first: str, second: str) -> Callable[[Connection, list[str]], list[str]]:
        def store(connection: Connection, items: list[str]) -> list[str]:
            runs.append(index)
            lock(connection, first)
            meeting.wait(index)
            lock(connection, second)
            return items

        return store

    answers = await asyncio.gather(
        two[0].writer(storing(0, "a", "b")).submit("x"), two[1].writer(storing(1, "b", "a")).submit("y")
    )
    assert answers == ["x", "y"]
    assert len(runs) > 2


async def test_one_that_fails_in_its_own_right_spoils_no_other_when_a_batch_is_taken_apart(
    two: list[Database], postgres_url: str
) -> None:
    here = two[0]
    is_apart = threading.Event()
    runs: list[str] = []

    def waits(connection: Connection) -> str:
        runs.append("waits")
        if len(runs) == 2:
            is_apart.set()
        lock(connection, "a")
        return "waited"

    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT v FROM t WHERE v = '\"a\"' FOR UPDATE")
        storing = asyncio.ensure_future(
            batch(here, *(lambda work=work: here.submit(work) for work in (put("one"), waits, fail, put("two"))))  # type: ignore[misc]
        )
        assert await asyncio.to_thread(is_apart.wait, WAIT_S)
    results = await storing
    assert [results[0], results[1], type(results[2]), results[3]] == ["one", "waited", KeyError, "two"]
    assert await here.read(rows) == ["a", "b", "one", "two"]


async def test_items_are_stored_by_the_first_batch_after_a_restart(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.make_database(), access=ACCESS)
    await database.write(create)

    def store(connection: Connection, items: list[str]) -> list[str]:
        cursor: Any = connection.connection.cursor()  # on the driver's cursor, as the log does it
        cursor.executemany("INSERT INTO t (v) VALUES (%s)", [(f'"{item}"',) for item in items])
        return items

    writer = database.writer(store)
    assert await writer.submit("before") == "before"
    await asyncio.to_thread(own_postgres.kill)
    with capture_logs(), pytest.raises(ParleyError) as caught:
        await writer.submit("while")
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await asyncio.to_thread(own_postgres.start)
    assert await writer.submit("after") == "after"
    await asyncio.to_thread(own_postgres.stop)
    await asyncio.to_thread(own_postgres.start)
    assert await batch(database, lambda: database.submit(put("mixed")), lambda: writer.submit("too")) == [
        *("mixed", "too")
    ]
    assert await database.read(rows) == ["before", "after", "mixed", "too"]
    await database.close()


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LIMIT_S", 1.0)
    monkeypatch.setattr(watchdog.Watchdog.__init__, "__defaults__", (1.0,))


def backend(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


@pytest.mark.usefixtures("short_limit")
async def test_a_server_process_that_is_frozen_is_given_up(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.make_database(), access=ACCESS, readers=1)
    await database.write(create)
    frozen = [await database.write(backend), await database.read(backend)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    with capture_logs() as logs:
        async with asyncio.timeout(WAIT_S):
            assert await database.write(put("stored")) == "stored"  # by a new connection, before anybody has to know
            assert await database.read(rows) == ["stored"]
    assert {log["event"] for log in logs} == {"a database connection is cut: nothing was heard on it for too long"}
    await database.close()
    own_postgres.kill()


@pytest.mark.usefixtures("short_limit")
async def test_a_commit_that_is_never_answered_has_an_unknown_outcome(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.make_database(), access=ACCESS)
    await database.write(create)
    pid = await database.write(backend)

    def freeze(connection: Connection) -> None:
        put("perhaps")(connection)
        os.kill(pid, signal.SIGSTOP)

    with capture_logs(), pytest.raises(ParleyError) as caught:
        async with asyncio.timeout(WAIT_S):
            await database.write(freeze)
    assert caught.value.code is ErrorCode.UNKNOWN_OUTCOME
    assert await database.write(put("after")) == "after"
    await database.close()
    own_postgres.kill()


@pytest.mark.usefixtures("short_limit")
async def test_what_is_answered_in_time_is_left_alone(two: list[Database]) -> None:
    for number in range(5):
        await two[0].write(sql("SELECT pg_sleep(0.4)"))
        assert await two[0].write(put(number)) == number
    assert await two[0].read(lambda c: len(rows(c))) == 7
