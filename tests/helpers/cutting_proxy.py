"""A link that is cut: a proxy on loopback that counts what goes through it, holds little, and breaks when told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

BUFFER_BYTES = 65_536
"""In each direction, here and in each socket: what is lost by a cut is what was on the wire."""

_ABRUPT = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards connections from `port` to another port of this machine.

    `up_at` and `down_at` are numbers of bytes, in all and ascending: when so many have come from clients (up) or from
    the server (down), every connection is cut, in turn abruptly and orderly.
    """

    def __init__(self, target: int, *, up_at: list[int] | None = None, down_at: list[int] | None = None) -> None:
        self.port = 0
        self.up_bytes = 0
        self.down_bytes = 0
        self.cuts = 0
        self._target = target
        self._plans = {True: list(up_at or []), False: list(down_at or [])}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=BUFFER_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Breaks all connections, every other time with a reset."""
        self.cuts += 1
        for writer in list(self._writers):
            if self.cuts % 2:
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._target))
            there_reader, there_writer = await asyncio.open_connection(sock=raw, limit=BUFFER_BYTES)
        except OSError:
            raw.close()
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        pumps = [
            asyncio.create_task(self._pump(reader, there_writer, is_up=True)),
            asyncio.create_task(self._pump(there_reader, writer, is_up=False)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, there_writer):
            self._writers.discard(one)
            one.transport.abort()
        await asyncio.wait(pumps)
        self._tasks.difference_update(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        with contextlib.suppress(OSError):
            while data := await reader.read(BUFFER_BYTES):
                writer.write(data)
                await writer.drain()
                if is_up:
                    self.up_bytes += len(data)
                else:
                    self.down_bytes += len(data)
                plan = self._plans[is_up]
                if plan and plan[0] <= (self.up_bytes if is_up else self.down_bytes):
                    plan.pop(0)
                    self.cut()
