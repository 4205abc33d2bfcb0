"""Time as the client takes it: a port, so that tests decide how late it is."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits; `now` is Unix time, `monotonic` never jumps; both in seconds."""

    def now(self) -> float:
        """Unix time, for people."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, for intervals."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Waits."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float, /) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
