"""A program in a pseudo-terminal, and the screen that a person would see."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

import pexpect
import pyte

PATIENCE_S = 20.0
READ_BYTES = 65_536
# Less than it takes to draw a line of progress anew: between two such reads nothing appears and goes again.
CLOSE_BYTES = 128


class _Screen(pyte.Screen):
    """A screen that answers what terminals answer, such as where the cursor is."""

    answer: Callable[[bytes], object] | None = None

    def write_process_input(self, data: str) -> None:
        if self.answer is not None:
            self.answer(data.encode())


class TerminalProgram:
    """Runs a program and keeps its screen; every wait ends as soon as what it waits for is there."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 80, lines: int = 24, env: Mapping[str, str], cwd: str
    ) -> None:
        self.screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.child = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(lines, columns), env=dict(env), cwd=cwd, timeout=PATIENCE_S
        )
        self.screen.answer = self.child.send

    @property
    def text(self) -> str:
        """What is on the screen, without the spaces at the ends of lines."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen that are not empty."""
        return [line for line in self.text.splitlines() if line]

    def type(self, keys: str) -> None:
        self.child.send(keys.encode())

    def enter(self, line: str) -> None:
        self.type(line + "\r")

    def wait_for(self, what: str | Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
        """Reads until a text is on the screen, or until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not (what() if callable(what) else what in self.text):
            if not self._read(deadline):
                raise AssertionError(f"it never came: {what!r}; the screen is:\n{self.text}")

    def find(self, pattern: str, *, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """Reads until something on the screen fits, and misses nothing, however shortly it is there."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.text)):
            if not self._read(deadline, CLOSE_BYTES):
                raise AssertionError(f"it never came: {pattern!r}; the screen is:\n{self.text}")
        return found

    def wait_for_end(self) -> int:
        """Reads until the program has ended; returns its exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        self.child.close()
        assert self.child.exitstatus is not None, f"ended by signal {self.child.signalstatus}"
        return self.child.exitstatus

    def _read(self, deadline: float, size: int = READ_BYTES) -> bool:
        try:
            data = self.child.read_nonblocking(size, timeout=max(0.0, deadline - time.monotonic()))
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self.output += data
        self._stream.feed(data)
        return True

    def close(self) -> None:
        self.child.close(force=True)
