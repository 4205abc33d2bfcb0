"""Redis and PostgreSQL of a run's own, on free ports, to be broken: the servers, and the way to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from tests.chaos.nemesis.proxy import ProxyThread

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from tests.chaos.nemesis.proxy import Breakable


class Server(Protocol):
    """A server that can be stopped, and started again with the same data at the same place."""

    name: str

    @property
    def proxy(self) -> Breakable:
        """What all connections to it go through."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Sends all of its processes a signal."""
        ...

    async def stop(self, *, kill: bool) -> None:
        """Ends it: with SIGKILL, or in order."""
        ...

    async def start(self) -> None:
        """Starts it and returns when it serves."""
        ...

    async def revive(self) -> None:
        """Starts it again where it has ended by itself."""
        ...


class _Program(Protocol):
    """What the servers of tests/helpers have in common."""

    host: str
    port: int

    @property
    def pid(self) -> int: ...

    @property
    def is_running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class _Own:
    """A server that was started for this run, behind a proxy."""

    name: str

    def __init__(self, program: _Program) -> None:
        self._program = program
        program.start()
        self.proxy = ProxyThread((program.host, program.port))

    def signal(self, number: signal.Signals) -> None:
        """Sends all of its processes a signal."""
        pid = self._program.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    async def stop(self, *, kill: bool) -> None:
        """Ends it: with SIGKILL, or in order."""
        await asyncio.to_thread(self._program.kill if kill else self._program.stop)

    async def start(self) -> None:
        """Starts it and returns when it serves."""
        await asyncio.to_thread(self._program.start)

    async def revive(self) -> None:
        """Starts it again where it has ended by itself."""
        if not self._program.is_running:
            await self.stop(kill=True)  # what is left of it
            await self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.close()
        self._program.close()


class Postgres(_Own):
    """PostgreSQL with one database. Raises ValueError where it is not installed."""

    name = "postgres"

    def __init__(self, environment: Mapping[str, str]) -> None:
        if not any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) and shutil.which("postgres") is None:
            raise ValueError("PostgreSQL is not installed")
        from tests.helpers.postgres import PostgresServer

        server = PostgresServer(environment=environment)
        super().__init__(server)
        self.direct_url = server.make_database()
        self.url = self.direct_url.replace(f":{server.port}/", f":{self.proxy.port}/")


class Redis(_Own):
    """Redis, which keeps nothing. Raises ValueError where it is not installed."""

    name = "redis"

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            raise ValueError("redis-server is not installed")
        from tests.helpers.redis_server import RedisServer

        super().__init__(RedisServer())
        self.url = f"redis://127.0.0.1:{self.proxy.port}/0"
