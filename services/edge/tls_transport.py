"""A TLS connection for the event loop, straight on its socket: what is encrypted goes into the system call at once.

The loop's own TLS encrypts into a buffer in memory, takes the bytes out of it and gives them to another transport. Most
of what the edge does is writing, so these copies are a good part of its work. Here OpenSSL writes to the socket itself,
and what that does not take waits, in portions of one TLS record, until it does.

Python's SSL socket is used as it is meant to be used without blocking: a call that cannot go on raises, and is made
again with the same bytes when the socket is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

from services.edge.read_turns import ReadTurns

RECORD_BYTES: Final = 16_384
"""What one TLS record holds (RFC 8446, 5.1); OpenSSL makes a system call for each."""

_RECORDS_PER_TURN: Final = 4
"""Read from one connection before others have their turn."""

_FILE_BYTES: Final = 262_144
"""What the kernel holds unread at first for a connection on which a file comes."""

_SO_BUF_LOCK: Final = 72
"""Whether the size of a buffer is fixed (socket(7)); the socket module has no name for it."""

_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


async def shake_hands(
    accepted: socket.socket, context: ssl.SSLContext, *, patience_s: float, turns: asyncio.Semaphore
) -> ssl.SSLSocket:
    """The server's side of a handshake on a socket that does not block; it is closed where that fails.

    The client may keep us waiting for `patience_s`. All handshakes share `turns`: a turn of the loop has as many steps
    of handshakes as these allow, each up to 1 ms of CPU, because a storm of them would stop everybody else. What a
    client waits for its turn is not held against it. Raises OSError, which ssl.SSLError and TimeoutError are.
    """
    loop = asyncio.get_running_loop()
    try:
        accepted.getpeername()  # raises where the client has gone; asked inside wrap_socket, the socket is left open
        secured = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    except BaseException:
        accepted.close()
        raise
    try:
        while (blocked := await _take_step(secured, turns)) is not None:
            began = loop.time()
            async with asyncio.timeout(patience_s):
                await _until_ready(secured, for_writing=isinstance(blocked, ssl.SSLWantWriteError))
            patience_s -= loop.time() - began
    except BaseException:
        secured.close()
        raise
    return secured


async def _take_step(secured: ssl.SSLSocket, turns: asyncio.Semaphore) -> ssl.SSLError | None:
    """Go on with a handshake; return why it cannot go further yet, or None when it is done."""
    async with turns:
        try:
            secured.do_handshake()
        except _WAITING as blocked:
            return blocked
        else:
            return None
        finally:
            await asyncio.sleep(0)  # the next one has the loop's next turn


async def _until_ready(waiting: socket.socket, *, for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if for_writing else (loop.add_reader, loop.remove_reader)
    # Until it is removed, each turn of the loop may report the same bytes.
    add(waiting.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(waiting.fileno())


class TlsTransport(asyncio.Transport):
    """A connection after its handshake, for one protocol, from `start` to the protocol's `connection_lost`.

    Closing takes `shutdown_s` at most; `on_lost(transport)` is called when the socket has been closed.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_deadline",
        "_fd",
        "_high",
        "_is_lost",
        "_is_protocol_paused",
        "_is_read_blocked",
        "_is_read_waiting",
        "_is_reading",
        "_is_writing",
        "_loop",
        "_low",
        "_on_lost",
        "_protocol",
        "_shutdown_s",
        "_size",
        "_socket",
        "_turns",
    )

    def __init__(
        self,
        secured: ssl.SSLSocket,
        protocol: asyncio.BufferedProtocol,
        *,
        turns: ReadTurns,
        shutdown_s: float,
        on_lost: Callable[[TlsTransport], object],
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._socket = secured
        self._fd = secured.fileno()
        self._protocol: asyncio.BufferedProtocol | None = protocol
        self._shutdown_s = shutdown_s
        self._on_lost = on_lost
        self._backlog: list[bytes] = []  # at most RECORD_BYTES each; the first may be under way and stays as it is
        self._size = 0
        self._high, self._low = 65_536, 16_384
        self._is_protocol_paused = False
        self._is_reading = False  # whether the loop watches for bytes
        self._is_read_blocked = False  # whether OpenSSL has to write before it can read
        self._turns = turns
        self._is_read_waiting = False  # for a turn that has room
        self._is_writing = False  # whether the loop watches for room
        self._closing: Callable[[], None] | None = None  # the step of closing that is under way
        self._deadline: asyncio.TimerHandle | None = None
        self._is_lost = False

    def start(self) -> None:
        """Tell the protocol that the connection is there, and read."""
        assert self._protocol is not None
        self._protocol.connection_made(self)
        self.resume_reading()

    # What the protocol asks for.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, now as far as the socket takes them."""
        if self._closing is not None or self._is_lost or not data:
            return
        if self._backlog or len(data) > RECORD_BYTES:
            is_first = not self._backlog
            self._enqueue(data)
            if is_first:
                self._send_backlog()
            return
        try:
            sent = self._socket.send(data)
        except _WAITING:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._enqueue(data[sent:])
            self._watch_for_room()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The protocol is paused above `high` bytes and resumed at `low`."""
        if high is not None:
            self._high = high
            self._low = high // 4 if low is None else low

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_reading and self._closing is None and not self._is_lost:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._on_readable)
            if self._socket.pending():
                self._loop.call_soon(self._on_readable)

    def expect_much(self) -> None:
        """Let the kernel hold as much unread as the connection's pace asks for, from now on: a file is coming."""
        if not self._is_lost:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _FILE_BYTES)
            with contextlib.suppress(OSError):  # before Linux 5.14 it stays as large as that
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called, or the connection is lost."""
        return self._closing is not None or self._is_lost

    def close(self) -> None:
        """Send what waits, say goodbye in TLS's way and wait for the other side to do so; then the connection is lost.

        That takes at most as long as a shutdown may.
        """
        if self._closing is not None or self._is_lost:
            return
        self.pause_reading()
        self._closing = self._shut_down
        self._deadline = self._loop.call_later(self._shutdown_s, self.abort)
        if not self._backlog:
            self._shut_down()

    def abort(self) -> None:
        """Close at once; what waits is not sent."""
        self._lose(None)

    # What the socket says.

    def _on_readable(self) -> None:
        if self._is_read_waiting:
            return
        if self._turns.is_over:
            self._is_read_waiting = True
            self._turns.wait(self._read)
        else:
            self._read()

    def _read(self) -> None:
        self._is_read_waiting = False
        protocol = self._protocol
        for _ in range(_RECORDS_PER_TURN):
            if not self._is_reading or protocol is None:
                return
            try:
                size = self._socket.recv_into(protocol.get_buffer(-1))
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:  # it owes the other side an answer of its own, such as a new key
                self._is_read_blocked = True
                self._loop.remove_reader(self._fd)
                self._watch_for_room()
                return
            except OSError as error:
                self._lose(error)
                return
            if not size:
                self.close()
                return
            self._turns.spend(size)
            try:
                protocol.buffer_updated(size)
            except Exception as error:  # a defect: it is logged by the loop, and what follows could not be understood
                self._lose(error)
                raise
            if size < RECORD_BYTES:  # nearly always all there is; if not, the loop says so
                return

    def _on_room(self) -> None:
        if self._is_read_blocked:
            self._is_read_blocked = False
            if self._is_reading:
                self._loop.add_reader(self._fd, self._on_readable)
        if self._closing is not None and not self._backlog:
            self._closing()
        else:
            self._send_backlog()

    def _enqueue(self, data: bytes | bytearray | memoryview) -> None:
        backlog = self._backlog
        if len(backlog) > 1 and len(backlog[-1]) + len(data) <= RECORD_BYTES:
            backlog[-1] += data
        else:
            backlog.extend(bytes(data[start : start + RECORD_BYTES]) for start in range(0, len(data), RECORD_BYTES))
        self._size += len(data)
        if self._size > self._high and not self._is_protocol_paused and self._protocol is not None:
            self._is_protocol_paused = True
            self._protocol.pause_writing()

    def _send_backlog(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                sent = self._socket.send(backlog[0])
                self._size -= sent
                backlog[0] = backlog[0][sent:]
                if not backlog[0]:
                    del backlog[0]
        except _WAITING:
            self._watch_for_room()
        except OSError as error:
            self._lose(error)
            return
        if not backlog:
            self._unwatch_room()
            if self._closing is not None:
                self._closing()
                return
        if self._is_protocol_paused and self._size <= self._low and self._protocol is not None:
            self._is_protocol_paused = False
            self._protocol.resume_writing()

    def _watch_for_room(self) -> None:
        if not self._is_writing and not self._is_lost:
            self._is_writing = True
            self._loop.add_writer(self._fd, self._on_room)

    def _unwatch_room(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._fd)

    # The end.

    def _shut_down(self) -> None:
        """Send close_notify; then the end of the stream, and wait for the other side's."""
        try:
            self._socket.unwrap()
        except ssl.SSLWantWriteError:
            self._watch_for_room()
            return
        except (OSError, ValueError):  # sent, and not answered yet; or there is nobody to send it to
            pass
        self._unwatch_room()
        self._closing = self._drain
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose(None)
            return
        self._loop.add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        """Nobody wants what still comes, but a socket that is closed with bytes unread takes back what was sent."""
        try:
            if socket.socket.recv(self._socket, RECORD_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._is_reading = False
        self._closing = None
        self._loop.remove_reader(self._fd)
        self._unwatch_room()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._backlog.clear()
        self._size = 0
        self._socket.close()
        self._on_lost(self)
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None  # it knows this object: without a circle both are freed at once
        if protocol is not None:
            protocol.connection_lost(error)
