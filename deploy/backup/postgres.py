"""A service's schema in PostgreSQL: one snapshot out with COPY, and back in one transaction.

Needs no program of PostgreSQL's and no right but those of the service's own role.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from deploy.backup.copying import HashedFile
from deploy.backup.manifest import BackupError, StoreEntry, Table
from deploy.backup.renewal import KEPT_FILES, renew
from deploy.backup.snapshot import COUNTED, Snapshot
from services.common.db.engines import make_engine
from services.common.db.migrations import MigrationError, rebuild
from services.common.errors import ParleyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.backup.manifest import Manifest
    from deploy.backup.places import Store

_BLOCK_BYTES: Final = 1024 * 1024
_REVISIONS: Final = "alembic_version"
_REVISION: Final = "SELECT version_num FROM alembic_version"
_OTHERS: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)
# One that has been closed, of a service that is just ending or of our own look before, is listed a moment longer.
_LEAVING_S: Final = 1.0
_LOOK_S: Final = 0.05
_TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
_COLUMNS: Final = (
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position"
)
_KEY: Final = (
    "SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(number, place), pg_attribute a"
    " WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.number"
    " ORDER BY k.place"
)
_PARENTS: Final = (
    "SELECT c.conrelid::regclass::text, c.confrelid::regclass::text FROM pg_constraint c"
    " WHERE c.contype = 'f' AND c.connamespace = current_schema()::regnamespace"
)
_SEQUENCES: Final = (
    "SELECT column_name, pg_get_serial_sequence(quote_ident(table_name), column_name)"
    " FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = %s"
    " AND pg_get_serial_sequence(quote_ident(table_name), column_name) IS NOT NULL"
)


def dump(store: Store, directory: Path) -> tuple[Snapshot, dict[str, tuple[int, str]]]:
    """Copies all tables of the schema to `directory`/databases/<service>/; returns what they are, and the files.

    One REPEATABLE READ transaction, so one moment; writers do not wait for it. Raises BackupError.
    """
    with _connection(store) as connection:
        names = [name for (name,) in connection.execute(_TABLES) if name != _REVISIONS]
        if not names:
            raise BackupError(f"{store.service}: the schema {store.access.schema} has no tables")
        (revision,) = _one(connection, _REVISION)
        tables, files = [], {}
        for name in _parents_first(connection, names):
            table = Table(name, _columns(connection, name), f"databases/{store.service}/{name}.copy")
            file = HashedFile(directory / table.path)
            try:
                for block in _rows(connection, table):
                    file.write(block)
            finally:
                file.close()
            tables.append(table)
            files[table.path] = (file.size, file.sha256)
        needed = dict(connection.execute(KEPT_FILES).fetchall()) if store.service == "rooms" else {}
        counts = {
            name: _one(connection, f"SELECT count(*) FROM {table}")[0]  # noqa: S608 -- names of ours
            for name, table in COUNTED[store.service].items()
        }
    return Snapshot(StoreEntry(store.service, store.kind, revision, tables), needed, counts), files


def others(store: Store) -> int:
    """How many connections of the service's role there are beside ours, and stay: it is running. Raises BackupError."""
    with _connection(store) as connection:
        deadline = time.monotonic() + _LEAVING_S
        while (count := int(_one(connection, _OTHERS)[0])) and time.monotonic() < deadline:
            connection.rollback()  # or it would be shown the same again
            time.sleep(_LOOK_S)
        return count


def is_used(store: Store) -> bool:
    """Whether the schema holds a row of anything. Raises BackupError."""
    with _connection(store) as connection:
        names = [name for (name,) in connection.execute(_TABLES) if name != _REVISIONS]
        return any(_one(connection, _exists(name))[0] for name in names)


def load(store: Store, manifest: Manifest, directory: Path) -> None:
    """Replaces the schema's tables by the backup's, verified and renewed: all of it, or nothing. Raises BackupError."""
    entry = manifest.store(store.service)

    def fill(connection: psycopg.Connection[Any]) -> None:
        for table in entry.tables:
            _load_table(connection, table, directory / table.path)
            if _hash(_rows(connection, table)) != manifest.files[table.path][1]:
                raise BackupError(f"{store.service}: the table {table.name} is not what the backup has")
            for column, sequence in connection.execute(_SEQUENCES, (table.name,)).fetchall():
                query = sql.SQL("SELECT setval(%s, (SELECT max({}) + 1 FROM {}), false)").format(
                    sql.Identifier(column), sql.Identifier(table.name)
                )
                connection.execute(query, (sequence,))
        renew(store.service, connection.cursor(), placeholder="%s")

    try:
        rebuild(store.url, store.migrations, access=store.access, revision=entry.revision, fill=fill)
    except MigrationError as error:
        raise BackupError(f"{store.service}: the backup is of another version of Parley: {error}") from error
    except (psycopg.Error, ParleyError, ValueError) as error:
        raise BackupError(f"{store.service}: {_reason(error)}") from error


def _load_table(connection: psycopg.Connection[Any], table: Table, path: Path) -> None:
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), _list(table.columns))
    with path.open("rb") as source, connection.cursor().copy(query) as target:
        while block := source.read(_BLOCK_BYTES):
            target.write(block)


def _rows(connection: psycopg.Connection[Any], table: Table) -> Iterator[bytes]:
    """The rows as COPY writes them, in the order of the primary key: the same rows are the same bytes."""
    query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
        _list(table.columns), sql.Identifier(table.name), _list(_key(connection, table))
    )
    with connection.cursor().copy(query) as copy:
        for block in copy:
            yield bytes(block)


def _hash(blocks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _parents_first(connection: psycopg.Connection[Any], names: list[str]) -> list[str]:
    """So that a row's parent is there before it."""
    graph: dict[str, set[str]] = {name: set() for name in names}
    for child, parent in connection.execute(_PARENTS).fetchall():
        graph[child].add(parent)
    return list(TopologicalSorter(graph).static_order())


def _columns(connection: psycopg.Connection[Any], table: str) -> list[str]:
    return [name for (name,) in connection.execute(_COLUMNS, (table,)).fetchall()]


def _key(connection: psycopg.Connection[Any], table: Table) -> list[str]:
    return [name for (name,) in connection.execute(_KEY, (table.name,)).fetchall()] or table.columns


def _list(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _exists(table: str) -> sql.Composed:
    return sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))


def _one(connection: psycopg.Connection[Any], query: Any) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None, "asked for one row"
    return tuple(row)


@contextlib.contextmanager
def _connection(store: Store) -> Iterator[psycopg.Connection[Any]]:
    """A reader: REPEATABLE READ, READ ONLY, in the service's schema. Its end rolls back."""
    try:
        engine = make_engine(store.url, pool_size=1, is_reader=True, access=store.access)
        try:
            raw = engine.raw_connection()
            try:
                connection: Any = raw.driver_connection
                connection.execute("SET LOCAL statement_timeout = 0")  # a table may take minutes
                yield connection
            finally:
                raw.close()
        finally:
            engine.dispose()
    except (psycopg.Error, ValueError) as error:
        raise BackupError(f"{store.service}: PostgreSQL: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Without the statement and its values, which may be somebody's."""
    diagnosis = getattr(error, "diag", None)
    return str(getattr(diagnosis, "message_primary", None) or error).strip()
