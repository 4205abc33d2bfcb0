from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from deploy.local import child as child_module
from deploy.local import supervisor as module
from deploy.local.failures import StartError
from deploy.local.supervisor import Supervisor
from tests.helpers.stack import is_alive
from tests.unit.deploy.local import specs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from deploy.local.plan import Spec
    from deploy.local.stack_file import Entry


class Bench:
    """A supervisor of little processes, and what it told."""

    def __init__(self, made: list[Spec]) -> None:
        self.said: list[str] = []
        self.written: asyncio.Queue[dict[str, Entry]] = asyncio.Queue()
        self.supervisor = Supervisor(
            made,
            lock=0,
            say=self.said.append,
            write_stack_file=lambda entries: self.written.put_nowait({entry.name: entry for entry in entries}),
        )


@asynccontextmanager
async def running(tmp_path: Path, *names: str) -> AsyncIterator[Bench]:
    async with watched(Bench([specs.make(tmp_path, name) for name in names])) as bench:
        yield bench


@asynccontextmanager
async def watched(bench: Bench) -> AsyncIterator[Bench]:
    await bench.supervisor.start()
    watch = asyncio.create_task(bench.supervisor.watch())
    try:
        yield bench
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await bench.supervisor.stop()


async def test_stops_edges_first_and_metrics_last(tmp_path: Path) -> None:
    async with running(tmp_path, "metrics-1", "auth-1", "rooms-1", "edge-1", "edge-2") as bench:
        entries = await bench.written.get()
        assert list(entries) == ["metrics-1", "auth-1", "rooms-1", "edge-1", "edge-2"]
        assert all(is_alive(entry.pid) for entry in entries.values())
    order = (tmp_path / "notes").read_text().split()
    assert set(order[:2]) == {"edge-1", "edge-2"}
    assert set(order[2:4]) == {"auth-1", "rooms-1"}
    assert order[4:] == ["metrics-1"]
    assert (tmp_path / "notes.forewarned").read_text().split() == ["metrics-1"]
    assert not any(is_alive(entry.pid) for entry in entries.values())


async def test_what_dies_is_started_again_at_once_and_told(tmp_path: Path) -> None:
    async with running(tmp_path, "auth-1", "edge-1") as bench:
        before = await bench.written.get()
        os.kill(before["edge-1"].pid, signal.SIGKILL)
        after = await asyncio.wait_for(bench.written.get(), 20)
        assert after["edge-1"].pid != before["edge-1"].pid
        assert after["auth-1"] == before["auth-1"]
        assert bench.said[0] == "edge-1 died (killed by SIGKILL); starting it again at once"


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="a class of Linux's scheduler")
async def test_metrics_that_dies_again_and_again_starts_in_spare_time_and_the_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "SPARE_READY_S", 60.0)  # other tests run too, and leave little
    async with running(tmp_path, "metrics-1", "rooms-1") as bench:
        entries = await bench.written.get()
        classes: dict[str, list[int]] = {}
        for name in ("metrics-1", "rooms-1"):
            for _ in range(3):
                os.kill(entries[name].pid, signal.SIGKILL)
                entries = await asyncio.wait_for(bench.written.get(), 60)
                classes.setdefault(name, []).append(os.sched_getscheduler(entries[name].pid))
        assert classes["metrics-1"] == [os.SCHED_OTHER, os.SCHED_IDLE, os.SCHED_IDLE]
        assert set(classes["rooms-1"]) == {os.SCHED_OTHER}


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="a class of Linux's scheduler")
async def test_metrics_that_finds_no_spare_time_is_started_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = "import os, time\nif os.sched_getscheduler(0) == os.SCHED_IDLE: time.sleep(60)\n"
    monkeypatch.setattr(child_module, "SPARE_READY_S", 0.2)
    bench = Bench([specs.make(tmp_path, "metrics-1", never + specs.SERVES)])
    async with watched(bench):
        entries = await bench.written.get()
        os.kill(entries["metrics-1"].pid, signal.SIGKILL)
        entries = await asyncio.wait_for(bench.written.get(), 20)
        os.kill(entries["metrics-1"].pid, signal.SIGKILL)
        in_vain = await asyncio.wait_for(bench.written.get(), 20)
        served = await asyncio.wait_for(bench.written.get(), 20)
        assert served["metrics-1"].pid != in_vain["metrics-1"].pid
        assert os.sched_getscheduler(served["metrics-1"].pid) == os.SCHED_OTHER
        assert "metrics-1 did not serve within 0.2 s" in bench.said


async def test_a_process_that_does_not_come_up_fails_the_start(tmp_path: Path) -> None:
    bench = Bench([specs.make(tmp_path, "metrics-1"), specs.make(tmp_path, "auth-1", specs.DIES)])
    with pytest.raises(StartError, match="auth-1 did not start"):
        await bench.supervisor.start()
    await bench.supervisor.stop()
    assert bench.written.empty()


async def test_a_program_that_is_missing_fails_the_start(tmp_path: Path) -> None:
    spec = specs.make(tmp_path, "auth-1")
    object.__setattr__(spec, "command", (str(tmp_path / "none"),))
    bench = Bench([spec])
    with pytest.raises(StartError, match="auth-1 cannot be started"):
        await bench.supervisor.start()
    await bench.supervisor.stop()


async def test_who_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.2)
    bench = Bench([specs.make(tmp_path, "rooms-1", specs.IGNORES_SIGTERM)])
    await bench.supervisor.start()
    pid = (await bench.written.get())["rooms-1"].pid
    await bench.supervisor.stop()
    assert not is_alive(pid)
    assert "is killed" in bench.said[-1]


async def test_impatience_kills_everything(tmp_path: Path) -> None:
    bench = Bench([specs.make(tmp_path, "rooms-1", specs.IGNORES_SIGTERM)])
    await bench.supervisor.start()
    pid = (await bench.written.get())["rooms-1"].pid
    bench.supervisor.kill()
    await bench.supervisor.stop()
    assert not is_alive(pid)


async def test_a_full_disk_does_not_end_the_stack(tmp_path: Path) -> None:
    bench = Bench([specs.make(tmp_path, "rooms-1")])

    def fail(_: list[Entry]) -> None:
        raise OSError(28, "No space left on device")

    bench.supervisor._write_stack_file = fail
    await bench.supervisor.start()
    await bench.supervisor.stop()
    assert bench.said == ["run/stack.json cannot be written: [Errno 28] No space left on device"]


async def test_a_restart_goes_from_one_process_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, "rooms-1", "edge-1", "edge-2") as bench:
        before = await bench.written.get()
        assert await asyncio.wait_for(bench.supervisor.restart(), 60)
        states = [await bench.written.get() for _ in before]
        assert bench.written.empty()
        for number, state in enumerate(states):
            renewed = [name for name in before if state[name].pid != before[name].pid]
            assert renewed == list(before)[: number + 1]
        assert bench.said == [f"{name} serves again" for name in before]
        assert all(is_alive(entry.pid) for entry in states[-1].values())


async def test_a_restart_ends_at_a_process_that_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "rooms-1", "edge-1") as bench:
        before = await bench.written.get()

        async def fails(*_: object, **__: object) -> None:
            raise OSError("no memory")

        with monkeypatch.context() as patch:
            patch.setattr(module.Child, "start", fails)
            assert not await asyncio.wait_for(bench.supervisor.restart(), 60)
        after = await asyncio.wait_for(bench.written.get(), 60)  # it is started again like one that died
        assert after["rooms-1"].pid != before["rooms-1"].pid
        assert after["edge-1"] == before["edge-1"]
