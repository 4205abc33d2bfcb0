from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from structlog.testing import capture_logs

from services.common.db import Database
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.sql_table import ACCESS, Gate, create, put, rows, sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/data/test.db"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/test.db"


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    await database.write(create)
    yield database
    await database.close()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, access=ACCESS)
    await database.write(create)
    yield database
    await database.close()


async def test_what_was_written_is_read(database: Database) -> None:
    assert await database.write(put("a")) == "a"
    assert await database.read(rows) == ["a"]


async def test_the_settings_that_durability_needs_are_on(sqlite: Database) -> None:
    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await sqlite.read(pragmas) == ["wal", 2, 1, 5000]
    assert await sqlite.write(pragmas) == ["wal", 2, 1, 5000]


async def test_the_files_are_private(sqlite: Database, tmp_path: Path) -> None:
    await sqlite.write(put(1))
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()} == {0o600}


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(ParleyError), capture_logs() as logs:
        await database.read(put("x"))
    assert logs[0]["event"] == "storage failed"
    assert await database.read(rows) == []


async def test_a_reader_sees_one_snapshot(database: Database) -> None:
    await database.write(put(1))
    reading, written = threading.Event(), threading.Event()

    def twice(connection: Connection) -> tuple[list[Any], list[Any]]:
        first = rows(connection)
        reading.set()
        assert written.wait(30)
        return first, rows(connection)

    task = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(reading.wait, 30)
    await database.write(put(2))
    written.set()
    assert await task == ([1], [1])
    assert await database.read(rows) == [1, 2]


async def test_closing_what_was_never_used_is_fine(url: str) -> None:
    await Database(url, access=ACCESS).close()


async def test_a_database_that_another_holds_is_unavailable_and_then_available(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.db.engines.BUSY_TIMEOUT_MS", 1)
    database = Database(sqlite_url)
    await database.write(create)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ParleyError) as caught, capture_logs() as logs:
        await database.write(put(1))
    assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.UNAVAILABLE, 1.0)
    assert isinstance(caught.value.__cause__, OperationalError)
    assert [log["event"] for log in logs] == ["storage failed"]
    other.execute("ROLLBACK")
    other.close()
    assert await database.write(put(2)) == 2
    assert await database.read(rows) == [2]
    await database.close()


async def test_a_full_disk_fails_the_whole_transaction_and_passes(sqlite: Database) -> None:
    await sqlite.write(put("kept"))
    pages = await sqlite.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    await sqlite.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar())
    gate = Gate(sqlite)
    await gate.reached()
    futures = [sqlite.submit(put(value)) for value in ("small", "x" * 100_000, "after")]
    gate.open()
    with capture_logs() as logs:
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert [getattr(result, "code", None) for result in results] == [ErrorCode.UNAVAILABLE] * 3
    assert [log["event"] for log in logs] == ["storage failed"]
    await sqlite.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000").scalar())
    assert await sqlite.write(put("x" * 100_000))
    assert (await sqlite.read(rows))[0] == "kept"


async def test_a_statement_that_is_wrong_is_a_defect_not_an_outage(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"no such table|does not exist"):
        await database.write(sql("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(DBAPIError, match=r"no such table|does not exist"):
        await database.read(sql("SELECT * FROM nowhere"))
    assert await database.write(put(1)) == 1


async def test_too_many_reads_are_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_places", threading.BoundedSemaphore(1))
    go = threading.Event()
    first = asyncio.create_task(database.read(lambda _connection: go.wait(30)))
    await asyncio.sleep(0)
    with pytest.raises(ParleyError) as caught:
        await database.read(rows)
    assert caught.value.code is ErrorCode.OVERLOADED
    go.set()
    assert await first
    assert await database.read(rows) == []


@pytest.mark.parametrize(
    "bad", ["sqlite://", "sqlite:///:memory:", "postgresql://localhost/x", "mysql://localhost/x", "me:secret@nowhere"]
)
async def test_what_cannot_be_served_is_refused_by_name(bad: str) -> None:
    with pytest.raises(ValueError, match="database_url") as caught:
        Database(bad)
    assert "secret" not in str(caught.value)
