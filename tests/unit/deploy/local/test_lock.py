from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from deploy.local import lock
from deploy.local.failures import StartError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_one_is_refused_while_the_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock.acquire(path, home=tmp_path)
    with pytest.raises(StartError, match=f"process {os.getpid()}.*{tmp_path}"):
        lock.acquire(path, home=tmp_path, sleep=lambda _: pytest.fail("waited"))
    held.release()
    lock.acquire(path, home=tmp_path).release()


def test_a_child_that_inherited_it_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock.acquire(path, home=tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], pass_fds=(held.descriptor,), stdin=subprocess.PIPE, text=True
    )
    try:
        held.release()
        path.write_text("999999999")  # as if the supervisor had been killed
        naps: list[float] = []

        def end_the_child(seconds: float) -> None:
            naps.append(seconds)
            child.kill()
            child.wait()

        lock.acquire(path, home=tmp_path, sleep=end_the_child).release()
        assert naps
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()


def test_waiting_for_dying_children_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock.acquire(path, home=tmp_path)
    path.write_text("")
    naps: list[float] = []
    with pytest.raises(StartError, match="unknown"):
        lock.acquire(path, home=tmp_path, sleep=naps.append)
    assert sum(naps) == pytest.approx(lock.DYING_S, abs=lock.POLL_S)
    held.release()
