"""The processes of a stack, as run/stack.json knows them at the moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.02
SERVES_S = 60.0


class Processes:
    """A stack's processes by name: edge-1, rooms-1, auth-1, metrics-1 and so on."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def read(self) -> dict[str, dict[str, Any]]:
        """The entries of run/stack.json, by name."""
        document = json.loads((self._home / "run" / "stack.json").read_text())
        return {entry["name"]: entry for entry in document["processes"]}

    def pid(self, name: str) -> int:
        """The process's id."""
        return int(self.read()[name]["pid"])

    def signal(self, name: str, number: signal.Signals) -> int:
        """Sends a signal; returns the id of the process that got it."""
        pid = self.pid(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def is_serving(self, name: str) -> bool:
        """Whether it has said that it is ready."""
        try:
            ready = json.loads((self._home / "run" / f"{name}.ready.json").read_text())
            return bool(ready["pid"] == self.pid(name))
        except (FileNotFoundError, ValueError):
            return False

    async def until_serving(self, name: str, *, other_than: int = 0) -> None:
        """Waits until it serves, as another process than the one before. Raises TimeoutError."""
        async with asyncio.timeout(SERVES_S):
            while self.pid(name) == other_than or not self.is_serving(name):  # noqa: ASYNC110 -- nobody tells us
                await asyncio.sleep(POLL_S)
