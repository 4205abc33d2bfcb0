"""The sender: writes one connection's outbox to its transport, as fast as the client reads and no faster.

What the transport does not take stays in the outbox's lanes, where a more urgent frame can still pass it. Whoever lets
too much wait there, or takes nothing for too long, is a slow consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.edge.outbox import Frame, Outbox

WRITE_BYTES: Final = 65_536
"""Written at a time: enough to make the system call cheap, and the most that an urgent frame may have before it."""

BUFFER_HIGH_BYTES: Final = 65_536
BUFFER_LOW_BYTES: Final = 16_384
"""The transport says stop at the one and go on at the other."""


def _ignore() -> None:
    """The connection has ended: nobody is slow any more."""


_NOTHING: Final = (0, 0)


class Sender:
    """The way out of one connection. `on_slow()` is called when more than `waiting_max` bytes wait."""

    __slots__ = (
        "_is_paused",
        "_mark",
        "_on_slow",
        "_progress_at",
        "_transport",
        "_unsent",
        "_waiting_max",
        "outbox",
        "sent_bytes",
    )

    def __init__(self, mark: Callable[[Sender], object], *, waiting_max: int, on_slow: Callable[[], object]) -> None:
        self.outbox = Outbox(self, mark)
        self._mark = mark
        self.sent_bytes = 0
        self._transport: asyncio.WriteTransport | None = None
        self._waiting_max = waiting_max
        self._on_slow = on_slow
        self._is_paused = False
        self._progress_at = 0.0
        self._unsent = 0

    def open(self, transport: asyncio.WriteTransport) -> None:
        """The connection is there."""
        transport.set_write_buffer_limits(BUFFER_HIGH_BYTES, BUFFER_LOW_BYTES)
        self._transport = transport

    def post(self, frame: Frame) -> None:
        """Queue a frame; it is written when the loop's turn ends. Ignored once the connection has ended."""
        if self._transport is not None:
            self.outbox.post(frame)

    def flush(self) -> tuple[int, int]:
        """Write what the transport takes; return how many frames and bytes that were."""
        transport, outbox = self._transport, self.outbox
        if transport is None or not outbox.waiting_bytes:
            return _NOTHING
        if self._is_paused:
            outbox.hold()
            if outbox.waiting_bytes > self._waiting_max:
                self._on_slow()
            return _NOTHING
        data, frames = outbox.take(WRITE_BYTES)
        size = len(data)
        transport.write(data)
        while outbox.waiting_bytes and not self._is_paused:
            data, count = outbox.take(WRITE_BYTES)
            transport.write(data)
            frames += count
            size += len(data)
        self.sent_bytes += size
        if outbox.waiting_bytes > self._waiting_max:
            self._on_slow()
        return frames, size

    def pause(self, now: float) -> None:
        """The transport has enough."""
        self._is_paused = True
        self._progress_at = now
        self._unsent = self._unsent_bytes()

    def resume(self) -> None:
        """The transport takes more."""
        self._is_paused = False
        if self.outbox.waiting_bytes:
            self._mark(self)

    def stuck_since(self, now: float) -> float | None:
        """Since when the client has taken nothing that was there for it; None where it does."""
        if not self._is_paused:
            return None
        unsent = self._unsent_bytes()
        if unsent != self._unsent:
            self._unsent = unsent
            self._progress_at = now
        return self._progress_at

    def finish(self, last: bytes) -> None:
        """Write what waits and then `last`, and close.

        Where the transport takes nothing, what waits is dropped: only `last` is left to say.
        """
        transport, outbox = self._transport, self.outbox
        if transport is None:
            return
        while outbox.waiting_bytes and not self._is_paused:
            transport.write(outbox.take(WRITE_BYTES)[0])
        self.lost()
        transport.write(last)
        transport.close()

    def lost(self) -> None:
        """The connection has ended."""
        self._transport = None
        self._on_slow = _ignore  # it held the connection, which holds this: without circles all are freed at once
        self.outbox.close()

    def _unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
