from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.edge.client_tls import server_context
from services.edge.read_turns import BYTES_PER_TURN, ReadTurns
from services.edge.tls_transport import RECORD_BYTES, TlsTransport, shake_hands
from tests.helpers import certificates

HIGH, LOW = 65_536, 16_384


class Recorder(asyncio.BufferedProtocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.transport: TlsTransport | None = None
        self.received = bytearray()
        self.is_paused = False
        self.pauses = 0
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()
        self.on_data: Callable[[bytes], None] = lambda _: None
        self._buffer = bytearray(65_536)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        self.received += data
        self.heard.set()
        self.on_data(data)

    def pause_writing(self) -> None:
        self.is_paused = True
        self.pauses += 1

    def resume_writing(self) -> None:
        self.is_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


class Pair:
    """Our side of a connection, and a client of another make on the other."""

    def __init__(
        self, ours: Recorder, accepted: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.ours = ours
        self.accepted = accepted
        self.reader = reader
        self.writer = writer
        assert ours.transport is not None
        self.transport = ours.transport

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is watched has no event
                await asyncio.sleep(0.005)

    @property
    def raw(self) -> socket.socket:
        """The client's socket."""
        found = self.writer.get_extra_info("socket")
        assert found is not None
        return found  # type: ignore[no-any-return]


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.shared().client_ca))


@asynccontextmanager
async def pair(
    *, shutdown_s: float = 20.0, small_buffers: bool = False, turns: ReadTurns | None = None
) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if small_buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        listening.setblocking(False)
        opening = asyncio.ensure_future(
            asyncio.open_connection(
                *listening.getsockname(), ssl=client_context(), server_hostname="localhost", limit=1024
            )
        )
        accepted, _ = await loop.sock_accept(listening)
        accepted.setblocking(False)
        context = server_context(*certificates.shared().server)
        secured = await shake_hands(accepted, context, patience_s=20, turns=asyncio.Semaphore())
        ours = Recorder()
        lost: list[TlsTransport] = []
        transport = TlsTransport(
            secured, ours, turns=turns or ReadTurns(loop.call_soon), shutdown_s=shutdown_s, on_lost=lost.append
        )
        transport.set_write_buffer_limits(HIGH, LOW)
        transport.start()
        reader, writer = await opening
        yield Pair(ours, secured, reader, writer)
        transport.abort()
        writer.transport.abort()
        async with asyncio.timeout(20):
            await ours.ended
        assert lost == [transport]


async def test_bytes_go_both_ways() -> None:
    async with pair() as both:
        both.writer.write(b"question")
        await both.until(lambda: both.ours.received == b"question")
        both.transport.write(b"ans")
        both.transport.write(bytearray(b"wer"))
        both.transport.write(b"")
        assert await both.reader.readexactly(6) == b"answer"


@pytest.mark.parametrize("size", [1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 1_000_000])
async def test_all_sizes_arrive_whole(size: int) -> None:
    data = os.urandom(size)
    async with pair() as both:
        both.writer.write(data)
        await both.until(lambda: len(both.ours.received) >= size)
        assert both.ours.received == data
        both.transport.write(data)
        assert await both.reader.readexactly(size) == data
        assert both.transport.get_write_buffer_size() == 0


async def test_a_slow_reader_pauses_the_protocol_and_gets_everything_in_order() -> None:
    async with pair(small_buffers=True) as both:
        sent = bytearray()
        while not both.ours.is_paused:
            data = os.urandom(9_000)
            sent += data
            both.transport.write(data)
        waiting = both.transport.get_write_buffer_size()
        assert HIGH < waiting <= HIGH + 9_000
        for _ in range(5):  # what comes while something waits stays behind it
            sent += b"x" * 100
            both.transport.write(b"x" * 100)
        await both.reader.readexactly(1)
        await both.until(lambda: both.transport.get_write_buffer_size() < waiting)  # progress shows
        assert await both.reader.readexactly(len(sent) - 1) == sent[1:]
        await both.until(lambda: not both.ours.is_paused)
        assert both.ours.pauses == 1
        assert both.transport.get_write_buffer_size() == 0


async def test_a_pause_leaves_bytes_where_they_are() -> None:
    async with pair() as both:
        both.transport.pause_reading()
        both.transport.pause_reading()
        both.writer.write(b"later")
        await both.writer.drain()
        both.transport.write(b"ping")
        assert await both.reader.readexactly(4) == b"ping"
        assert both.ours.received == b""
        both.transport.resume_reading()
        await both.until(lambda: both.ours.received == b"later")


async def test_what_comes_in_a_turn_that_has_read_enough_is_read_in_a_later_one() -> None:
    turns: list[Callable[[], None]] = []
    reading = ReadTurns(turns.append)
    reading.spend(BYTES_PER_TURN)
    async with pair(turns=reading) as both:
        both.writer.write(b"hello")
        await both.writer.drain()
        await both.until(lambda: reading.waiting_count)
        assert both.ours.received == b""
        turns.pop()()
        await both.until(lambda: both.ours.received == b"hello")
        both.writer.write(b" again")
        await both.until(lambda: both.ours.received == b"hello again")


async def test_little_is_held_unread_until_a_file_may_come() -> None:
    async with pair() as both:
        both.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        small = both.accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        both.transport.expect_much()
        assert both.accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 4 * small
        both.transport.abort()
        both.transport.expect_much()  # it may be lost before its file comes


