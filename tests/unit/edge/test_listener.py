from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from services.edge import listener
from tests.helpers.edge_world import edge_world, until


class FailingSocket:
    """A listening socket of a process that has no file left, for a while."""

    def __init__(self, real: socket.socket, failures: int) -> None:
        self._real = real
        self.failures = failures

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real.accept()

    def fileno(self) -> int:
        return self._real.fileno()

    def close(self) -> None:
        self._real.close()


async def test_running_out_of_files_is_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_OUT_OF_FILES_PAUSE_S", 0.01)
    async with edge_world(tmp_path) as world:
        edge_listener = world.edge._listener
        assert edge_listener._socket is not None
        failing = FailingSocket(edge_listener._socket, failures=3)
        edge_listener._socket = cast("Any", failing)
        client = await world.connect()
        assert failing.failures == 0
        assert (await client.request("heartbeat"))["type"] == "heartbeat"


async def test_nothing_is_accepted_after_the_end(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        edge_listener = world.edge._listener
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        await until(lambda: edge_listener.handshake_count)
        edge_listener.close()
        edge_listener.close()
        await until(lambda: not edge_listener.handshake_count)
        assert world.value("parley.edge.connections") == 0
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", world.port)
