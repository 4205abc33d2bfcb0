"""Windows: how much of a file may be under way between a client and the edge. Pure: no I/O, no clock.

What came in and is not stored yet, and what went out and is not acknowledged yet, is at most a window each; so the
memory that a transfer takes does not depend on how large the file is, how fast the sender or how slow the receiver.
"""

from __future__ import annotations

from services.common.wire import limits


class Incoming:
    """A file that a client sends: chunks in, pieces of several chunks out."""

    __slots__ = ("_chunks", "_size", "_window", "received", "stored", "taken")

    def __init__(self, *, size: int, offset: int, window: int) -> None:
        self.received = self.taken = self.stored = offset
        self._size = size
        self._window = window
        self._chunks: list[bytes] = []

    @property
    def waiting_bytes(self) -> int:
        """Bytes that came in and were not taken."""
        return self.received - self.taken

    @property
    def is_received(self) -> bool:
        """Whether the last byte has come in."""
        return self.received == self._size

    @property
    def is_taken(self) -> bool:
        """Whether the last byte has been taken."""
        return self.taken == self._size

    def receive(self, offset: int, data: bytes) -> str | None:
        """A chunk has come in; returns what is wrong with it, and then it is not taken."""
        if not data:
            return "a chunk holds at least one byte"
        if offset != self.received:
            return f"the next chunk begins at {self.received}, not at {offset}"
        if offset + len(data) > self._size:
            return f"the file ends at {self._size}"
        if offset + len(data) - self.stored > self._window:
            return f"at most {self._window} bytes may be sent ahead of what is acknowledged"
        self.received += len(data)
        self._chunks.append(data)
        return None

    def take(self, bytes_max: int) -> tuple[int, bytes]:
        """Removes what goes on next, with its offset: whole chunks, `bytes_max` in all or a single one."""
        offset, chunks, size = self.taken, self._chunks, 0
        count = 0
        for chunk in chunks:
            if count and size + len(chunk) > bytes_max:
                break
            size += len(chunk)
            count += 1
        data = chunks[0] if count == 1 else b"".join(chunks[:count])
        del chunks[:count]
        self.taken += size
        return offset, data

    def store(self, offset: int) -> None:
        """Everything before `offset` is stored."""
        self.stored = max(self.stored, min(offset, self.received))


class Outgoing:
    """A file that a client fetches. The client may allow less than the `window`, but not less than a chunk."""

    __slots__ = ("_window", "_window_max", "acknowledged", "sent")

    def __init__(self, *, offset: int, window: int, allowed: int | None = None) -> None:
        self.sent = self.acknowledged = offset
        self._window = self._window_max = window
        self.allow(allowed)

    def allow(self, window: int | None) -> None:
        """The client says how much may be under way from now on, or says nothing of it."""
        if window is not None:
            self._window = min(self._window_max, max(window, limits.MAX_CHUNK_BYTES))

    @property
    def block_bytes(self) -> int:
        """How much goes out at once, at most: with half a window the other half is under way meanwhile."""
        return max(1, self._window // 2)

    @property
    def room(self) -> int:
        """How many bytes may be sent now."""
        return self._window - (self.sent - self.acknowledged)

    def send(self, count: int) -> int:
        """So many bytes go out; returns their offset."""
        offset = self.sent
        self.sent += count
        return offset

    def acknowledge(self, offset: int) -> bool:
        """The client has everything before `offset`; returns whether that is news and can be."""
        if not self.acknowledged < offset <= self.sent:
            return False
        self.acknowledged = offset
        return True
