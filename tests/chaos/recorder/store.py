"""The audit from the store itself: what a room's log is on the disk, whatever the services say."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.mailbox import digest, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.chaos.recorder.log import EventLog

Row = tuple[int, str, str, str]  # seq, key, text, username
PART = 1_000
ROOM = "SELECT number, epoch, last_seq FROM rooms WHERE room_id = ?"
MESSAGES = "SELECT seq, key, text, username FROM messages WHERE room_number = ? ORDER BY seq"


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
        entries = [(number, _label(key, text), digest(text), name) for number, key, text, name in part]
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


def _label(key: str, text: str) -> str:
    """The key in the store, or our own label where the text was sent without one."""
    label = key_of(text)
    return label if label.startswith("~") else key
