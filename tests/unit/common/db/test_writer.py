from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from services.common.db import Database
from services.common.db.writer import Writer
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.sql_table import ACCESS, Gate, create, fail, put, rows, rows_elsewhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/data/test.db"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, access=ACCESS)
    await database.write(create)
    yield database
    await database.close()


async def test_what_queues_up_shares_one_transaction(url: str) -> None:
    commits: list[int] = []
    database = Database(
        url, access=ACCESS, on_commit=lambda count, seconds: commits.append(count if seconds > 0 else -1)
    )
    await database.write(create)
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(put(number)) for number in range(10)]
    gate.open()
    assert await asyncio.gather(*futures) == list(range(10))
    assert commits == [1, 1, 10]
    await database.close()


async def test_an_answer_comes_only_after_the_commit(database: Database, url: str) -> None:
    gate = Gate(database)
    await gate.reached()
    first = database.submit(put("first"))
    held, let_go = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        held.set()
        assert let_go.wait(30)

    second = database.submit(hold)
    gate.open()
    assert await asyncio.to_thread(held.wait, 30)
    await gate.done
    await asyncio.sleep(0)
    assert not first.done()  # it has run, and is not committed
    let_go.set()
    await second
    assert first.done()
    assert rows_elsewhere(url) == ["first"]


async def test_work_that_raises_leaves_no_trace_and_spoils_no_other(database: Database) -> None:
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(work) for work in (put(1), fail, put(2), put(2), put(3))]
    gate.open()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [int, KeyError, int, IntegrityError, int]
    assert await database.read(rows) == [1, 2, 3]


async def test_work_that_raises_alone_leaves_no_trace(database: Database) -> None:
    with pytest.raises(KeyError):
        await database.write(fail)
    assert await database.read(rows) == []
    assert await database.write(put(1)) == 1


def put_all(connection: Connection, items: list[Any]) -> Sequence[Any]:
    for item in items:
        put(item)(connection)
    return [ValueError(item) if item == "refuse" else len(items) for item in items]


async def test_items_are_handled_a_list_at_a_time_in_order(database: Database) -> None:
    writer = database.writer(put_all)
    assert await writer.submit("alone") == 1
    gate = Gate(database)
    await gate.reached()
    futures = [writer.submit(number) for number in range(5)]
    gate.open()
    assert await asyncio.gather(*futures) == [5] * 5
    assert await database.read(rows) == ["alone", 0, 1, 2, 3, 4]


async def test_items_and_functions_keep_their_order(database: Database) -> None:
    writer = database.writer(put_all)
    gate = Gate(database)
    await gate.reached()
    futures: list[asyncio.Future[Any]] = [
        writer.submit("a"),
        writer.submit("b"),
        database.submit(rows),
        writer.submit("c"),
        database.submit(fail),
        writer.submit("d"),
    ]
    gate.open()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert results[:4] == [2, 2, ["a", "b"], 1]
    assert isinstance(results[4], KeyError)
    assert await database.read(rows) == ["a", "b", "c", "d"]


async def test_a_result_that_is_an_exception_is_raised_to_its_caller_alone(database: Database) -> None:
    writer = database.writer(put_all)
    gate = Gate(database)
    await gate.reached()
    futures = [writer.submit(item) for item in ("a", "refuse", "b")]
    gate.open()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert (results[0], str(results[1]), results[2]) == (3, "refuse", 3)


async def test_a_list_whose_handler_raises_is_not_stored_and_spoils_no_other(database: Database) -> None:
    writer = database.writer(put_all)
    gate = Gate(database)
    await gate.reached()
    futures: list[asyncio.Future[Any]] = [database.submit(put(1)), writer.submit(2), writer.submit(1)]
    gate.open()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [int, IntegrityError, IntegrityError]
    assert await database.read(rows) == [1]


async def test_a_handler_must_answer_every_item(database: Database) -> None:
    writer = database.writer(lambda connection, items: put_all(connection, items)[1:])
    with pytest.raises(AssertionError, match="0 results for 1 items"):
        await writer.submit("a")
    assert await database.read(rows) == []


