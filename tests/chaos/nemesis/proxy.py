"""A TCP proxy in front of an edge or a server, which delays, stops, cuts and refuses when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)  # linger for 0 s: close() sends RST


class Breakable(Protocol):
    """What a network fault does to the connections that go through it."""

    delay_s: float
    is_refusing: bool

    def swallow(self, *, on: bool) -> None:
        """A black hole: bytes go in and do not come out; what was sent meanwhile comes later."""
        ...

    def cut(self, *, reset: bool = False) -> None:
        """Ends all connections at once, with RST where `reset`."""
        ...


class Proxy:
    """`port` leads to `target`. Closed connections take both sides with them."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.is_refusing = False
        self._flows = asyncio.Event()  # unset: nothing passes, and nothing ends (a black hole)
        self._flows.set()
        self._target = target
        self._server: asyncio.Server | None = None
        self._pipes: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    async def start(self) -> Self:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Ends everything."""
        if self._server is not None:
            self._server.close()
        self.delay_s = 0.0
        self.swallow(on=False)
        self.cut()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def swallow(self, *, on: bool) -> None:
        """A black hole: bytes go in and do not come out; what was sent meanwhile comes later."""
        if on:
            self._flows.clear()
        else:
            self._flows.set()

    def cut(self, *, reset: bool = False) -> None:
        """Ends all connections at once, with RST where `reset`."""
        for writers in list(self._pipes.values()):
            for writer in writers:
                if reset:
                    connection = writer.get_extra_info("socket")
                    with contextlib.suppress(OSError):
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = [writer]
        self._pipes[task] = (writer,)
        try:
            if self.is_refusing:
                return
            async with asyncio.timeout(5):
                up_reader, up_writer = await asyncio.open_connection(*self._target())
            writers.append(up_writer)
            self._pipes[task] = (writer, up_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, up_writer))
                tasks.create_task(self._pump(up_reader, writer))
        except* (OSError, TimeoutError):
            pass
        finally:
            del self._pipes[task]
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")


class ProxyThread:
    """A proxy with a thread of its own, for what must lead somewhere before a run has begun."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = Proxy(lambda: target)
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._proxy.port

    @property
    def delay_s(self) -> float:
        """How long each piece is kept."""
        return self._proxy.delay_s

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        self._proxy.delay_s = seconds

    @property
    def is_refusing(self) -> bool:
        """Whether new connections are closed at once."""
        return self._proxy.is_refusing

    @is_refusing.setter
    def is_refusing(self, value: bool) -> None:
        self._proxy.is_refusing = value

    def swallow(self, *, on: bool) -> None:
        """As Proxy.swallow."""
        self._loop.call_soon_threadsafe(partial(self._proxy.swallow, on=on))

    def cut(self, *, reset: bool = False) -> None:
        """As Proxy.cut."""
        self._loop.call_soon_threadsafe(partial(self._proxy.cut, reset=reset))

    def close(self) -> None:
        """Ends everything."""
        asyncio.run_coroutine_threadsafe(self._proxy.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
