from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from services.common.db import Database, PostgresAccess
from services.common.db.engines import is_commit_refused, is_storage_failure
from services.common.db.postgres import is_postgres_failure
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.sql_table import ACCESS, Gate, create, put, rows, sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.helpers.postgres import PostgresServer


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url, access=ACCESS)
    await database.write(create)
    yield database
    await database.close()


def shown(*names: str) -> Callable[[Connection], list[Any]]:
    return lambda connection: [connection.scalar(text(f"SHOW {name}")) for name in names]


async def test_the_settings_that_durability_needs_are_on_whatever_the_server_says(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    access = PostgresAccess(schema="rooms", name="rooms-7")
    database = Database(postgres_url, access=access)
    both = ("synchronous_commit", "search_path", "application_name", "statement_timeout", "lock_timeout")
    same = ["on", "rooms", "rooms-7", "10s", "5s"]
    own = ("transaction_isolation", "transaction_read_only")
    assert await database.write(shown(*both, *own)) == [*same, "read committed", "off"]
    assert await database.read(shown(*both, *own)) == [*same, "repeatable read", "on"]
    await database.close()


async def test_a_server_that_was_restarted_is_found_again_by_itself(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.make_database(), access=ACCESS)
    await database.write(create)
    assert await database.write(put(1)) == 1
    assert await asyncio.gather(*(database.read(rows) for _ in range(8))) == [[1]] * 8
    own_postgres.kill()
    with capture_logs() as logs:
        for use in (database.write(put("lost")), database.read(rows)):
            with pytest.raises(ParleyError) as caught:
                await use
            assert caught.value.code is ErrorCode.UNAVAILABLE
    assert {log["event"] for log in logs} == {"storage failed"}
    own_postgres.start()
    assert await database.write(put(2)) == 2
    assert await asyncio.gather(*(database.read(rows) for _ in range(8))) == [[1, 2]] * 8
    own_postgres.stop()
    own_postgres.start()  # nobody noticed: idle connections are replaced without an error
    assert await database.write(put(3)) == 3
    assert await database.read(rows) == [1, 2, 3]
    await database.close()


async def test_a_connection_lost_at_the_commit_leaves_the_outcome_unknown(
    database: Database, postgres_server: PostgresServer
) -> None:
    pid = await database.write(lambda connection: connection.scalar(text("SELECT pg_backend_pid()")))
    is_done = threading.Event()

    def shot(connection: Connection) -> None:
        put("perhaps")(connection)
        postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 30000)")
        is_done.set()

    with pytest.raises(ParleyError) as caught, capture_logs() as logs:
        await database.write(shot)
    assert is_done.is_set()
    assert caught.value.code is ErrorCode.UNKNOWN_OUTCOME
    assert [log["event"] for log in logs] == ["commit failed"]
    assert await database.write(put("after")) == "after"


async def test_a_commit_that_the_server_refuses_has_stored_nothing(database: Database) -> None:
    await database.write(sql("ALTER TABLE t ADD CONSTRAINT late UNIQUE (v) DEFERRABLE INITIALLY DEFERRED"))
    await database.write(sql("ALTER TABLE t DROP CONSTRAINT t_v_key"))
    await database.write(put(1))
    with pytest.raises(IntegrityError):
        await database.write(put(1))
    assert await database.read(rows) == [1]


async def test_work_that_loses_a_deadlock_runs_again(database: Database, postgres_url: str) -> None:
    await database.write(put("a"))
    await database.write(put("b"))
    other = Database(postgres_url, access=ACCESS)
    barrier = threading.Barrier(2, timeout=30)
    runs = {"x": 0, "y": 0}

    def lock(name: str, first: str, second: str) -> Callable[[Connection], str]:
        def work(connection: Connection) -> str:
            runs[name] += 1
            query = text("SELECT v FROM t WHERE v = :v FOR UPDATE")
            connection.execute(query, {"v": f'"{first}"'})
            if runs[name] == 1:
                barrier.wait()
            connection.execute(query, {"v": f'"{second}"'})
            return put(name)(connection)  # type: ignore[return-value]

        return work

    results = await asyncio.gather(database.write(lock("x", "a", "b")), other.write(lock("y", "b", "a")))
    assert results == ["x", "y"]
    assert max(runs.values()) > 1
    assert sorted(await database.read(rows)) == ["a", "b", "x", "y"]
    await other.close()


