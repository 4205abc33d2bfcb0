"""Windows: how much of a file may be under way between this client and the server. Pure: no I/O, no clock.

So the memory that a transfer takes depends neither on how large the file is nor on which end is the slower one.
"""

from __future__ import annotations


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
