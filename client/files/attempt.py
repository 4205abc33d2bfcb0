"""An attempt: a transfer on one connection. What both directions have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from client.clock import Clock
from client.connection import Connection
from client.errors import ClientError
from client.files.transfer import Transfer
from client.replies import ServerInfo
from services.common.wire import limits

STALL_S: Final = 90.0
"""The server ends a transfer in which nothing moves for 60 s; one of which nothing is heard for longer is forgotten."""

WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""Whatever a server asks for: what this client keeps in memory for a transfer."""


class StalledError(ClientError):
    """Nothing is heard of a transfer any more; trying again may help."""


@dataclass(frozen=True)
class Lane:
    """What an attempt works with: the connection, and how it tells what happens.

    `attach(file_id, attempt)` has what comes for that file go to the attempt, `keep()` writes the entries down,
    `changed(transfer)` shows it.
    """

    connection: Connection
    server: ServerInfo
    clock: Clock
    attach: Callable[[str, Attempt], None]
    keep: Callable[[], Awaitable[None]]
    changed: Callable[[Transfer], None]

    @property
    def window_bytes(self) -> int:
        """How much may be under way."""
        return min(max(self.server.file_window_bytes, limits.MAX_CHUNK_BYTES), WINDOW_BYTES_MAX)


class Attempt:
    """One transfer on one connection. The handlers are called as frames come, and must not wait."""

    def __init__(self, transfer: Transfer, lane: Lane) -> None:
        self.transfer = transfer
        self._lane = lane
        self._fault: ClientError | None = None
        self._changed = asyncio.Event()

    def fail(self, fault: ClientError) -> None:
        """It cannot go on."""
        if self._fault is None:
            self._fault = fault
        self._changed.set()

    def acknowledged(self, offset: int) -> None:
        """The server has stored everything before `offset`."""

    def finished(self) -> None:
        """The server has posted the file."""

    def receive(self, offset: int, data: bytes) -> None:
        """A chunk has come."""

    async def run(self) -> None:
        """Works until the transfer is done. Raises ClientError."""
        raise NotImplementedError

    async def _wait(self) -> None:
        """Until something has happened. Raises what made it fail."""
        self._changed.clear()
        try:
            async with asyncio.timeout(STALL_S):
                await self._changed.wait()
        except TimeoutError:
            raise StalledError("nothing is heard of it any more") from None

    def _allowed(self) -> int:
        """How much may be under way now."""
        return self.transfer.allowance.window(self._lane.window_bytes)

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _moved(self, done_bytes: int) -> None:
        self.transfer.moved(self._lane.clock.monotonic(), done_bytes)
        self._lane.changed(self.transfer)