async def test_work_that_goes_on_after_a_failed_statement_is_not_answered_with_success(database: Database) -> None:
    def careless(connection: Connection) -> str:
        with contextlib.suppress(IntegrityError):
            put(1)(connection)
        return "stored"

    await database.write(put(1))
    with pytest.raises(AssertionError, match="savepoint"):
        await database.write(careless)
    gate = Gate(database)
    await gate.reached()
    futures = [database.submit(work) for work in (put(2), careless, put(3))]
    gate.open()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert (results[0], type(results[1]), results[2]) == (2, AssertionError, 3)
    assert await database.read(rows) == [1, 2, 3]


async def test_a_lock_that_another_holds_is_unavailable_and_then_available(
    database: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.db.postgres.LOCK_TIMEOUT_MS", 50)
    impatient = Database(postgres_url, access=ACCESS)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE t")
        with pytest.raises(ParleyError) as caught, capture_logs():
            await impatient.write(put(1))
        assert caught.value.code is ErrorCode.UNAVAILABLE
    assert await impatient.write(put(2)) == 2
    assert await database.read(rows) == [2]
    await impatient.close()


@pytest.mark.parametrize(
    ("kind", "is_storage"),
    [
        (psycopg.errors.DiskFull, True),
        (psycopg.errors.ReadOnlySqlTransaction, True),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.CannotConnectNow, True),
        (psycopg.errors.TooManyConnections, True),
        (psycopg.errors.SerializationFailure, True),
        (psycopg.errors.QueryCanceled, True),
        (psycopg.errors.IoError, True),
        (psycopg.errors.InvalidPassword, True),
        (psycopg.OperationalError, True),
        (psycopg.errors.UndefinedTable, False),
        (psycopg.errors.UniqueViolation, False),
        (psycopg.errors.NotNullViolation, False),
        (psycopg.DataError, False),
    ],
)
def test_failures_of_the_storage_are_told_from_mistakes(kind: type[psycopg.Error], is_storage: bool) -> None:
    assert is_postgres_failure(kind("said")) is is_storage
    wrapped = OperationalError("SELECT", None, kind("said"))
    assert is_storage_failure(wrapped) is is_storage
    assert not is_commit_refused(wrapped)  # no word from the server


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    database = Database("postgresql://x@127.0.0.1:1/x", access=ACCESS)
    with pytest.raises(ParleyError) as caught, capture_logs():
        await database.read(rows)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await database.close()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
async def test_a_password_file_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="database_password_file"):
        Database("postgresql://x@127.0.0.1:1/x", access=PostgresAccess(schema="auth", password_file=path))


async def test_a_password_comes_from_its_file(postgres_server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\nmore\n")
    access = PostgresAccess(schema="auth", password_file=tmp_path / "password")
    database = Database(postgres_server.make_database(), access=access)
    assert database._write_engine.dialect.name == "postgresql"
    with database._write_engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        assert raw.info.password == "correct horse"
    await database.close()


async def test_a_ca_means_that_the_server_must_prove_itself(postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="database_ca_file"):
        Database(postgres_url, access=PostgresAccess(schema="auth", ca_file=tmp_path / "none.pem"))
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    database = Database(postgres_url, access=PostgresAccess(schema="auth", ca_file=ca))
    with pytest.raises(ParleyError) as caught, capture_logs():
        await database.read(shown("ssl"))  # the server has no TLS, so that it is not the one that was meant
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await database.close()


@pytest.mark.parametrize("schema", ["", "Auth", "a b", "a;drop", "1a", "a" * 64])
def test_a_schema_has_a_plain_name(schema: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        PostgresAccess(schema=schema)
