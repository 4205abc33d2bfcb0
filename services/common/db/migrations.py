"""Brings a database to the schema that the code expects, at start, safely with several instances starting at once.

A service keeps Alembic revisions in `<script_location>/versions/`; the environment that runs them is shared
(`services/common/db/alembic/env.py`). All pending revisions run in one transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import make_url

from services.common.db.engines import is_storage_failure, make_engine, sqlite_path
from services.common.db.postgres import PostgresAccess, lock_for_migration
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

_REASON_CHARS_MAX: Final = 500
_ENVIRONMENT: Final = Path(__file__).with_name("alembic")


class MigrationError(Exception):
    """The database cannot be brought to this version's schema, for example because a newer version made it."""


def migrate(url: str, script_location: Path, *, access: PostgresAccess | None = None) -> None:
    """Runs the revisions that the database has not seen. Blocks; call it before serving.

    Raises MigrationError, and ParleyError `unavailable` where the storage fails.
    """
    config = _configuration(script_location)
    with _open(url, script_location, access) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def rebuild(
    url: str, script_location: Path, *, access: PostgresAccess, revision: str, fill: Callable[[Any], object]
) -> None:
    """Replaces all tables of a PostgreSQL schema by empty ones of `revision`, which `fill(psycopg connection)` fills.

    One transaction: where anything fails, the old ones are still there. Raises as `migrate` does, and what `fill` does.
    """
    config = _configuration(script_location)
    with _open(url, script_location, access) as connection:
        names = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = :s"), {"s": access.schema})
        for name in names.all():
            connection.execute(text(f'DROP TABLE {access.schema}."{name}" CASCADE'))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        fill(connection.connection.driver_connection)
        connection.commit()


def _configuration(script_location: Path) -> Config:
    versions = script_location / "versions"
    if not versions.is_dir():
        raise MigrationError(f"no migrations in {versions}")
    config = Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", _escape(_ENVIRONMENT))
    config.set_main_option("version_locations", _escape(versions))
    return config


@contextlib.contextmanager
def _open(url: str, script_location: Path, access: PostgresAccess | None) -> Iterator[Connection]:
    """A connection that no other instance migrates beside; failures come out as `migrate` says."""
    engine = make_engine(url, pool_size=1, is_reader=False, access=access)
    try:
        with _lock(url), engine.connect() as connection:
            if access is not None and connection.dialect.name == "postgresql":
                lock_for_migration(connection, access.schema)
            yield connection
    except CommandError as error:
        raise MigrationError(f"{script_location / 'versions'}: {error}") from error
    except Exception as error:
        if not is_storage_failure(error):
            raise
        raise ParleyError(ErrorCode.UNAVAILABLE, f"the database cannot be used: {_reason(error)}") from error
    finally:
        engine.dispose()


def _reason(error: BaseException) -> str:
    """The driver's own words, which name server and role and never hold a password, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:_REASON_CHARS_MAX]


def _escape(path: Path) -> str:
    return str(path.resolve()).replace("%", "%%")  # Alembic's configuration interpolates


@contextlib.contextmanager
def _lock(url: str) -> Iterator[None]:
    """Lets one instance at a time migrate; the others wait, and then find nothing to do.

    A file is locked by a file beside it; PostgreSQL has locks of its own (`lock_for_migration`).
    """
    if make_url(url).get_backend_name() != "sqlite":
        yield
        return
    path = sqlite_path(url)
    handle = os.open(path.with_name(path.name + ".migrate-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