async def test_a_protocol_that_pauses_while_it_is_given_bytes_gets_no_more() -> None:
    async with pair() as both:
        both.ours.on_data = lambda _: both.transport.pause_reading()
        both.writer.write(b"x" * 100_000)
        await both.ours.heard.wait()
        size = len(both.ours.received)
        assert size <= RECORD_BYTES
        both.transport.write(b"!")
        assert await both.reader.readexactly(1) == b"!"
        assert len(both.ours.received) == size
        both.ours.on_data = lambda _: None
        both.transport.resume_reading()
        await both.until(lambda: len(both.ours.received) == 100_000)


async def test_closing_sends_what_waits_and_says_goodbye() -> None:
    data = os.urandom(400_000)
    async with pair(small_buffers=True) as both:
        both.transport.write(data)
        both.transport.close()
        both.transport.close()
        assert both.transport.is_closing()
        both.transport.write(b"too late")
        both.transport.resume_reading()
        assert await both.reader.read(-1) == data  # read to the end: close_notify, or else it would raise
        both.writer.close()
        assert await both.ours.ended is None


async def test_what_the_client_still_sends_while_it_is_closed_costs_nothing_that_was_sent_to_it() -> None:
    async with pair() as both:
        both.transport.pause_reading()
        both.writer.write(b"x" * 300_000)
        both.transport.write(b"goodbye")
        both.transport.close()
        assert await both.reader.read(-1) == b"goodbye"
        both.writer.close()
        assert await both.ours.ended is None
        assert both.ours.received == b""


async def test_closing_does_not_wait_for_ever() -> None:
    async with pair(shutdown_s=0.1, small_buffers=True) as both:
        both.writer.transport.pause_reading()  # type: ignore[attr-defined]
        both.transport.write(bytes(1_000_000))
        both.transport.close()
        assert await both.ours.ended is None
        both.transport.close()
        both.transport.abort()
        both.transport.resume_reading()
        both.transport.write(b"nobody")


async def test_the_clients_end_is_the_end() -> None:
    async with pair() as both:
        both.writer.write(b"last")
        both.writer.close()
        assert await both.ours.ended is None
        assert both.ours.received == b"last"


async def test_a_connection_that_is_cut_is_lost() -> None:
    async with pair() as both:
        both.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.writer.transport.abort()
        async with asyncio.timeout(20):
            await both.ours.ended


async def test_writing_to_who_has_gone_loses_the_connection() -> None:
    async with pair() as both:
        both.transport.pause_reading()  # so that only writing can find out
        both.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        both.writer.transport.abort()

        def is_lost() -> bool:
            both.transport.write(b"anybody?")
            return both.ours.ended.done()

        await both.until(is_lost)
        assert isinstance(both.ours.ended.result(), OSError)
        assert both.transport.is_closing()


async def test_bytes_that_are_not_tls_lose_the_connection() -> None:
    async with pair() as both:
        with socket.socket(fileno=os.dup(both.raw.fileno())) as raw:
            raw.send(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(await both.ours.ended, ssl.SSLError)


async def test_a_defect_in_the_protocol_ends_the_connection_and_is_reported() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    async with pair() as both:

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        both.ours.on_data = fail
        both.writer.write(b"x")
        assert isinstance(await both.ours.ended, ZeroDivisionError)
    assert [type(one) for one in reported] == [ZeroDivisionError]


async def accepted_and_client() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    accepted.setblocking(False)
    return accepted, client


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""])
async def test_a_handshake_that_is_none_closes_the_socket(data: bytes) -> None:
    accepted, client = await accepted_and_client()
    context = server_context(*certificates.shared().server)
    with client:
        client.send(data)
        with pytest.raises(OSError):  # noqa: PT011 - TLS, time or reset: all mean that there is no connection
            await shake_hands(accepted, context, patience_s=0.1, turns=asyncio.Semaphore())
        assert accepted.fileno() == -1
        client.settimeout(20)
        with contextlib.suppress(ConnectionResetError):  # what was not read makes a reset of the end
            while client.recv(100):
                pass


async def test_who_has_gone_before_the_handshake_is_an_error() -> None:
    accepted, client = await accepted_and_client()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    context = server_context(*certificates.shared().server)
    with pytest.raises(OSError):  # noqa: PT011 - as the system puts it
        await shake_hands(accepted, context, patience_s=20, turns=asyncio.Semaphore())
    assert accepted.fileno() == -1


async def test_a_turn_of_the_loop_has_so_many_steps_of_handshakes() -> None:
    turns = 0
    is_over = False

    def count_turns() -> None:
        nonlocal turns
        turns += 1
        if not is_over:
            asyncio.get_running_loop().call_soon(count_turns)

    context = server_context(*certificates.shared().server)
    steps = asyncio.Semaphore(2)
    sockets = [await accepted_and_client() for _ in range(8)]
    for _, client in sockets:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    count_turns()
    results = await asyncio.gather(
        *(shake_hands(accepted, context, patience_s=20, turns=steps) for accepted, _ in sockets),
        return_exceptions=True,
    )
    is_over = True
    assert all(isinstance(result, ssl.SSLError) for result in results)
    assert turns >= len(sockets) / 2
    for _, client in sockets:
        client.close()
    await asyncio.sleep(0)


async def test_waiting_for_its_turn_is_not_held_against_a_client() -> None:
    context = server_context(*certificates.shared().server)
    turns = asyncio.Semaphore()
    accepted, client = await accepted_and_client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await turns.acquire()
    waiting = asyncio.ensure_future(shake_hands(accepted, context, patience_s=0.0, turns=turns))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    turns.release()
    with pytest.raises(ssl.SSLError):
        await waiting
    client.close()
