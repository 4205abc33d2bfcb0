"""The nemesis: what it can break where, in which order, and that everything is whole again afterwards."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos import events as e
from tests.chaos.nemesis.choice import KINDS, choose, parse
from tests.chaos.nemesis.faults import Rolling, ServerFault, Storage
from tests.chaos.nemesis.proxy import ProxyThread
from tests.chaos.nemesis.schedule import Nemesis
from tests.chaos.recorder.log import EventLog
from tests.chaos.shim.control import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DICE = random.Random(1)


class FakeProcesses:
    """Two processes that serve again at once, as others than before."""

    def __init__(self) -> None:
        self.pids = {"edge-1": 1, "rooms-1": 2}
        self.done: list[str] = []

    def read(self) -> dict[str, Any]:
        return {name: {"pid": pid} for name, pid in self.pids.items()}

    def signal(self, name: str, number: signal.Signals) -> int:
        self.done.append(f"{number.name} {name}")
        return self.pids[name]

    async def until_serving(self, name: str, *, other_than: int = 0) -> None:
        assert self.pids[name] == other_than
        self.pids[name] += 10
        self.done.append(f"{name} serves")


class FakeServer:
    """A server that notes what is done to it."""

    proxy: Any = None

    def __init__(self, name: str = "postgres") -> None:
        self.name = name
        self.done: list[str] = []

    def signal(self, number: signal.Signals) -> None:
        self.done.append(number.name)

    async def stop(self, *, kill: bool) -> None:
        self.done.append("kill" if kill else "stop")

    async def start(self) -> None:
        self.done.append("start")

    async def revive(self) -> None:
        self.done.append("revive")


class FakeControl:
    def __init__(self) -> None:
        self.cells: dict[str, int] = {}

    def set(self, cell: str, value: int) -> None:
        self.cells[cell] = value


def everything(kinds: str, *, stack: bool = True, servers: bool = True) -> dict[str, set[str]]:
    """By kind: what it may befall."""
    faults = choose(
        parse(kinds),
        processes=FakeProcesses() if stack else None,  # type: ignore[arg-type]
        proxies={"edge-1": object()},  # type: ignore[dict-item]
        control=FakeControl() if stack else None,  # type: ignore[arg-type]
        servers=[FakeServer(), FakeServer("redis")] if servers else [],
    )
    return {kind: {fault.target for fault in faults if fault.kind == kind} for kind in {fault.kind for fault in faults}}


def test_what_can_be_broken_where() -> None:
    found = everything("all")
    assert set(found) == set(KINDS)
    assert found["kill"] == {"edge-1", "rooms-1"}
    assert found["cut"] == {"edge-1", "postgres", "redis"}
    assert found["disk-full"] == {"rooms", "auth", "postgres"}
    assert found["sync-fails"] == {"rooms", "auth"}
    assert found["server-pause"] == {"postgres", "redis"}
    assert set(everything("all", stack=False, servers=False)) == {"cut", "reset", "delay", "blackhole", "refuse"}
    assert everything("none") == {}
    with pytest.raises(ValueError, match="'earthquake' is no fault"):
        parse("kill,earthquake")


async def test_a_rolling_restart_waits_for_each_process() -> None:
    processes = FakeProcesses()
    await Rolling(processes).strike(DICE)  # type: ignore[arg-type]
    assert sorted(processes.done) == ["SIGTERM edge-1", "SIGTERM rooms-1", "edge-1 serves", "rooms-1 serves"]
    first, second = processes.done[:2]
    assert first.removeprefix("SIGTERM ") == second.removesuffix(" serves")


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("server-kill", ["kill", "start"]),
        ("server-restart", ["stop", "start"]),
        ("server-pause", ["SIGSTOP", "SIGCONT"]),
    ],
)
async def test_servers_are_broken_and_mended(kind: str, done: list[str]) -> None:
    server = FakeServer()
    fault = ServerFault(kind, server)
    await fault.strike(DICE)
    await fault.mend()
    assert server.done == done


async def test_a_database_that_died_of_its_full_disk_is_started_again() -> None:
    control, server = FakeControl(), FakeServer()
    fault = Storage("disk-full", "postgres", control, server)  # type: ignore[arg-type]
    await fault.strike(DICE)
    assert control.cells == {"disk_of_postgres": Disk.FULL}
    await fault.mend()
    assert control.cells == {"disk_of_postgres": Disk.WORKS}
    assert server.done == ["revive"]


class Blink:
    """A fault that is over at once."""

    lasts_s = (0.0, 0.0)

    def __init__(self, kind: str) -> None:
        self.kind = self.target = kind
        self.strikes = 0

    async def strike(self, dice: random.Random) -> None:
        del dice
        self.strikes += 1

    async def mend(self) -> None:
        pass


async def test_every_kind_has_its_turn_before_any_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.nemesis.schedule.PAUSE_S", (0.0, 0.001))
    path, faults = tmp_path / "log", [Blink(kind) for kind in "abc"]
    with EventLog(path) as log:
        # A clock that stands still until enough has happened, and then is past the end.
        monkeypatch.setattr(log, "now", lambda: float(sum(fault.strikes for fault in faults) >= 30))
        await Nemesis(faults, log, random.Random(5)).rage(1.0)
    with path.open("rb") as lines:
        kinds = [event.kind for event in e.decode(lines) if isinstance(event, e.Fault)]
    assert len(kinds) >= 30
    for start in range(0, len(kinds) - 2, 3):
        assert set(kinds[start : start + 3]) == set("abc")


class Slow(Blink):
    """One that takes longer than the run."""

    async def strike(self, dice: random.Random) -> None:
        del dice
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("kinds", "least"), [("abcdef", 4), ("ab", 2)])
async def test_four_kinds_strike_even_where_the_first_takes_the_whole_time(
    kinds: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.nemesis.schedule.PAUSE_S", (0.0, 0.001))
    path = tmp_path / "log"
    with EventLog(path) as log:
        await Nemesis([Slow(kind) for kind in kinds], log, random.Random(5)).rage(log.now() + 0.01)
    with path.open("rb") as lines:
        assert len({event.kind for event in e.decode(lines) if isinstance(event, e.Fault)}) == least


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it is sent, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    while data := _read(connection):
                        connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except OSError:
        return b""


def _open(proxy: ProxyThread) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_a_proxy_in_a_thread_passes_swallows_cuts_and_refuses(echo: tuple[str, int]) -> None:
    proxy = ProxyThread(echo)
    with _open(proxy) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        proxy.swallow(on=True)
        connection.sendall(b"two")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        proxy.swallow(on=False)
        connection.settimeout(10)
        assert connection.recv(10) == b"two"
        proxy.cut(reset=True)
        assert _read(connection) == b""
    proxy.is_refusing = True
    with _open(proxy) as connection:
        assert _read(connection) == b""
    proxy.is_refusing = False
    with _open(proxy) as connection:
        connection.sendall(b"three")
        assert connection.recv(10) == b"three"
    proxy.close()


async def test_the_log_has_what_was_broken_and_for_how_long(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EventLog(path) as log:
        await Nemesis([], log, DICE).rage(log.now() + 0.01)  # nothing can be broken: the time passes all the same
        await asyncio.wait_for(Nemesis([Blink("a")], log, DICE).rage(log.now() + 0.01), 30)
    with path.open("rb") as lines:
        [fault] = [event for event in e.decode(lines) if isinstance(event, e.Fault)][:1]
    assert fault.target == "a"
    assert fault.t0 <= fault.t1
