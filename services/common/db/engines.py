"""Engines for each SQL dialect, and the translation of the storage's failures.

SQLite is opened so that what is committed is synced (WAL, synchronous=FULL). Python's sqlite3 would decide by itself
when to begin a transaction; it is told not to, and BEGIN is emitted when SQLAlchemy begins one: IMMEDIATE for
writers, because a transaction that reads first and takes the write lock later can fail half way with SQLITE_BUSY.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.common.db.postgres import (
    PostgresAccess,
    is_lost_by_postgres,
    is_postgres_failure,
    is_refused_by_postgres,
    make_postgres_engine,
)
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

# How long a statement waits for another process's lock before the storage counts as unavailable.
BUSY_TIMEOUT_MS: Final = 5_000
# Primary result codes that say that the storage, not the statement, is at fault.
_SQLITE_STORAGE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
# What a caller is told to wait: the usual causes (a lock, a restart) pass within a second.
RETRY_AFTER_S: Final = 1.0
_log = get_logger(__name__)


def make_engine(url: str, *, pool_size: int, is_reader: bool, access: PostgresAccess | None = None) -> Engine:
    """An engine for the dialect that the URL names; PostgreSQL needs `access`. Raises ValueError that names the
    configuration's key."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("database_url: not a URL") from None  # without it: there may be a password in it
    match parsed.get_backend_name():
        case "sqlite":
            return _make_sqlite_engine(parsed, pool_size=pool_size, is_reader=is_reader)
        case "postgresql":
            if access is None:
                raise ValueError("database_url: PostgreSQL is not supported here")
            return make_postgres_engine(url, access, pool_size=pool_size, is_reader=is_reader)
        case dialect:
            raise ValueError(f"database_url: {dialect} is not supported")


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL names. Raises ValueError for a database in memory, which threads cannot share."""
    database = make_url(url).database
    if not database or database == ":memory:":
        raise ValueError("database_url: SQLite needs a file, as in sqlite:///data/rooms.db")
    return Path(database)


def _make_sqlite_engine(url: URL, *, pool_size: int, is_reader: bool) -> Engine:
    path = sqlite_path(url.render_as_string(hide_password=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its WAL the same permissions as the database; nobody else has business in either.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Failed statements are logged; what was to be stored (texts, hashes) is nobody's business.
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, hide_parameters=True)

    def on_connect(connection: DBAPIConnection, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if is_reader:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def is_storage_failure(error: BaseException) -> bool:
    """Whether the storage is at fault (locked, full, broken, out of reach) rather than the statement or its data."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        # The driver's own, where statements go to its cursor.
        if isinstance(error, psycopg.Error):
            return is_postgres_failure(error)
        return isinstance(error, sqlite3.Error) and _has_storage_code(error)
    if isinstance(error.orig, sqlite3.Error):
        return _has_storage_code(error.orig)
    return error.connection_invalidated or (error.orig is not None and is_postgres_failure(error.orig))


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection is gone (a restart of the server, a cut cable), and another one may do."""
    if isinstance(error, psycopg.Error):  # the driver's own, where statements go to its cursor
        return is_lost_by_postgres(error)
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _has_storage_code(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # extended: the primary code is in the low byte
    return code is not None and code & 0xFF in _SQLITE_STORAGE_CODES


def is_commit_refused(error: BaseException) -> bool:
    """Whether a COMMIT that failed has certainly left nothing behind.

    SQLite writes the frame that makes a transaction count last, so one for which the disk was full, or which did not
    get the lock, is not there, and will not be after a crash either. Of other failures (a sync that failed, a lost
    connection) nobody knows. What PostgreSQL says, see `is_refused_by_postgres`.
    """
    original = getattr(error, "orig", error)
    if is_refused_by_postgres(original):
        return True
    code = getattr(original, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}


def translate(error: BaseException) -> BaseException:
    """`unavailable` for a failure of the storage, which is logged here; any other error as it is."""
    if not is_storage_failure(error):
        return error
    _log.error("storage failed", exc_info=error)
    translated = ParleyError(ErrorCode.UNAVAILABLE, "the storage does not answer", retry_after_s=RETRY_AFTER_S)
    translated.__cause__ = error
    return translated
