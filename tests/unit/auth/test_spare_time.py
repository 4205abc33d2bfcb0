"""Hashing in spare time: the real program, one that is starved, one that dies, one that is not there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

from services.auth.spare_time import SpareTime, patience_s
from tests.helpers.stack import ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

SALT = bcrypt.gensalt(4)
PASSWORD = b"AAAA"
DIGEST = bcrypt.hashpw(PASSWORD, SALT)
LONG_S = 60.0  # spare time may be long in coming where other tests run

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux only")


class Here:
    """Hashing in this process, counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, password: bytes, salt: bytes) -> bytes:
        self.count += 1
        return bcrypt.hashpw(password, salt)


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def spare_time(here: Here) -> Iterator[SpareTime]:
    made = SpareTime(processes=2, patience_s=LONG_S, here=here)
    yield made
    made.close()


def children() -> list[int]:
    """Of this process, from any of its threads."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", text)


def test_digests_are_those_of_bcrypt_and_are_made_by_idle_processes(spare_time: SpareTime, here: Here) -> None:
    before = set(children())
    assert spare_time(PASSWORD, SALT) == DIGEST
    assert spare_time(PASSWORD, DIGEST) == DIGEST  # as in a verification
    assert spare_time(b"BBBB", DIGEST) == bcrypt.hashpw(b"BBBB", SALT)
    [helper] = set(children()) - before
    assert os.sched_getscheduler(helper) == os.SCHED_IDLE
    assert here.count == 0


def test_each_thread_gets_its_own_answer(spare_time: SpareTime, here: Here) -> None:
    passwords = [f"{number:04}".encode() for number in range(200)]
    with ThreadPoolExecutor(4) as threads:
        digests = list(threads.map(lambda password: spare_time(password, SALT), passwords))
    assert digests == [bcrypt.hashpw(password, SALT) for password in passwords]
    # Two threads at a time find no process that is free.
    assert here.count < len(passwords)


def test_who_waits_too_long_is_hashed_for_here_and_a_late_answer_is_nobodys(here: Here, tmp_path: Path) -> None:
    time_to_spare = tmp_path / "time"
    late = script(
        "import os, sys, time\n"
        "for line in sys.stdin:\n"
        f"    while not os.path.exists({str(time_to_spare)!r}): time.sleep(0.01)\n"
        "    print('of', line.split()[0], flush=True)\n"
    )
    spare_time = SpareTime(processes=1, patience_s=0.05, program=late, here=here)
    try:
        assert spare_time(PASSWORD, SALT) == DIGEST
        assert here.count == 1
        began = time.monotonic()
        assert spare_time(PASSWORD, SALT) == DIGEST
        assert time.monotonic() - began < LONG_S / 2  # it was not asked again
        assert here.count == 2
        time_to_spare.touch()
        # What it is asked once it has caught up is answered by what belongs to it, not by what it owed.
        eventually(lambda: spare_time(b"BBBB", SALT) == b"of BBBB", timeout_s=LONG_S)
    finally:
        spare_time.close()


def test_a_process_that_dies_is_made_up_for_and_not_started_all_the_time(here: Here, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    dying = script(f"import sys; open({str(starts)!r}, 'a').write('x'); sys.stdin.readline()")
    spare_time = SpareTime(processes=1, patience_s=LONG_S, program=dying, here=here)
    try:
        for _ in range(5):
            assert spare_time(PASSWORD, SALT) == DIGEST
    finally:
        spare_time.close()
    assert here.count == 5
    assert starts.read_text() == "x"


def test_a_program_that_is_not_there_is_no_harm(here: Here, tmp_path: Path) -> None:
    spare_time = SpareTime(processes=1, patience_s=LONG_S, program=(str(tmp_path / "nothing"),), here=here)
    assert spare_time(PASSWORD, SALT) == DIGEST
    assert here.count == 1
    spare_time.close()


def test_without_processes_all_is_done_here(here: Here) -> None:
    before = set(children())
    spare_time = SpareTime(processes=0, patience_s=LONG_S, here=here)
    assert spare_time(PASSWORD, SALT) == DIGEST
    assert here.count == 1
    assert set(children()) <= before


def test_a_bad_salt_is_the_callers_mistake(spare_time: SpareTime) -> None:
    with pytest.raises(ValueError, match="salt"):
        spare_time(PASSWORD, b"no-salt")
    assert spare_time(PASSWORD, SALT) == DIGEST


def test_closing_ends_the_processes(here: Here) -> None:
    before = set(children())
    spare_time = SpareTime(processes=1, patience_s=LONG_S, here=here)
    spare_time(PASSWORD, SALT)
    assert set(children()) - before
    spare_time.close()
    spare_time.close()
    assert set(children()) <= before
    assert spare_time(PASSWORD, SALT) == DIGEST
    assert here.count == 1


def test_the_process_ends_with_its_service() -> None:
    """Also when the service is killed: its end of the pipe is closed then."""
    program = (
        "import os, sys\n"
        "from services.auth.spare_time import SpareTime\n"
        "spare = SpareTime(processes=1, patience_s=20)\n"
        f"spare({PASSWORD!r}, {SALT!r})\n"
        "print(spare._helpers[0].pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG_S, cwd=ROOT)
    pid = int(done.stdout)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=LONG_S)


def test_patience_follows_the_rounds() -> None:
    assert patience_s(12) == 1.0
    assert patience_s(13) == 2.0
