"""What a restored copy must not go on saying. Runs in it before anybody else sees it.

Every room gets a new epoch: messages that came after the backup are lost, and their numbers will be given again, so
(room, epoch, seq) would otherwise name two messages, and a client that was ahead would wait for what never comes.
Seeing another epoch it loads the room anew. Sessions end, because some were logged out since; uploads that had not come
to their end are forgotten, because their parts are not in a backup.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, Protocol

from services.rooms.rooms import new_epoch


class Cursor(Protocol):
    """What sqlite3 and psycopg have in common."""

    def execute(self, query: Any, params: Any = ..., /) -> Any:
        """Runs a statement."""

    def executemany(self, query: Any, params: Any, /) -> Any:
        """Runs a statement for each of several sets of values."""

    def fetchall(self) -> list[Any]:
        """All rows."""


KEPT_FILES: Final = "SELECT sha256, size FROM files WHERE state IN ('whole', 'posted')"
"""The contents that a backup needs."""

_FORGET: Final = {
    "auth": ("DELETE FROM sessions", "DELETE FROM edge_boots"),
    "rooms": (
        "DELETE FROM files WHERE state = 'open'",
        "DELETE FROM contents WHERE sha256 NOT IN (SELECT sha256 FROM files WHERE state IN ('whole', 'posted'))",
        "UPDATE contents SET is_removing = false",
    ),
}


def renew(service: str, cursor: Cursor, *, placeholder: str) -> int:
    """Begins a new life of a service's data; returns the number of rooms that have a new epoch."""
    for statement in _FORGET[service]:
        cursor.execute(statement)
    if service != "rooms":
        return 0
    cursor.execute("SELECT number, epoch FROM rooms")
    epochs = [(another_than(epoch), number) for number, epoch in cursor.fetchall()]
    if epochs:
        cursor.executemany(f"UPDATE rooms SET epoch = {placeholder} WHERE number = {placeholder}", epochs)  # noqa: S608
    return len(epochs)


def another_than(epoch: str) -> str:
    """A new epoch, certainly not the old one."""
    while (made := new_epoch(secrets.choice)) == epoch:
        pass
    return made
