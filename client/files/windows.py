"""Windows: how much of a file may be under way between this client and the server. Pure: no I/O, no clock.

So the memory that a transfer takes depends neither on how large the file is nor on which end is the slower one.
"""

from __future__ import annotations

from typing import Final

from services.common.wire import limits

FIRST_BYTES: Final = 1024 * 1024
"""May be lost by the first cut, whatever has been achieved by then: a link that holds is not slowed down."""

EARNED_PER: Final = 256
"""One byte of so many that have arrived may be lost to cuts: 0.4 percent."""


class Allowance:
    """How much of one transfer may be under way, so that cuts of the link cannot have much of it sent twice.

    What is under way is all that a cut can cost. It is what has been earned and not been lost yet, and a chunk at
    least, or nothing would move. So over its whole life a transfer loses no more than FIRST_BYTES, one byte in
    EARNED_PER, and a chunk for each cut: a file of 1 GB that is cut 50 times 0.82 percent, wherever the cuts fall.
    """

    def __init__(self, *, is_new: bool = True) -> None:
        self._left = FIRST_BYTES if is_new else 0  # what an earlier run has lost nobody knows
        self._reached: int | None = None
        self._ahead = 0

    def reached(self, offset: int) -> None:
        """Everything before `offset` has arrived for good."""
        if self._reached is None:
            self._reached = offset
        elif offset > self._reached:
            self._left += offset // EARNED_PER - self._reached // EARNED_PER
            self._reached = offset

    def begin(self, offset: int) -> None:
        """It goes on at `offset`: what went ahead of that is lost."""
        self._left -= max(0, self._ahead - offset)
        self._ahead = offset
        self.reached(offset)

    def went(self, offset: int) -> None:
        """Everything before `offset` has gone out, or may have."""
        self._ahead = max(self._ahead, offset)

    def window(self, most: int) -> int:
        """How much may be under way now, and not more than `most`."""
        return min(most, max(self._left, limits.MAX_CHUNK_BYTES))


class Outgoing:
    """A file on its way to the server."""

    __slots__ = ("sent", "size", "stored", "window")

    def __init__(self, *, size: int, offset: int, window: int) -> None:
        self.size = size
        self.sent = self.stored = offset
        self.window = window

    def room(self, bytes_max: int) -> int:
        """How many bytes may go out now: as many as that or the rest of the file, or none while that is too much."""
        wanted = min(bytes_max, self.size - self.sent)
        return wanted if self.sent - self.stored + wanted <= self.window else 0

    @property
    def block_bytes(self) -> int:
        """How much goes out at a time: with half a window the other half is under way meanwhile."""
        return max(1, self.window // 2)

    @property
    def is_sent(self) -> bool:
        """Whether all of it has gone out."""
        return self.sent == self.size

    def send(self, count: int) -> int:
        """So many bytes go out; returns where they begin."""
        offset = self.sent
        self.sent += count
        return offset

    def store(self, offset: int) -> str | None:
        """The server has stored everything before `offset`; returns what is wrong with that."""
        if offset > self.sent:
            return f"{offset} bytes are said to be stored, and {self.sent} were sent"
        self.stored = max(self.stored, offset)
        return None


class Incoming:
    """A file on its way here."""

    __slots__ = ("received", "size", "window", "written")

    def __init__(self, *, size: int, offset: int, window: int) -> None:
        self.size = size
        self.received = self.written = offset
        self.window = window

    def receive(self, offset: int, count: int) -> str | None:
        """A chunk has come in; returns what is wrong with it, and then it does not count."""
        if count == 0:
            return "a chunk without a byte"
        if offset != self.received:
            return f"a chunk at {offset}, where the one at {self.received} is next"
        if offset + count > self.size:
            return f"a chunk behind the end at {self.size}"
        if offset + count - self.written > self.window:
            return f"more than {self.window} bytes that were not acknowledged"
        self.received += count
        return None

    def write(self, count: int) -> int:
        """So many bytes are written; returns up to where all is."""
        self.written += count
        return self.written

    @property
    def is_written(self) -> bool:
        """Whether all of it is."""
        return self.written == self.size
