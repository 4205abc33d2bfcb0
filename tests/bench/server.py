"""A server under test: started on core 0 with TLS, watched through its CPU clocks, stopped by its process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import profiling
from tests.bench.link import Link

SERVER_CORE = 0
DRIVER_CORE = 1


@dataclass(frozen=True)
class Certificates:
    """What a server needs to speak TLS, and a client to check it."""

    ca: Path
    certificate: Path
    private_key: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """CPU time of a whole process, all threads, by its CPU clock (clock_getcpuclockid(3)); 0.0 when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


class Server:
    """What the workloads need of a server; a subclass speaks its protocol."""

    name = ""
    program = ""
    keeps = "no"
    """Whether messages are stored, and how safely."""
    echoes = True
    """Whether a sender that is in the room gets its own message."""
    connections_max = 60_000
    """How many connections it was seen to take on one machine."""
    confirmation = b""
    """What occurs once for each message in what the sender reads back; empty where there is no such thing."""
    sends_as_member = True
    """Whether the connection that sends may be a member of the room."""

    def __init__(self, home: Path, certificates: Certificates) -> None:
        self.home = home
        self.certificates = certificates
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.profile: dict[tuple[str, str], float] | None = None
        """Set to {} where a profile is wanted; a workload fills it, the last measured part if there are several."""
        self._cpu_by_pid: dict[int, float] = {}
        self.context = ssl.create_default_context(cafile=str(certificates.ca))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        home.mkdir(parents=True, exist_ok=True)

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") is not None

    async def start(self) -> None:
        raise NotImplementedError

    async def open(self, user: str) -> Link:
        """A connection that is logged in as the user."""
        raise NotImplementedError

    async def join(self, link: Link, room: str) -> None:
        raise NotImplementedError

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        """The bytes that send a text to a room."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        return descendants(self.process.pid) if self.process else []

    def connection_pids(self) -> list[int]:
        """The processes that hold client connections."""
        return self.pids()

    def cpu(self) -> float:
        """CPU seconds of all processes so far, those that have ended meanwhile as they were last seen."""
        for pid in self.pids():
            self._cpu_by_pid[pid] = max(self._cpu_by_pid.get(pid, 0.0), cpu_seconds(pid))
        return sum(self._cpu_by_pid.values())

    def memory(self) -> int:
        """Resident bytes of the processes that hold client connections."""
        return sum(resident_bytes(pid) for pid in self.connection_pids())

    def names(self) -> dict[int, str]:
        """What the processes are called in a profile."""
        return dict.fromkeys(self.pids(), self.name)

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Around the measured part of a workload: profiled where that is wanted."""
        if self.profile is None:
            yield
            return
        file, names = self.home / "perf.data", self.names()
        async with profiling.recording(list(names), file):
            yield
        self.profile = await asyncio.to_thread(profiling.shares, file, names)

    async def own_figures(self) -> dict[str, float]:
        """What the server says of itself after a workload."""
        return {}

    def spawn(self, *arguments: str, **options: object) -> None:
        path = shutil.which(self.program, path=os.environ["PATH"] + ":/usr/sbin") or self.program
        log = (self.home / "output.log").open("wb")
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),  # noqa: PLW1509 - the driver has one thread
            **options,
        )

    async def wait_for_port(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
            except OSError:
                if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                    raise RuntimeError(f"{self.name} did not start: see {self.home}/output.log") from None
                await asyncio.sleep(0.05)
            else:
                return

    async def connect(self) -> Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(Link, "127.0.0.1", self.port)
        await link.secure(self.context)
        return link

    def stop(self) -> None:
        """Ends the process and whatever it started and left behind."""
        if self.process is None:
            return
        started = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def make_home(kind: type[Server]) -> Path:
    """A temporary folder that a server which runs under an account of its own can read."""
    home = Path(tempfile.mkdtemp(prefix=f"parley-bench-{kind.name}-"))
    home.chmod(0o755)
    return home
