"""Brings a database to the schema that the code expects, at start, safely with several instances starting at once.

A service keeps Alembic revisions in `<script_location>/versions/`; the environment that runs them is shared
(`services/common/db/alembic/env.py`). All pending revisions run in one transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import make_url

from services.common.db.engines import make_engine, sqlite_path, translate
from services.common.db.postgres import PostgresAccess, lock_for_migration

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENT: Final = Path(__file__).with_name("alembic")


class MigrationError(Exception):
    """The database cannot be brought to this version's schema, for example because a newer version made it."""


def migrate(url: str, script_location: Path, *, access: PostgresAccess | None = None) -> None:
    """Runs the revisions that the database has not seen. Blocks; call it before serving.

    Raises MigrationError, and ParleyError `unavailable` where the storage fails.
    """
    versions = script_location / "versions"
    if not versions.is_dir():
        raise MigrationError(f"no migrations in {versions}")
    config = Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", _escape(_ENVIRONMENT))
    config.set_main_option("version_locations", _escape(versions))
    engine = make_engine(url, pool_size=1, is_reader=False, access=access)
    try:
        with _lock(url), engine.connect() as connection:
            if access is not None and connection.dialect.name == "postgresql":
                lock_for_migration(connection, access.schema)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as error:
        raise MigrationError(f"{versions}: {error}") from error
    except Exception as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error
    finally:
        engine.dispose()


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
