"""A private stack for a test: `parley up` in a temporary home, on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from deploy.local import lifeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 60.0  # the product promises 10 on an installed machine; a busy test machine is not one
STOP_S = 30.0
POLL_S = 0.02
_PORTS = range(12_000, 19_000)
_given: set[int] = set()  # by this process

# Registering and logging in would otherwise cost a quarter of a second of CPU each, and all tests share one address.
# Without time for them, metrics draws no last graphs when it ends, which takes seconds; nor does it draw any by itself
# while a test runs, for who asks for a drawing meanwhile is told to come back later.
FAST_CONFIG = (
    "[auth]\nbcrypt_rounds = 4\nthrottle = false\n[metrics]\nstop_grace_s = 0.1\ngraphs_interval_s = 86_400.0\n"
)


def parley(*arguments: str) -> list[str]:
    """The command line of `parley …` with this interpreter, whether or not its scripts are on the PATH."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


def free_ports(count: int = 1) -> int:
    """The first of `count` neighbouring ports that are free, none of which was given out before, as long as there are.

    Chosen at random below the kernel's ephemeral range, so that parallel test runs and restarts do not collide. The
    workers of one run have a part of the ports each: none takes what another has chosen and not opened yet.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    part = len(_PORTS) // workers
    for attempt in range(1_000):
        if attempt == 500:
            _given.clear()
        first = _PORTS[worker * part] + random.randrange(part - count + 1)
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(map(_is_free, ports)):
            _given.update(ports)
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def eventually(is_so: Callable[[], object], *, timeout_s: float = 20.0, why: str = "did not happen") -> None:
    """Waits until `is_so` holds."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"{why} within {timeout_s:g} s"
        time.sleep(POLL_S)


def whole_lines(path: Path, start: int = 0) -> list[str]:
    """The lines of a log from a byte on. One that is just being written may be there in part, and is left out."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read().rpartition(b"\n")[0].decode().splitlines()


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status[0] not in "ZX"


class Stack:
    """One home and the stack that runs in it, or does not at the moment."""

    def __init__(
        self,
        home: Path,
        *,
        edges: int = 1,
        config: str = FAST_CONFIG,
        environment: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """`extra` are further arguments of `parley up`."""
        self.home = home
        self.edges = edges
        self.extra = extra
        self.port = free_ports(edges)
        self.environment = {**os.environ, **(environment or {})}
        self.config = home / "test.toml"
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []  # all lines of stderr and stdout
        self._readers: list[threading.Thread] = []
        home.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config)

    @property
    def arguments(self) -> list[str]:
        return [
            "--home", str(self.home), "--port", str(self.port), "--edges", str(self.edges),
            "--config", str(self.config), *self.extra,
        ]  # fmt: skip

    def start(self) -> Self:
        """Starts it and waits for the ready line."""
        self.output = []
        tests = os.getpid()
        self.process = subprocess.Popen(
            parley("up", *self.arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            preexec_fn=lambda: lifeline.tie_to(tests, number=signal.SIGTERM),  # noqa: PLW1509 -- one call of prctl
        )
        reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        reader.start()
        self._readers.append(reader)
        eventually(lambda: self.is_ready or not reader.is_alive(), timeout_s=READY_S, why=f"not ready: {self.output}")
        assert self.is_ready, f"`parley up` ended with status {self.process.poll()}: {self.output}"
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                self.output.append(line.rstrip())

    @property
    def is_ready(self) -> bool:
        return any(line.startswith("ready") for line in self.output)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self._join()

    def kill_all(self) -> None:
        """kill -9 of every process at once, the supervisor first so that it revives nobody."""
        assert self.process is not None
        pids = [self.process.pid, *self.pids().values()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._join()
        eventually(lambda: not any(map(is_alive, pids)), why="a killed process lives on")

    def _join(self) -> int:
        assert self.process is not None
        status = self.process.wait(STOP_S)
        for reader in self._readers:
            reader.join(STOP_S)
        self._readers.clear()
        self.process = None
        return status

    def close(self) -> None:
        """Ends it by whatever works."""
        if self.process is None:
            return
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill_all()

    def info(self) -> dict[str, Any]:
        """run/stack.json."""
        document: dict[str, Any] = json.loads((self.home / "run" / "stack.json").read_text())
        return document

    def processes(self) -> dict[str, dict[str, Any]]:
        return {process["name"]: process for process in self.info()["processes"]}

    def pids(self) -> dict[str, int]:
        return {name: process["pid"] for name, process in self.processes().items()}

    @property
    def ca(self) -> str:
        return str(self.info()["client_ca"])

    def kill(self, name: str) -> None:
        """kill -9 of one service; returns when its successor runs and serves."""
        before = self.pids()[name]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pids()[name] != before, why=f"{name} was not restarted")
        eventually(lambda: self.serves(name), timeout_s=READY_S, why=f"{name} does not serve")

    def serves(self, name: str) -> bool:
        """Whether a process that is meant to run does, and has said that it is ready."""
        try:
            ready = json.loads((self.home / "run" / f"{name}.ready.json").read_text())
        except FileNotFoundError:
            return False
        return bool(ready["pid"] == self.pids()[name]) and is_alive(ready["pid"])

    def log_text(self) -> str:
        """Everything in logs/server.log and in the terminal so far."""
        path = self.home / "logs" / "server.log"
        return (path.read_text() if path.exists() else "") + "\n".join(self.output)

    def log_events(self) -> list[dict[str, Any]]:
        """The lines of logs/server.log, each of which must be JSON."""
        return [json.loads(line) for line in whole_lines(self.home / "logs" / "server.log")]

    def cpu_s(self) -> float:
        """CPU time of all processes so far."""
        assert self.process is not None
        ticks = 0
        for pid in (self.process.pid, *self.pids().values()):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_kib(self, name: str) -> int:
        """Resident memory of one process."""
        for line in Path(f"/proc/{self.pids()[name]}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")


@contextlib.contextmanager
def running_stack(**options: Any) -> Iterator[Stack]:
    """A stack in a home of its own that is deleted afterwards."""
    home = Path(tempfile.mkdtemp(prefix="parley-test-"))
    stack = Stack(home, **options)
    try:
        yield stack.start()
    finally:
        stack.close()
        shutil.rmtree(home, ignore_errors=True)