@pytest.mark.parametrize("fails_at", ["statement", "commit"])
async def test_items_behind_a_failed_transaction_fail_until_that_is_known(
    url: str, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR
    error = OperationalError("…", None, cause)
    failing: list[str] = []
    commit = Connection.commit

    def put_or_fail(connection: Connection, items: list[Any]) -> Sequence[Any]:
        if "bad" in items:
            if fails_at == "statement":
                raise error
            failing.append("commit")
        return put_all(connection, items)

    def commit_or_fail(connection: Connection) -> None:
        if failing:
            failing.clear()
            raise error
        commit(connection)

    monkeypatch.setattr(Connection, "commit", commit_or_fail)
    database = Database(url, access=ACCESS, batch_max=1)
    await database.write(create)
    writer: Writer[Any, Any] = database.writer(put_or_fail)
    gate = Gate(database)
    await gate.reached()
    ahead = writer.submit("ahead")
    behind = [writer.submit(item) for item in ("bad", "b", "c")]
    function = database.submit(put("function"))
    gate.open()
    assert await ahead == 1
    results = await asyncio.gather(*behind, return_exceptions=True)
    code = ErrorCode.UNAVAILABLE if fails_at == "statement" else ErrorCode.UNKNOWN_OUTCOME
    assert [isinstance(result, ParleyError) and result.code for result in results] == [code] * len(results)
    assert await function == "function"
    assert await writer.submit("later") == 1
    assert await database.read(rows) == ["ahead", "function", "later"]
    await database.close()


async def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(url: str) -> None:
    database = Database(url, access=ACCESS, queue_max=2)
    await database.write(create)
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(put(number)) for number in range(2)]
    with pytest.raises(ParleyError) as caught:
        database.submit(put("too much"))
    assert caught.value.code is ErrorCode.OVERLOADED
    assert caught.value.retry_after_s is not None
    gate.open()
    await asyncio.gather(*futures)
    assert await database.write(put("again")) == "again"
    assert await database.read(rows) == [0, 1, "again"]
    await database.close()


async def test_a_transaction_is_bounded(url: str) -> None:
    commits: list[int] = []
    database = Database(url, access=ACCESS, batch_max=4, on_commit=lambda count, _seconds: commits.append(count))
    await database.write(create)
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(put(number)) for number in range(10)]
    gate.open()
    await asyncio.gather(*futures)
    assert commits == [1, 1, 4, 4, 2]
    await database.close()


async def test_closing_stores_and_answers_what_is_queued(database: Database, url: str) -> None:
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(put(number)) for number in range(5)]
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    for use in (lambda: database.submit(put(9)), lambda: database.writer(put_all).submit(9)):
        with pytest.raises(ParleyError) as caught:
            use()
        assert caught.value.code is ErrorCode.UNAVAILABLE
    with pytest.raises(ParleyError):
        await database.read(rows)
    gate.open()
    await closing
    assert [future.result() for future in futures] == list(range(5))
    await database.close()
    assert rows_elsewhere(url) == list(range(5))


async def test_a_caller_that_goes_does_not_keep_its_work_from_being_stored(database: Database) -> None:
    gate = Gate(database)
    await gate.reached()
    task = asyncio.create_task(database.write(put(1)))
    await asyncio.sleep(0)
    task.cancel()
    after = database.submit(put(2))
    gate.open()
    await after
    assert task.cancelled()
    assert await database.read(rows) == [1, 2]


async def test_when_the_commit_fails_the_outcome_is_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_connection: Connection) -> None:
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "commit", broken)
        with pytest.raises(ParleyError) as caught, capture_logs() as logs:
            await database.write(put(1))
    assert caught.value.code is ErrorCode.UNKNOWN_OUTCOME
    assert logs[0]["event"] == "commit failed"
    assert await database.write(put(2)) == 2
    assert await database.read(rows) == [2]


async def test_a_disk_that_is_full_at_the_commit_has_stored_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_connection: Connection) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OperationalError("COMMIT", None, error)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "commit", full)
        with pytest.raises(ParleyError) as caught, capture_logs() as logs:
            await database.write(put(1))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert logs[0]["event"] == "storage failed"
    assert await database.write(put(2)) == 2
    assert await database.read(rows) == [2]


works = st.lists(st.tuples(st.sampled_from(["put", "fail", "item", "refuse"]), st.integers(0, 30)), max_size=40)


@settings(max_examples=30, deadline=None)
@given(works)
async def test_exactly_what_was_answered_with_success_is_stored(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, int]]
) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('db')}/t.db", batch_max=7)
    await database.write(create)

    def store(connection: Connection, items: list[tuple[str, int]]) -> list[object]:
        results: list[object] = []
        for kind, value in items:
            if kind == "refuse" or value in rows(connection):
                results.append(KeyError(value))
            else:
                results.append(put(value)(connection))
        return results

    def raising(value: int) -> Callable[[Connection], object]:
        def work(connection: Connection) -> object:
            put(value)(connection)
            raise KeyError(value)

        return work

    writer = database.writer(store)
    futures: list[asyncio.Future[Any]] = []
    for kind, value in plan:
        if kind in ("item", "refuse"):
            futures.append(writer.submit((kind, value)))
        else:
            futures.append(database.submit(put(value) if kind == "put" else raising(value)))
    results = await asyncio.gather(*futures, return_exceptions=True)
    stored = [result for result in results if not isinstance(result, Exception)]
    assert await database.read(rows) == stored
    await database.close()
