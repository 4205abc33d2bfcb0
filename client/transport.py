"""Bytes to and from a server: the port that the client speaks through, its TLS form, and its in-memory twin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Protocol

from client.errors import ConnectError, TrustError
from client.trust import Authority, Trust, check_certificate, fingerprint_of, probing_context, refusal, tls_context

if TYPE_CHECKING:
    from client.address import Address

CONNECT_TIMEOUT_S = 10.0
"""TCP and TLS together; the server gives a handshake 5 s, so whoever needs more gets nothing anyway."""

CLOSE_TIMEOUT_S = 2.0
"""A server that does not answer the end of TLS is left alone after this."""

READ_BYTES = 65_536

QUEUED_BYTES_MAX = 131_072
"""Of a file, here and again in the system: a text that is typed meanwhile is behind no more than that."""


class Transport(Protocol):
    """A connection: ordered bytes both ways."""

    async def receive(self) -> bytes:
        """What came in, at least one byte; b"" when the connection has ended, for whatever reason."""
        ...

    def send(self, data: bytes) -> None:
        """Queues bytes; after the end they go nowhere."""
        ...

    async def drained(self) -> None:
        """Waits until little is queued, or the connection has ended."""
        ...

    async def close(self) -> None:
        """Ends the connection after what was queued has gone out. Idempotent."""
        ...


class Connector(Protocol):
    """Makes connections to one server."""

    async def connect(self) -> Transport:
        """A new connection. Raises ConnectError, or TrustError when the server is not who it should be."""
        ...


class StreamTransport:
    """A Transport over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=QUEUED_BYTES_MAX)
        raw = writer.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, QUEUED_BYTES_MAX)

    async def receive(self) -> bytes:
        """What came in; b"" at the end."""
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:  # ssl.SSLError is one
            return b""

    def send(self, data: bytes) -> None:
        """Queues bytes."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drained(self) -> None:
        """Waits until little is queued."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def close(self) -> None:
        """Ends the connection."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()


class TlsConnector:
    """Connects to `address` over TLS 1.3 and lets nothing through before the server has proved who it is."""

    def __init__(self, address: Address, trust: Trust) -> None:
        self.address = address
        self._trust = trust

    async def connect(self) -> Transport:
        """A verified connection."""
        context = tls_context(self._trust)
        name = self._trust.server_name if isinstance(self._trust, Authority) else self.address.host
        try:
            transport = await _open(self.address, context, name)
        except ssl.SSLCertVerificationError as error:
            if not isinstance(self._trust, Authority):  # with a pin nothing is verified during the handshake
                raise
            raise refusal(
                self.address, self._trust, error.verify_message or str(error), await shown_fingerprint(self.address)
            ) from error
        try:
            check_certificate(self.address, self._trust, transport.certificate())
        except TrustError:
            await transport.close()
            raise
        return transport


class _TlsTransport(StreamTransport):
    def certificate(self) -> bytes | None:
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True)


async def _open(address: Address, context: ssl.SSLContext, server_name: str) -> _TlsTransport:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            streams = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=server_name, limit=2 * READ_BYTES
            )
    except TimeoutError as error:
        raise ConnectError(f"{address} did not answer within {CONNECT_TIMEOUT_S:.0f} s") from error
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        raise ConnectError(f"{address} does not speak Parley over TLS 1.3 ({error.reason or error})") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
        raise ConnectError(f"{address} cannot be reached: {_reason(error)}") from error
    return _TlsTransport(*streams)


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, ConnectionError):
        return "it closed the connection at once, as what does not speak TLS 1.3 may do"
    return getattr(error, "strerror", None) or str(error)


async def shown_fingerprint(address: Address) -> str | None:
    """The fingerprint of the certificate that a server shows, for a person to compare; None where there is none."""
    try:
        transport = await _open(address, probing_context(), address.host)
    except (ConnectError, ssl.SSLError):
        return None
    try:
        certificate = transport.certificate()
        return fingerprint_of(certificate) if certificate else None
    finally:
        await transport.close()


class MemoryTransport:
    """One end of a connection without a network; `memory_pair` makes both."""

    def __init__(self, *, arriving: asyncio.Queue[bytes], leaving: asyncio.Queue[bytes], ended: asyncio.Event) -> None:
        self._arriving = arriving
        self._leaving = leaving
        self._ended = ended

    async def receive(self) -> bytes:
        """What the other end sent; b"" at the end."""
        if self._ended.is_set() and self._arriving.empty():
            return b""
        return await self._arriving.get()

    def send(self, data: bytes) -> None:
        """Hands bytes to the other end."""
        if data and not self._ended.is_set():
            self._leaving.put_nowait(data)

    async def drained(self) -> None:
        """Gives the other end its turn."""
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Ends the connection for both ends."""
        self.cut()

    def cut(self) -> None:
        """Ends the connection at once, as a lost network does."""
        if not self._ended.is_set():
            self._ended.set()
            self._arriving.put_nowait(b"")
            self._leaving.put_nowait(b"")


def memory_pair() -> tuple[MemoryTransport, MemoryTransport]:
    """Two ends of one connection."""
    forth: asyncio.Queue[bytes] = asyncio.Queue()
    back: asyncio.Queue[bytes] = asyncio.Queue()
    ended = asyncio.Event()
    return (
        MemoryTransport(arriving=back, leaving=forth, ended=ended),
        MemoryTransport(arriving=forth, leaving=back, ended=ended),
    )
