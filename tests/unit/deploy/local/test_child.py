from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from deploy.local.child import Child
from deploy.local.failures import StartError
from tests.helpers.stack import ROOT, eventually, is_alive
from tests.unit.deploy.local import specs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lock() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


async def test_serves_and_ends_when_asked(tmp_path: Path, lock: int) -> None:
    child = await Child.start(specs.make(tmp_path, "edge-1"), lock=lock, say=pytest.fail)
    await child.wait_ready()
    assert child.entry.pid == child.pid
    assert child.entry.client_port == 8888
    child.terminate()
    await child.wait()
    assert child.explain_end() == "status 0"


async def test_starts_like_the_others_where_spare_time_is_forbidden(
    tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbid, raising=False)
    child = await Child.start(specs.make(tmp_path, "metrics-1"), lock=lock, say=pytest.fail, in_spare_time=True)
    await child.wait_ready()
    child.terminate()
    await child.wait()


async def test_an_early_death_is_explained(tmp_path: Path, lock: int) -> None:
    said: list[str] = []
    child = await Child.start(specs.make(tmp_path, "auth-1", specs.DIES), lock=lock, say=said.append)
    with pytest.raises(StartError, match=r"auth-1 did not start: status 3\n  it broke"):
        await child.wait_ready()
    assert said == ["auth-1: configuration: PARLEY_X: bad"]


async def test_a_ready_file_of_another_process_does_not_count(tmp_path: Path, lock: int) -> None:
    program = specs.DIES.replace("import sys", "import sys, os; open(os.environ['READY'], 'w').write('{\"pid\": 1}')")
    child = await Child.start(specs.make(tmp_path, "auth-1", program), lock=lock, say=lambda _: None)
    with pytest.raises(StartError, match="did not start"):
        await child.wait_ready()


async def test_a_long_line_is_cut_and_output_never_blocks_the_child(tmp_path: Path, lock: int) -> None:
    said: list[int] = []
    program = "print('x' * 1_000_000); print('y', end='')"
    child = await Child.start(
        specs.make(tmp_path, "auth-1", program), lock=lock, say=lambda line: said.append(len(line))
    )
    await child.wait()
    assert sum(said) - len(said) * len("auth-1: ") == 1_000_001
    assert max(said) < 300_000


async def test_what_a_child_started_goes_with_it(tmp_path: Path, lock: int) -> None:
    program = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1).pid, flush=True)
input()
"""
    said: list[str] = []
    child = await Child.start(specs.make(tmp_path, "metrics-1", program), lock=lock, say=said.append)
    await child.wait()  # its input is empty: it fails and leaves a grandchild behind
    grandchild = int(said[0].rpartition(" ")[2])
    eventually(lambda: not is_alive(grandchild), why="the grandchild lives on")
    assert "EOFError" in said[-1]


def test_a_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    program = """
import asyncio, os, pathlib, sys
from deploy.local.child import Child
from tests.unit.deploy.local import specs
async def main():
    child = await Child.start(specs.make(pathlib.Path(sys.argv[1]), "edge-1"), lock=0, say=print)
    await child.wait_ready()
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert supervisor.stdout is not None
    with supervisor.stdout as output:
        child = int(output.readline())
        assert is_alive(child)
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    eventually(lambda: not is_alive(child), why="the child lives on")
