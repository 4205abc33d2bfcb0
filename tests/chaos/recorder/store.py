"""The audit from the store itself: what a room's log is on the disk, whatever the services say."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.mailbox import identify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.chaos.recorder.log import EventLog

Row = tuple[int, str, str, str, str | None, str | None]  # seq, key, text, username, and the file's id and hash
PART = 1_000
ROOM = "SELECT number, epoch, last_seq FROM rooms WHERE room_id = ?"
MESSAGES = (
    "SELECT m.seq, m.key, m.text, m.username, f.file_id, f.sha256 FROM messages m"
    " LEFT JOIN files f ON f.room_number = m.room_number AND f.seq = m.seq"
    " WHERE m.room_number = ? ORDER BY m.seq"
)


class StoreError(Exception):
    """The store contradicts itself."""


def audit_sqlite(log: EventLog, database: Path, rooms: Iterable[str]) -> None:
    """Reads the rooms' logs from the SQLite file. Raises StoreError, sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        [state] = connection.execute("PRAGMA integrity_check").fetchone()
        if state != "ok":
            raise StoreError(f"{database}: {state}")
        for room in rooms:
            number, epoch, last_seq = connection.execute(ROOM, (room,)).fetchone()
            _write(log, room, epoch, last_seq, connection.execute(MESSAGES, (number,)))


def audit_postgres(log: EventLog, url: str, rooms: Iterable[str]) -> None:
    """Reads the rooms' logs from PostgreSQL. Raises StoreError, psycopg.Error."""
    import psycopg

    with psycopg.connect(url, options="-c search_path=rooms") as connection:
        for room in rooms:
            found = connection.execute(ROOM.replace("?", "%s"), (room,)).fetchone()
            assert found is not None, room
            number, epoch, last_seq = found
            _write(log, room, epoch, last_seq, connection.execute(MESSAGES.replace("?", "%s"), (number,)))


def _write(log: EventLog, room: str, epoch: str, last_seq: int, rows: Iterable[Row]) -> None:
    seq = 0
    for part in _parts(rows):
        seq = part[-1][0]
        entries = [_entry(*row) for row in part]
        log.write(e.Audit, source="store", room=room, epoch=epoch, entries=entries)
    if seq != last_seq:
        raise StoreError(f"the log of {room} ends with {seq}, and its room says {last_seq}")


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


def _entry(
    seq: int, key: str, text: str, username: str, file_id: str | None, sha256: str | None
) -> tuple[int, str, str, str]:
    """The key is that in the store (a client's begins with c there), or our own label where it was sent without one."""
    label, h = identify(text, None if file_id is None else {"file_id": file_id, "sha256": sha256})
    return seq, label if label.startswith("~") else key.removeprefix("c"), h, username
