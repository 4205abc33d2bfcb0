"""The log that a run writes: one clock, one file, events in the order in which they were seen."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tests.chaos.events import Event, encode

if TYPE_CHECKING:
    from pathlib import Path

FLUSH_BYTES = 262_144

E = TypeVar("E", bound=Event)


class EventLog:
    """Appends events to a file, and keeps what the run itself asks about: the newest acknowledgement in each room."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latencies: deque[tuple[float, float]] = deque(maxlen=200_000)  # (acknowledged at, after)
        self._file = path.open("wb", buffering=FLUSH_BYTES)
        self._epoch = time.monotonic()

    def now(self) -> float:
        """Seconds since the log was begun."""
        return round(time.monotonic() - self._epoch, 6)

    def write(self, kind: type[E], /, **fields: Any) -> E:
        """Writes an event down as of now, and returns it."""
        event = kind(t=self.now(), **fields)
        self._file.write(encode(event) + b"\n")
        return event

    def close(self) -> None:
        """Writes out what is left."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
