"""PostgreSQL: its engine, and what its errors mean.

Writers commit with `synchronous_commit=on`, whatever the server's default: what is answered is on the disk. Readers
get REPEATABLE READ, READ ONLY transactions, which are the one snapshot that a reader of SQLite sees. Each service has
a schema of its own and no other in its search path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from services.common.secret_file import read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

# Opening a connection; a database on another continent takes a tenth of it.
CONNECT_TIMEOUT_S: Final = 5
# A statement of ours takes milliseconds: one that takes this long is in trouble, and holds everything behind it up.
STATEMENT_TIMEOUT_MS: Final = 10_000
# As long as SQLite waits for another process's lock.
LOCK_TIMEOUT_MS: Final = 5_000
# A transaction of a process that has stopped half way must not keep its row locks.
IDLE_TIMEOUT_MS: Final = 30_000
# What was sent and is not acknowledged by the other machine for so long never will be.
TCP_TIMEOUT_MS: Final = 10_000
# The wait for another instance that migrates: longer than any of our revisions takes.
MIGRATION_LOCK_TIMEOUT_MS: Final = 600_000

_SCHEMA: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LOST: Final = frozenset({"57P01", "57P02", "57P03"})  # admin shutdown, crash shutdown, cannot connect now
_RETRYABLE: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_LOCK_TIMEOUT: Final = "55P03"
# By class: connections, resources (disk full, memory, too many connections), system errors, corruption, authorisation.
_STORAGE_CLASSES: Final = frozenset({"08", "28", "40", "53", "58", "XX"})
# Read-only (a standby, a reader), lock time-out, cancelled or timed out, no such database, idle in a transaction.
_STORAGE_STATES: Final = frozenset({"25006", "25P03", "55P03", "57014", "57P04", "3D000"}) | _LOST


@dataclass(frozen=True, kw_only=True)
class PostgresAccess:
    """What a PostgreSQL URL leaves out. `schema` is the service's own; `name` shows in the server's list of
    connections. The files are read at each start: the password's first line, and the CA in PEM, with which the
    server's certificate and host name are verified."""

    schema: str
    name: str = "parley"
    password_file: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if _SCHEMA.fullmatch(self.schema) is None:
            raise ValueError(f"not a schema's name: {self.schema!r}")

    def arguments(self) -> dict[str, Any]:
        """What a connection is made with. Reads the password. Raises ValueError that names the configuration's key."""
        found: dict[str, Any] = {"application_name": self.name}
        if self.password_file is not None:
            found["password"] = read_secret(self.password_file, key="database_password_file")
        if self.ca_file is not None:
            if not self.ca_file.is_file():
                raise ValueError(f"database_ca_file: {self.ca_file} is not a file")
            found |= {"sslmode": "verify-full", "sslrootcert": str(self.ca_file)}
        return found


def make_postgres_engine(url: str, access: PostgresAccess, *, pool_size: int, is_reader: bool) -> Engine:
    """An engine for the URL. Raises ValueError that names the configuration's key."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    settings = {
        "search_path": access.schema,
        "synchronous_commit": "on",
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS,
    }
    if is_reader:
        settings |= {"default_transaction_read_only": "on", "default_transaction_isolation": r"repeatable\ read"}
    arguments = access.arguments() | {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": TCP_TIMEOUT_MS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    return create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        hide_parameters=True,
        use_native_hstore=False,
        connect_args=arguments,
    )


def lock_for_migration(connection: Connection, schema: str) -> None:
    """Waits for other instances that migrate, keeps them out until the transaction ends, and makes the schema.

    What a revision does may take long; it may also wait for the statements of instances that still serve.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = {MIGRATION_LOCK_TIMEOUT_MS}"))
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0))"), {"lock": f"parley migration of {schema}"}
    )
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    # Asked first, because CREATE SCHEMA wants a right that an account which only uses the schema need not have.
    if not connection.scalar(text("SELECT count(*) FROM pg_namespace WHERE nspname = :schema"), {"schema": schema}):
        connection.execute(text(f"CREATE SCHEMA {schema}"))


def is_postgres_failure(error: BaseException) -> bool:
    """Whether one of psycopg's errors is the storage's fault rather than the statement's or its data's."""
    state = _state(error)
    if state is None:
        # Without a state it is libpq that complains: no connection, or one that broke.
        return type(error).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}
    return state[:2] in _STORAGE_CLASSES or state in _STORAGE_STATES


def is_retryable(error: BaseException) -> bool:
    """Whether the transaction lost against another one and would probably do its work when run again."""
    return _state(getattr(error, "orig", error)) in _RETRYABLE


def is_lock_timeout(error: BaseException) -> bool:
    """Whether the transaction has given up to wait for a row that another one holds."""
    return _state(getattr(error, "orig", error)) == _LOCK_TIMEOUT


def is_lost_by_postgres(error: BaseException) -> bool:
    """Whether one of psycopg's errors says that the connection has ended, or that the server is ending."""
    state = _state(error)
    return state in _LOST or (state is None and is_postgres_failure(error))


def be_impatient(connection: Connection, timeout_ms: int) -> None:
    """Has the transaction wait no longer than that for a row which another one holds."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {timeout_ms:d}")


def is_refused_by_postgres(error: BaseException) -> bool:
    """Whether a COMMIT that failed has certainly left nothing behind: the server says so by an ERROR, on a connection
    that goes on; of one that ended (FATAL, PANIC, or without a word) nobody knows."""
    severity = getattr(getattr(error, "diag", None), "severity_nonlocalized", None)
    return _state(error) is not None and severity == "ERROR"


def is_aborted(connection: Connection) -> bool:
    """Whether a statement has failed in this transaction, so that its COMMIT would be answered with ROLLBACK, and
    without an error. Asks nobody: the server told with its last answer."""
    if connection.dialect.name != "postgresql":
        return False
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.info.transaction_status.name == "INERROR")


def _state(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None
