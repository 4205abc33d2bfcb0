"""The clock as a port: real time for the services, time that a test moves by hand for the tests.

Nothing but `__main__` makes a `SystemClock`; everything else takes a `Clock` as an argument, so that a test decides
what time it is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

# Turns of the event loop that `await clock.advance(…)` gives to those whom it woke. A woken task seldom needs more
# than three to reach its next wait; turns with nothing to do cost microseconds.
_SETTLE_TURNS = 20


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits. Zero or less gives the other tasks one turn."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits for `seconds`."""
        await asyncio.sleep(seconds)


class _Settled:
    """What `FakeClock.advance` returns: awaiting it lets the woken tasks run."""

    def __await__(self) -> Generator[None, None, None]:
        for _ in range(_SETTLE_TURNS):
            yield from asyncio.sleep(0).__await__()


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals: list[tuple[int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Unix time in seconds: `start` plus what was advanced."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._elapsed

    def jump(self, seconds: float) -> None:
        """Sets the time of day on or back. Nobody wakes, and the monotonic clock goes on as it was."""
        self._start += seconds

    @property
    def sleeper_count(self) -> int:
        """How many tasks wait in `sleep` now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Waits until a test has advanced the clock by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        for count, arrival in self._arrivals:
            if self.sleeper_count >= count and not arrival.done():
                arrival.set_result(None)
        await future

    def advance(self, seconds: float) -> Awaitable[None]:
        """Moves the time on at once and wakes, in the order of their times, whoever slept until then.

        The woken tasks run when the caller awaits: either what this returns, or anything else.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed + 1e-9:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
        return _Settled()

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Returns once at least `count` tasks wait in `sleep`: the moment at which a test may advance."""
        if self.sleeper_count >= count:
            return
        arrival = asyncio.get_running_loop().create_future()
        entry = (count, arrival)
        self._arrivals.append(entry)
        try:
            await arrival
        finally:
            self._arrivals.remove(entry)
