"""A SQLite database, copied while it is in use, and prepared for its new life."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from deploy.backup.copying import copy, measure
from deploy.backup.manifest import BackupError, StoreEntry
from deploy.backup.renewal import KEPT_FILES, renew
from deploy.backup.snapshot import COUNTED, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.backup.places import Store

_BUSY_S = 30.0


def dump(store: Store, directory: Path) -> tuple[Snapshot, dict[str, tuple[int, str]]]:
    """Copies the database to `directory`/databases/<service>.db; returns what it is, and the file with its hash.

    SQLite's online backup: one snapshot, however much is written meanwhile, and nobody waits. Raises BackupError.
    """
    if not store.path.is_file():
        raise BackupError(f"{store.service}: there is no database {store.path}")
    name = f"databases/{store.service}.db"
    target = directory / name
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.touch(mode=0o600, exist_ok=False)
    try:
        with (
            contextlib.closing(sqlite3.connect(store.path, timeout=_BUSY_S)) as source,
            contextlib.closing(sqlite3.connect(target)) as made,
        ):
            source.backup(made)
            made.execute("PRAGMA journal_mode = DELETE")  # one file, without companions
            check(made, store.service)
            snapshot = _describe(made, store)
    except sqlite3.Error as error:
        raise BackupError(f"{store.service}: {store.path} cannot be copied: {error}") from error
    return snapshot, {name: measure(target)}


def stage(source: Path, expected: tuple[int, str], target: Path, store: Store) -> None:
    """Puts a copy of the backup's database beside its place, verified and renewed. Raises BackupError, OSError."""
    for leftover in (target, target.with_name(target.name + "-journal")):
        leftover.unlink(missing_ok=True)
    if copy(source, target) != expected:
        raise BackupError(f"{source} was changed while it was read")
    try:
        with contextlib.closing(sqlite3.connect(target)) as made:
            made.execute("PRAGMA synchronous = FULL")
            check(made, store.service)
            renew(store.service, made.cursor(), placeholder="?")
            made.commit()
            check(made, store.service)
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be used: {error}") from error


def check(connection: sqlite3.Connection, service: str) -> None:
    """SQLite's own checks of the whole file. Raises BackupError."""
    for pragma in ("integrity_check", "foreign_key_check"):
        said = [row for row in connection.execute(f"PRAGMA {pragma}") if row != ("ok",)]
        if said:
            raise BackupError(f"{service}: the database is damaged ({pragma}): {said[0]}")


def _describe(connection: sqlite3.Connection, store: Store) -> Snapshot:
    (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    needed = dict(connection.execute(KEPT_FILES).fetchall()) if store.service == "rooms" else {}
    counts = {
        name: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 -- names of ours
        for name, table in COUNTED[store.service].items()
    }
    return Snapshot(StoreEntry(store.service, store.kind, revision), needed, counts)
