"""How long to wait before the next attempt: exponential, with full jitter, so that a crowd comes back spread out.

Full jitter (a uniform wait between nothing and the exponential bound) is what spreads a herd best for the same mean
wait: see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_BOUND_S = 1.0
"""A server that restarts is back in a second or so, and thousands who lost it are spread over that second."""

LARGEST_BOUND_S = 8.0
"""A server that is back sees everybody within 10 s, however long it was away. Two thousand who try every four seconds
are 500 attempts a second, which is no more than the first second after a loss brings."""

STABLE_AFTER_S = 10.0
"""A connection that lived this long was a good one: the next loss starts from the first bound again."""


class Backoff:
    """Counts attempts and says how long to wait; `uniform(a, b)` is the source of randomness."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._attempts = 0

    def next_delay_s(self) -> float:
        """The wait before the next attempt, in seconds."""
        bound = min(LARGEST_BOUND_S, FIRST_BOUND_S * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        return self._uniform(0.0, bound)

    def ended(self, *, lived_s: float) -> None:
        """A connection ended after `lived_s` seconds."""
        if lived_s >= STABLE_AFTER_S:
            self._attempts = 0
