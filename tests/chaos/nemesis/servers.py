"""Redis and PostgreSQL of a run's own, on free ports, to be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import signal


class Server(Protocol):
    """A server that can be stopped, and started again with the same data at the same place."""

    name: str

    def signal(self, number: signal.Signals) -> None:
        """Sends all of its processes a signal."""
        ...

    async def stop(self, *, kill: bool) -> None:
        """Ends it: with SIGKILL, or in order."""
        ...

    async def start(self) -> None:
        """Starts it and returns when it serves."""
        ...
