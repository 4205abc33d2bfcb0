# ruff: noqa: S608 -- the tests' own statements
"""A small installation without processes: real databases with a room, messages, an account and a file in them."""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg

from deploy.backup import manifest as manifests
from deploy.backup import places
from deploy.backup.create import Made, create
from deploy.backup.restore import Request, restore
from deploy.local.layout import Layout
from deploy.local.options import Server
from services.common.db import migrate

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
CONTENT = b"what is in the file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
EPOCH = "abc234"
ROWS = {
    "auth": [
        "INSERT INTO accounts VALUES ('user1', 'alice', 'alice', 'hash', 1, false)",
        "INSERT INTO edge_boots VALUES ('edge-1', 'boot', 1, NULL)",
        "INSERT INTO sessions VALUES ('s1', 'user1', '\\x00', 1, 'edge-1', 'boot', 'dev', 1, NULL)",
    ],
    "rooms": [
        ("INSERT INTO rooms (number, room_id, name, name_key, topic, is_private, epoch, last_seq, last_sent_at_ms,"
        " members_version, member_count, join_count, created_at_ms)"
        f" VALUES (1, 'room1', 'Room', 'room', 'tab\t, \\ and \"', false, '{EPOCH}', 2, 5, 9, 1, 1, 1)"),
        "INSERT INTO members VALUES (1, 'user1', 'alice', 'owner', 1, 1)",
        "INSERT INTO messages VALUES (1, 1, 'user1', 'alice', 'سلام, hello\nworld \\N', 4, 'k1')",
        "INSERT INTO messages VALUES (1, 2, 'user1', 'alice', '', 5, 'k2')",
        *(
            "INSERT INTO files (number, file_id, room_number, user_id, username, name, mime, size, sha256, state, seq,"
            " changed_at_ms, transfer_id, piece_bytes) VALUES"
            f" ({number}, '{state}', 1, 'user1', 'alice', 'a.txt', 'text/plain', {len(CONTENT)}, '{sha256}', '{state}',"
            f" {seq}, 1, '', 1)"
            for number, state, sha256, seq in (
                (1, "posted", SHA256, 2), (2, "open", "", "NULL"), (3, "expired", "0" * 64, 1),
            )
        ),
        f"INSERT INTO contents VALUES ('{SHA256}', {len(CONTENT)}, true)",
        f"INSERT INTO contents VALUES ('{'1' * 64}', 1, false)",
    ],
}  # fmt: skip


class Installation:
    """One home; in PostgreSQL where it is given the URL of an empty database."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.layout = Layout(home)
        self.layout.create()
        self.places = places.find(self.layout, Server(url=url) if url else None, {})

    def fill(self) -> Installation:
        for store in self.places.stores:
            migrate(store.url, store.migrations, access=store.access)
            for row in ROWS[store.service]:
                self.execute(store.service, row)
        self.places.pepper.write_bytes(b"p" * 32)
        path = self.places.contents / SHA256[:2] / SHA256
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        (self.places.contents / SHA256[:2] / ("2" * 64)).write_bytes(b"nobody's")
        return self

    def execute(self, service: str, query: str) -> list[tuple[Any, ...]]:
        [store] = [store for store in self.places.stores if store.service == service]
        if store.is_postgres:
            with psycopg.connect(store.url, options=f"-c search_path={service}") as postgres:
                cursor = postgres.execute(query.encode())
                return cursor.fetchall() if cursor.description else []
        connection = sqlite3.connect(store.path)
        try:
            rows = connection.execute(query).fetchall()
            connection.commit()
        finally:
            connection.close()
        return rows

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables, but for what a restore changes."""
        found = {
            table: self.execute(service, f"SELECT * FROM {table} ORDER BY 1, 2")
            for service, tables in {"auth": ["accounts"], "rooms": ["members", "messages"]}.items()
            for table in tables
        }
        found["rooms"] = self.execute("rooms", "SELECT room_id, name, topic, last_seq FROM rooms")
        found["files"] = self.execute("rooms", "SELECT * FROM files WHERE state <> 'open' ORDER BY number")
        return found

    def back_up(self, target: Path, *, certificates: bool = False) -> Made:
        return create(self.places, target, certificates=certificates, now=NOW, version="test")

    def restore(self, backup: Path, *, certificates: bool = False, overwrite: bool = False) -> list[str]:
        manifest, _ = manifests.read(backup)
        manifests.verify(backup, manifest)
        request = Request(backup, manifest, certificates, overwrite)
        return restore(request, self.places, data=self.layout.data, mark=self.layout.restore_mark, now=NOW)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
