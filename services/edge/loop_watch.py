"""The loop watch: how late the event loop wakes somebody who asked for it, which is how long something held it up.

Everybody on an edge shares one loop, so its longest turn is what the most urgent frame can have before it.
"""

from __future__ import annotations

from typing import Final

from services.common.clock import Clock
from services.common.counters import Counters

INTERVAL_S: Final = 0.01
"""Asked for so often: a hold-up is seen at most this much shorter than it was, for about 0.1 % of a core."""

_BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class LoopWatch:
    """Measures while `run` runs. What the machine gives to other processes meanwhile counts too."""

    def __init__(self, counters: Counters, clock: Clock) -> None:
        self._clock = clock
        self.longest_s = 0.0
        self._lateness = counters.histogram(
            "parley.edge.loop.lateness", "s", _BOUNDS_S, "How late the event loop woke a timer."
        )
        counters.gauge(
            "parley.edge.loop.lateness.max",
            "s",
            "The latest that the event loop has woken a timer since the start.",
            lambda: self.longest_s,
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = self._clock
        while True:
            due = clock.monotonic() + INTERVAL_S
            await clock.sleep(INTERVAL_S)
            late_s = max(0.0, clock.monotonic() - due)
            self._lateness.observe(late_s)
            if late_s > self.longest_s:
                self.longest_s = late_s
