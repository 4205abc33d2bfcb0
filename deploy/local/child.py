"""One process of the stack: start it, wait until it serves, watch it, end it.

A child never outlives its supervisor: the kernel kills it when the supervisor dies, however that happens. It sits
in a process group of its own, so that Ctrl-C reaches only the supervisor, which then ends everything in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from deploy.local import lifeline
from deploy.local.failures import StartError
from deploy.local.stack_file import Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deploy.local.plan import Spec

SPARE_READY_S = 5.0  # on a machine that has no spare time
READY_S = 60.0  # generous: a loaded machine may take long to import everything; a dead process is seen at once
POLL_S = 0.02
LINE_BYTES_MAX = 65_536  # of one line of a child's output; a longer one is cut into several
_COMPLAINTS = 8  # how many of the last log lines of level error are kept to explain an early death


class Child:
    """A running process. `say` takes each line of its output that is not a log line."""

    def __init__(
        self, spec: Spec, process: asyncio.subprocess.Process, say: Callable[[str], None], *, ready_s: float
    ) -> None:
        self.spec = spec
        self._ready_s = ready_s
        self.was_too_slow = False  # to serve in time
        self.pid = process.pid
        self.started_at = time.monotonic()
        self._process = process
        self._say = say
        self._complaints: deque[str] = deque(maxlen=_COMPLAINTS)
        self._output = asyncio.create_task(self._read_output(), name=f"output of {spec.name}")

    @classmethod
    async def start(cls, spec: Spec, *, lock: int, say: Callable[[str], None], in_spare_time: bool = False) -> Child:
        """Starts the process. `lock` is the descriptor that it inherits. Raises OSError.

        With `in_spare_time` it runs, for all of its life, only where nobody else wants the core.
        """
        spec.ready_file.unlink(missing_ok=True)
        supervisor = os.getpid()

        def prepare() -> None:
            lifeline.tie_to(supervisor)
            if in_spare_time and sys.platform == "linux":
                with contextlib.suppress(OSError):  # a sandbox may forbid it: then it starts like the others
                    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        process = await asyncio.create_subprocess_exec(
            *spec.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **spec.environment},
            pass_fds=(lock,),
            process_group=0,
            preexec_fn=prepare,
        )
        return cls(spec, process, say, ready_s=SPARE_READY_S if in_spare_time else READY_S)

    @property
    def entry(self) -> Entry:
        """The process's line in run/stack.json."""
        spec = self.spec
        return Entry(
            name=spec.name, pid=self.pid, grpc=spec.grpc, prometheus=spec.prometheus, client_port=spec.client_port
        )

    @property
    def lived_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started_at

    async def wait_ready(self) -> None:
        """Waits until the process says that it serves. Raises StartError when it dies or takes too long."""
        deadline = self.started_at + self._ready_s
        while not _is_ready(self.spec.ready_file, pid=self.pid):
            if self._process.returncode is not None:
                await self.wait()
                raise StartError(f"{self.spec.name} did not start: {self.explain_end()}")
            if time.monotonic() > deadline:
                self.was_too_slow = True
                raise StartError(f"{self.spec.name} did not serve within {self._ready_s:g} s")
            await asyncio.sleep(POLL_S)

    async def wait(self) -> None:
        """Waits for the end of the process and of what it had to say."""
        await self._process.wait()
        self._signal_group(signal.SIGKILL)  # whatever it had started itself
        await asyncio.wait({self._output})  # not `await`: a cancelled caller must not cancel the reading

    def explain_end(self) -> str:
        """How the process ended, for a person."""
        status = self._process.returncode
        text = f"killed by {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
        return "\n  ".join([text, *self._complaints])

    def terminate(self) -> None:
        """Asks it to drain and end."""
        if self._process.returncode is None:
            self._process.terminate()

    def forewarn(self) -> None:
        """Tells it that it will be asked to end soon. Only once it serves: before that the signal would end it."""
        if self._process.returncode is None and _is_ready(self.spec.ready_file, pid=self.pid):
            self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Ends it now; `wait` waits for that."""
        if self._process.returncode is None:
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in the group
            os.killpg(self.pid, number)

    async def _read_output(self) -> None:
        """Passes on what is not a log line. Log lines are in the log file already."""
        stream = self._process.stdout
        assert stream is not None, "started with a pipe"
        rest = b""
        while data := await stream.read(LINE_BYTES_MAX):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._take_line(line.decode(errors="replace").rstrip())
        if rest:
            self._take_line(rest.decode(errors="replace").rstrip())

    def _take_line(self, line: str) -> None:
        if not line.startswith("{"):
            self._say(f"{self.spec.name}: {line}")
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event.get("level") in {"error", "critical"}:
            self._complaints.append(str(event.get("exception") or event.get("error") or event.get("event")))


def _is_ready(path: Path, *, pid: int) -> bool:
    """Whether the process `pid` has written its ready file, which it does in one step."""
    try:
        return bool(json.loads(path.read_bytes())["pid"] == pid)
    except FileNotFoundError:
        return False
