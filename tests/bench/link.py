"""One client connection of the benchmark: a handshake that waits for answers, then counting at the lowest cost.

Every text begins with MARKER and the time at which it was sent, so that one way of counting serves all protocols:
the occurrences of MARKER in what was decrypted are the messages that were delivered.

A link can `keep` what comes as it is, encrypted, and decrypt and count it later, so that the driver has little to do
for it while a server is measured, and every delivery is still one that was read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

MARKER = b"~m~"
TEXT_BYTES = 100
STAMP_DIGITS = 16
RECORD_BYTES = 16_384
"""What a TLS record holds at most."""
READ_BYTES = 1 << 18
HANDSHAKE_S = 60.0


def make_text(now_ns: int) -> bytes:
    """A text of TEXT_BYTES bytes that carries the time at which it was sent."""
    return (MARKER + b"%016x" % now_ns).ljust(TEXT_BYTES, b"x")


_BUFFER = bytearray(READ_BYTES)
_VIEW = memoryview(_BUFFER)
"""One for all links: what a read has brought is taken out of it at once."""


class Link(asyncio.BufferedProtocol):
    """A connection that first talks (`until`) and then counts (`count`); plain until it is secured."""

    __slots__ = (
        "_confirm",
        "_confirmation",
        "_confirmation_tail",
        "_counted",
        "_encrypted",
        "_handshake",
        "_kept",
        "_outgoing",
        "_raw",
        "_seen",
        "_stamps",
        "_tail",
        "_tls",
        "_waiter",
        "closed",
        "is_writable",
        "transport",
    )

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self._seen = b""
        self._waiter: tuple[tuple[bytes, ...], asyncio.Future[bytes]] | None = None
        self._counted: Callable[[int], None] | None = None
        self._stamps: list[int] | None = None
        self._confirm: Callable[[int], None] | None = None
        self._confirmation = b""
        self._confirmation_tail = b""
        self._raw: Callable[[bytes], None] | None = None
        self.is_writable = True
        self._tail = b""
        self._tls: ssl.SSLObject | None = None
        self._encrypted = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._handshake: asyncio.Future[None] | None = None
        self._kept: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        lost = ConnectionError(f"closed after {self._seen[-300:]!r}")
        for future in (self._handshake, self._waiter and self._waiter[1]):
            if future and not future.done():
                future.set_exception(lost)

    async def secure(self, context: ssl.SSLContext) -> None:
        """TLS from here on; returns when the handshake is done."""
        self._tls = context.wrap_bio(self._encrypted, self._outgoing, server_hostname="localhost")
        self._handshake = asyncio.get_running_loop().create_future()
        self._shake_hands()
        await asyncio.wait_for(self._handshake, HANDSHAKE_S)

    def _shake_hands(self) -> None:
        assert self._tls is not None
        assert self._handshake is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not self._handshake.done():
                self._handshake.set_exception(error)
        else:
            if not self._handshake.done():
                self._handshake.set_result(None)
            self._handshake = None
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            assert self.transport is not None
            self.transport.write(self._outgoing.read())

    def get_buffer(self, sizehint: int) -> bytearray:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        data = _VIEW[:nbytes]
        if self._kept is not None:
            self._kept.append(bytes(data))
        elif self._tls is None:
            self._take(bytes(data))
        else:
            self._encrypted.write(data)
            if self._handshake is not None:
                self._shake_hands()
            if self._handshake is None:
                self._decrypt()

    def _decrypt(self) -> None:
        assert self._tls is not None
        records = []
        try:
            while data := self._tls.read(RECORD_BYTES):
                records.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.abort()
        if records:
            self._take(records[0] if len(records) == 1 else b"".join(records))

    def keep(self) -> None:
        """From now on keeps what comes as it came."""
        self._kept = []

    def kept(self) -> int:
        """How many reads are kept: a position for `count_kept`."""
        return len(self._kept or ())

    def count_kept(self, *positions: int) -> list[int]:
        """Decrypts and counts what was kept, and counts at once again; how many had been counted at each position."""
        kept, self._kept = self._kept or [], None
        found, totals, total = iter(kept), [], 0
        counted, self._counted = self._counted, None
        assert counted is not None

        def count(more: int) -> None:
            nonlocal total
            total += more
            counted(more)

        self._counted = count
        begin = 0
        for position in (*positions, len(kept)):
            for _ in range(position - begin):
                self._encrypted.write(next(found))
                self._decrypt()
            begin = position
            totals.append(total)
        self._counted = counted
        return totals[:-1]

    def write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            self._flush()
        else:
            assert self.transport is not None
            self.transport.write(data)

    async def until(self, *wanted: bytes, timeout: float = 60.0) -> bytes:
        """Waits until one of the byte strings has arrived; returns and forgets all that came up to then."""
        if not any(one in self._seen for one in wanted):
            if self.closed:
                raise ConnectionError("closed")
            future = asyncio.get_running_loop().create_future()
            self._waiter = (wanted, future)
            await asyncio.wait_for(future, timeout)
        seen, self._seen, self._waiter = self._seen, b"", None
        return seen

    def count(
        self,
        counted: Callable[[int], None],
        stamps: list[int] | None = None,
        confirm: Callable[[int], None] | None = None,
        confirmation: bytes = b"",
    ) -> None:
        """From now on calls counted(n) for n delivered messages; with stamps, appends each one's latency in ns.

        With confirm, calls it with the number of times that `confirmation` occurred: what tells a sender that a
        message has been taken.
        """
        self._counted = counted
        self._stamps = stamps
        self._confirm = confirm
        self._confirmation = confirmation
        self._seen = b""

    def _take(self, data: bytes) -> None:
        """What was read, decrypted."""
        if self._raw is not None:
            self._raw(data)
            return
        if self._counted is None:
            self._seen += data
            if self._waiter and not self._waiter[1].done() and any(one in self._seen for one in self._waiter[0]):
                self._waiter[1].set_result(b"")
            return
        confirmed = self._count_confirmations(data) if self._confirm is not None else 0
        if self._stamps is None:
            data = self._tail + data
            delivered = data.count(MARKER)
            self._tail = data[-(len(MARKER) - 1) :]
        else:
            delivered = self._count_with_stamps(data)
        if delivered:
            self._counted(delivered)
        if confirmed and self._confirm is not None:
            self._confirm(confirmed)

    def _count_confirmations(self, data: bytes) -> int:
        """Occurrences of the confirmation that end in this read."""
        data = self._confirmation_tail + data
        keep = len(self._confirmation) - 1
        self._confirmation_tail = data[len(data) - keep :] if keep else b""
        return data.count(self._confirmation)

    def _count_with_stamps(self, data: bytes) -> int:
        assert self._stamps is not None
        now = time.monotonic_ns()
        data = self._tail + data
        delivered = 0
        at = data.find(MARKER)
        end = 0
        while at >= 0 and at + len(MARKER) + STAMP_DIGITS <= len(data):
            begin = at + len(MARKER)
            end = begin + STAMP_DIGITS
            self._stamps.append(now - int(data[begin:end], 16))
            delivered += 1
            at = data.find(MARKER, end)
        # A marker that was cut off, wholly or in its time stamp, waits for the next read.
        self._tail = data[at:] if at >= 0 else data[max(end, len(data) - len(MARKER) + 1) :]
        return delivered

    def count_raw(self, on_data: Callable[[bytes], None]) -> None:
        """From now on gives all that comes to on_data."""
        self._raw = on_data

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
