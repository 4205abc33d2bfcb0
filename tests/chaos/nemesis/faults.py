"""The faults: each strikes, lasts for a while, and is mended; when `strike` returns, it is so."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

from tests.chaos.shim.control import Disk

if TYPE_CHECKING:
    import random

    from tests.chaos.nemesis.processes import Processes
    from tests.chaos.nemesis.proxy import Breakable
    from tests.chaos.nemesis.servers import Server
    from tests.chaos.shim.control import Control


class Fault(Protocol):
    """One fault. `lasts_s` is how long it is left alone, least and most."""

    kind: str
    target: str
    lasts_s: tuple[float, float]

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        ...

    async def mend(self) -> None:
        """Makes it whole, and returns when it is."""
        ...


class Kill:
    """kill -9 (`kill`) or SIGTERM (`restart`) of a service, which its supervisor starts again."""

    lasts_s = (0.0, 0.5)

    def __init__(self, kind: str, target: str, processes: Processes) -> None:
        self.kind = kind
        self.target = target
        self._number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
        self._processes = processes
        self._pid = 0

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        del dice
        self._pid = self._processes.signal(self.target, self._number)

    async def mend(self) -> None:
        """Waits until it serves again."""
        await self._processes.until_serving(self.target, other_than=self._pid)


class Rolling:
    """A rolling restart as operators make one: SIGTERM to each process in turn, when the one before serves again."""

    kind = "rolling"
    target = "all processes"
    lasts_s = (0.0, 0.0)

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def strike(self, dice: random.Random) -> None:
        """Restarts them all. (What is stopped at the moment takes its turn when it goes on.)"""
        names = sorted(self._processes.read())
        dice.shuffle(names)
        for name in names:
            pid = self._processes.signal(name, signal.SIGTERM)
            await self._processes.until_serving(name, other_than=pid)

    async def mend(self) -> None:
        """Nothing is left to do."""


class Pause:
    """SIGSTOP: a process that is there and does not answer."""

    kind = "pause"
    lasts_s = (0.3, 5.0)

    def __init__(self, target: str, processes: Processes) -> None:
        self.target = target
        self._processes = processes

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        del dice
        self._processes.signal(self.target, signal.SIGSTOP)

    async def mend(self) -> None:
        """Lets it go on. (It may have been killed meanwhile.)"""
        self._processes.signal(self.target, signal.SIGCONT)
        await self._processes.until_serving(self.target)


class Network:
    """What our proxy does to all connections of one edge or server: `cut`, `reset`, `delay`, `blackhole`, `refuse`."""

    def __init__(self, kind: str, target: str, proxy: Breakable) -> None:
        self.kind = kind
        self.target = target
        self.lasts_s = (0.0, 0.2) if kind in {"cut", "reset"} else (0.3, 6.0)
        self._proxy = proxy

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        if self.kind == "delay":
            self._proxy.delay_s = dice.uniform(0.05, 0.8)
        elif self.kind == "blackhole":
            self._proxy.swallow(on=True)
        elif self.kind == "refuse":
            self._proxy.is_refusing = True
            self._proxy.cut()
        else:
            self._proxy.cut(reset=self.kind == "reset")

    async def mend(self) -> None:
        """Lets everything pass. Whoever gave up waiting in the black hole is gone."""
        self._proxy.delay_s = 0.0
        self._proxy.is_refusing = False
        self._proxy.swallow(on=False)


class Storage:
    """`disk-full` and `sync-fails`: the writes, or the syncs, of rooms, auth or PostgreSQL fail.

    PostgreSQL panics, and cannot even recover while its disk is full; then somebody has to start it again.
    """

    lasts_s = (0.2, 3.0)

    def __init__(self, kind: str, target: str, control: Control, server: Server | None = None) -> None:
        self.kind = kind
        self.target = target
        self._mode = Disk.FULL if kind == "disk-full" else Disk.SYNC_FAILS
        self._control = control
        self._server = server

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        del dice
        self._control.set(f"disk_of_{self.target}", self._mode)

    async def mend(self) -> None:
        """There is space again."""
        self._control.set(f"disk_of_{self.target}", Disk.WORKS)
        if self._server is not None:
            await self._server.revive()


class Clock:
    """The time of day of all services jumps, forwards or back, and later jumps home."""

    kind = "clock"
    target = "all"
    lasts_s = (0.3, 6.0)

    def __init__(self, control: Control) -> None:
        self._control = control

    async def strike(self, dice: random.Random) -> None:
        """Breaks it: by up to 50 minutes, for certificates are valid since an hour ago."""
        self._control.set("clock_ns", int(dice.choice((-1, 1)) * dice.uniform(1, 3_000) * 1e9))

    async def mend(self) -> None:
        """The right time again."""
        self._control.set("clock_ns", 0)


class ServerFault:
    """`server-kill`, `server-restart` or `server-pause` of a Redis or PostgreSQL that the run itself started."""

    def __init__(self, kind: str, server: Server) -> None:
        self.kind = kind
        self.target = server.name
        self.lasts_s = (0.3, 4.0)
        self._server = server

    async def strike(self, dice: random.Random) -> None:
        """Breaks it."""
        del dice
        if self.kind == "server-pause":
            self._server.signal(signal.SIGSTOP)
        else:
            await self._server.stop(kill=self.kind == "server-kill")

    async def mend(self) -> None:
        """Lets it go on, or starts it again on the same data and port."""
        if self.kind == "server-pause":
            self._server.signal(signal.SIGCONT)
        else:
            await self._server.start()
