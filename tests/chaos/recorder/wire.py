"""One connection as docs/protocol.md describes it: frames out, frames in, nothing of the product's own code."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Frame = dict[str, Any]
FRAME_BYTES_MAX = 65_561
CONNECT_S = 6.0
CHUNK = 0x01


class LostError(Exception):
    """There is no connection (any more)."""


@dataclass(frozen=True)
class Trust:
    """Whose word is taken for what a server says that it is called."""

    context: ssl.SSLContext
    server_name: str


class Wire(asyncio.Protocol):
    """`on_frame` gets each JSON frame, `on_chunk` each file chunk's payload, and `on_lost` the reason, once."""

    def __init__(
        self, on_frame: Callable[[Frame], None], on_chunk: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self.last_heard = 0.0
        self.reason = ""  # why it ended
        self._on_frame = on_frame
        self._on_chunk = on_chunk
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        trust: Trust,
        *,
        on_frame: Callable[[Frame], None],
        on_chunk: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> Wire:
        """Connects. Raises LostError."""
        loop = asyncio.get_running_loop()
        wire = cls(on_frame, on_chunk, on_lost)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: wire, *address, ssl=trust.context, server_hostname=trust.server_name
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise LostError(f"cannot connect: {error!r}") from error
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.last_heard = asyncio.get_running_loop().time()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.reason = self.reason or (repr(error) if error else "closed by the server")
        self._may_write.set()
        self._transport = None
        self._on_lost(self.reason)

    def pause_writing(self) -> None:
        """The other side does not read as fast as we write."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """Bytes came in, cut anywhere."""
        self.last_heard = asyncio.get_running_loop().time()
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= 4:
            (size,) = struct.unpack_from(">I", self._buffer, start)
            if not 0 < size <= FRAME_BYTES_MAX:
                self.abort(f"a frame of {size} bytes")
                return
            if len(self._buffer) - start - 4 < size:
                break
            payload = bytes(self._buffer[start + 4 : start + 4 + size])
            start += 4 + size
            if payload[0] == CHUNK:
                self._on_chunk(payload)
            else:
                self._on_frame(json.loads(payload))
        del self._buffer[:start]

    @property
    def is_open(self) -> bool:
        """Whether something may still come or go."""
        return self._transport is not None and not self.reason

    def send(self, frame: Frame) -> None:
        """Queues a frame. Raises LostError."""
        self.send_payload(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode())

    def send_payload(self, payload: bytes) -> None:
        """Queues a frame of any kind. Raises LostError."""
        if self._transport is None or self.reason:
            raise LostError(self.reason)
        self._transport.write(struct.pack(">I", len(payload)) + payload)

    async def drained(self) -> None:
        """Waits until the other side takes more."""
        await self._may_write.wait()

    def abort(self, reason: str) -> None:
        """Hangs up without a word."""
        if self._transport is not None:
            self.reason = self.reason or reason
            self._transport.abort()


def trusting(ca: str, server_name: str = "localhost") -> Trust:
    """TLS 1.3 to servers of this name that this authority vouches for. Raises OSError where its file is no good."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return Trust(context, server_name)
