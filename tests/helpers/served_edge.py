"""The fake edge behind real TLS, on a thread of its own: for tests that run the client as a program."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from client.transport import StreamTransport
from tests.helpers.certificates import make_authority, make_certificate
from tests.helpers.fake_edge import FakeEdge

T = TypeVar("T")


class ServedEdge:
    """A FakeEdge that listens at 127.0.0.1:`port`; `ca` vouches for it under the name localhost."""

    def __init__(self, folder: Path) -> None:
        self.edge = FakeEdge()
        authority = make_authority(folder)
        self.ca = authority.file
        certificate, key = make_certificate(folder, authority, dns=["localhost"], addresses=["127.0.0.1"])
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.set_alpn_protocols(["parley/2"])
        self._tls.load_cert_chain(certificate, key)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def do(self, work: Callable[[], T]) -> T:
        """Runs something on the server's thread and returns its result."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
        """Waits on the server's thread until a condition holds."""

        async def wait() -> None:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self.edge.changed()

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def cut(self) -> None:
        """Every connection is lost."""
        self.do(lambda: [writer.transport.abort() for writer in self._writers])

    def stop_listening(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)

    def listen(self) -> None:
        """Listens, at the same port as before where there was one."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, ssl_handshake_timeout=5
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self.edge.serve(StreamTransport(reader, writer))
        finally:
            self._writers.discard(writer)

    @contextlib.contextmanager
    def running(self) -> Iterator[ServedEdge]:
        thread = threading.Thread(target=self._loop.run_forever, name="served-edge")
        thread.start()
        try:
            self.listen()
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
            self._loop.close()

    async def _shut_down(self) -> None:
        await self._close()
        for writer in list(self._writers):
            writer.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
