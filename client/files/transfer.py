"""A transfer: one file that is sent or fetched, from the command to its end, over any number of connections and runs.

`Entry` is what has to outlive the program; the rest is what a screen shows.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from client.errors import ClientError
from client.files.progress import Rate
from client.files.windows import Allowance


class Direction(StrEnum):
    """Which way the bytes go."""

    UP = "up"
    DOWN = "down"


class Phase(StrEnum):
    """How far a transfer is."""

    WAITING = "waiting"
    """For a connection, for its turn, or until the server has time."""
    HASHING = "hashing"
    """A file that is to be sent is read once."""
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED})


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a transfer needs to go on in another run.

    Up: `path` is sent to the room as `name`, and is known by size, time and hash; `transfer_id` is what the server
    knows it by even when its answer was lost. Down: the file `file_id` comes into the folder `path` under the hidden
    name `part`, and gets the name `wanted` at its end.
    """

    direction: Direction
    name: str
    path: str
    room_id: str = ""
    file_id: str = ""
    size: int = 0
    sha256: str = ""
    transfer_id: str = ""
    mime: str = ""
    mtime_ns: int = 0
    part: str = ""
    wanted: str = ""
    is_cancelled: bool = False
    """Given up by the user while the server could not be told."""


class Transfer:
    """One transfer; `number` is what the user calls it. To be looked at by everybody, changed by `Transfers` only."""

    def __init__(self, number: int, entry: Entry, *, is_new: bool = True) -> None:
        self.number = number
        self.entry = entry
        self.phase = Phase.WAITING
        self.reason = ""
        """Why it waits, where that is not just for its turn; or why it failed."""
        self.done_bytes = 0
        self.sent_bytes = 0
        """Bytes that went over connections, those that had to go twice included."""
        self.allowance = Allowance(is_new=is_new)
        self.rate = Rate()
        self.error: ClientError | None = None
        self.saved_as = ""

    @property
    def is_upload(self) -> bool:
        """Whether it goes to the server."""
        return self.entry.direction is Direction.UP

    @property
    def name(self) -> str:
        """The file's name, as its sender gave it."""
        return self.entry.name

    @property
    def size(self) -> int:
        """In bytes."""
        return self.entry.size

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens."""
        return self.phase in ENDED

    def moved(self, now: float, done_bytes: int) -> None:
        """So many bytes are done; `now` is a monotonic clock's."""
        self.done_bytes = done_bytes
        self.rate.note(now, done_bytes)

    def enter(self, phase: Phase, reason: str = "") -> None:
        """It is in another phase now."""
        if phase is not self.phase:
            self.rate.restart()
        self.phase, self.reason = phase, reason
