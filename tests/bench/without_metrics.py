"""Chat while the metrics service is alive, frozen, slow, or killed again and again: nobody else is to notice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.bench.server import Server, resident_bytes
from tests.bench.servers.parley import Parley
from tests.bench.workloads import Figures, paced

SLOW_PERIOD_S = 0.5
SLOW_SHARE = 0.1
"""Of the time in which a slow metrics service runs: it answers each call, up to half a second late."""

KILL_PERIOD_S = 1.0


def _pids(server: Parley) -> list[int]:
    """The metrics service, which is another process after each kill.

    It is looked for among the children of `parley up` alone: to go through the threads of the whole stack takes up to
    15 ms, in which the driver reads nothing, so that deliveries seem late.
    """
    assert server.process is not None
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid for pid in children if b"services.metrics" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _signal(server: Parley, number: signal.Signals) -> None:
    for pid in _pids(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _leave_alone(server: Parley) -> None:
    await asyncio.Event().wait()


async def _freeze(server: Parley) -> None:
    _signal(server, signal.SIGSTOP)
    await asyncio.Event().wait()


async def _slow_down(server: Parley) -> None:
    while True:
        _signal(server, signal.SIGSTOP)
        await asyncio.sleep(SLOW_PERIOD_S * (1 - SLOW_SHARE))
        _signal(server, signal.SIGCONT)
        await asyncio.sleep(SLOW_PERIOD_S * SLOW_SHARE)


async def _kill(server: Parley) -> None:
    while True:
        _signal(server, signal.SIGKILL)
        await asyncio.sleep(KILL_PERIOD_S)


PHASES: dict[str, Callable[[Parley], Coroutine[Any, Any, None]]] = {
    "alive": _leave_alone,
    "frozen": _freeze,
    "slow": _slow_down,
    "killed": _kill,
}


async def without_metrics(server: Server, seconds: float) -> Figures:
    """The chat of `latency` in each phase, one after the other, in one stack."""
    assert isinstance(server, Parley)
    figures: Figures = {}
    for name, phase in PHASES.items():
        trouble = asyncio.create_task(phase(server))
        begin = time.monotonic()
        chat = await paced(server, seconds, count=20, size=20, rate=200.0)
        figures[f"{name}_s"] = time.monotonic() - begin
        trouble.cancel()
        await asyncio.wait([trouble])
        _signal(server, signal.SIGCONT)
        figures |= {f"{name}_p50_ms": chat["p50_ms"], f"{name}_p99_ms": chat["p99_ms"], f"{name}_lost": chat["lost"]}
        figures[f"{name}_edge_mib"] = sum(map(resident_bytes, server.connection_pids())) / 2**20
    worst = max(figures[f"{name}_p99_ms"] for name in PHASES if name != "alive")
    return {"p99_times_alive": worst / figures["alive_p99_ms"], **figures}
