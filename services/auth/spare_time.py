"""bcrypt in spare CPU time: in processes that run only where nobody else on the machine wants to.

A thread that hashes, however nice, is one more that the kernel shares CPU time out to: who wakes up with a message
waits for its turn to end. A process of the class SCHED_IDLE gives way at once. It is a process and not a thread because
one that has to wait for spare time may not hold the interpreter's lock meanwhile.

Where there is no spare time, nobody may be kept out for that: who has waited for four times what a hash takes is hashed
for here, and so is everybody else until that process has caught up.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import bcrypt

from services.common.logs import get_logger

Bcrypt = Callable[[bytes, bytes], bytes]
"""The digest of a password with a salt (or with a digest, which begins with its salt)."""

ROUNDS_MIN: Final = 10
"""Of bcrypt: fewer take less than a tenth of a second, and nobody waits for that to end."""

_ROUNDS_A_SECOND: Final = 14
"""2 to the power of this take about a second."""

_STARTS_AGAIN_AFTER_S: Final = 10.0
"""Where a process cannot be started, or has died: it is a help, and nobody waits for it."""

_IMPORT_ROOT: Final = Path(__file__).resolve().parents[2]
_log = get_logger(__name__)
_PROGRAM: Final = (sys.executable, "-P", "-m", "services.auth.bcrypt_process")


def patience_s(rounds: int) -> float:
    """How long to wait for spare time, with that many rounds: a second for 12."""
    return 4 * 2.0 ** (rounds - _ROUNDS_A_SECOND)


class SpareTime:
    """A `Bcrypt` with at most `processes` of them, started when they are wanted. May be called from any thread."""

    def __init__(
        self,
        *,
        processes: int,
        patience_s: float,
        program: tuple[str, ...] = _PROGRAM,
        here: Bcrypt = bcrypt.hashpw,
    ) -> None:
        self._processes = processes
        self._patience_s = patience_s
        self._program = program
        self._here = here
        self._lock = threading.Lock()
        self._helpers: list[_Helper] = []
        self._next_start = 0.0
        self._is_closed = not hasattr(os, "SCHED_IDLE")  # not Linux

    def __call__(self, password: bytes, salt: bytes) -> bytes:
        """See `Bcrypt`. Raises ValueError where the salt is none."""
        helper = self._take()
        if helper is not None:
            try:
                digest = helper.ask(password, salt, self._patience_s)
            except OSError:
                self._drop(helper)
            else:
                helper.is_taken = False
                if digest is not None:
                    return digest
        return self._here(password, salt)

    def close(self) -> None:
        """Ends the processes, when nobody asks them any more. Idempotent; who calls later is hashed for here."""
        with self._lock:
            self._is_closed = True
            helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.end()

    def _take(self) -> _Helper | None:
        """One that is free, or a new one; None where all are busy or behind."""
        with self._lock:
            if self._is_closed:
                return None
            for helper in self._helpers:
                if not helper.is_taken and helper.has_caught_up():
                    helper.is_taken = True
                    return helper
            if len(self._helpers) >= self._processes or time.monotonic() < self._next_start:
                return None
            try:
                helper = _Helper(self._program)
            except OSError as error:
                _log.warning("no process that hashes", reason=str(error))
                self._next_start = time.monotonic() + _STARTS_AGAIN_AFTER_S
                return None
            self._helpers.append(helper)
            return helper

    def _drop(self, helper: _Helper) -> None:
        _log.warning("a process that hashes has ended", pid=helper.pid)
        with self._lock:
            self._next_start = time.monotonic() + _STARTS_AGAIN_AFTER_S
            if helper in self._helpers:
                self._helpers.remove(helper)
        helper.end()


class _Helper:
    """One process. Who has taken it (`is_taken`) alone asks it. Raises OSError where it cannot be started."""

    def __init__(self, program: tuple[str, ...]) -> None:
        path = os.pathsep.join(filter(None, (str(_IMPORT_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(  # noqa: S603 - the program is ours
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions = self._process.stdin
        self._answers = self._process.stdout
        self._heard = b""
        self._owed = 0  # answers to those who did not wait
        self.is_taken = True

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, password: bytes, salt: bytes, patience_s: float) -> bytes | None:
        """The digest; None where it is not there in time. Raises OSError where the process has ended."""
        self._questions.write(password + b" " + salt + b"\n")
        self._owed += 1
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            if (digest := self._listen(left_s)) is not None:
                return digest
        return None

    def has_caught_up(self) -> bool:
        """Whether it owes nothing any more. Does not wait."""
        try:
            while self._owed and self._listen(0) is not None:
                pass
        except OSError:
            return True  # who asks it finds out
        return self._owed == 0

    def end(self) -> None:
        """Kills it, so that nobody waits for its spare time."""
        self._process.kill()
        self._process.wait()
        self._questions.close()
        self._answers.close()

    def _listen(self, timeout_s: float) -> bytes | None:
        if b"\n" not in self._heard:
            ready = select.poll()  # select(2) knows no descriptor above 1,023
            ready.register(self._answers, select.POLLIN)
            if not ready.poll(timeout_s * 1_000):
                return None
            said = self._answers.read(4_096)
            if not said:
                raise BrokenPipeError("the process has ended")
            self._heard += said
        answer, newline, rest = self._heard.partition(b"\n")
        if not newline:
            return None
        self._heard = rest
        self._owed -= 1
        return answer
