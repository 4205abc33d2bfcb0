"""When requests are due, and how many workers there are: ghz's schedules as plain arithmetic. Pure.

A schedule is a row of stretches of time with a constant value each, the last of them without an end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.ghz.durations import SECOND_NS

STRETCHES_MAX = 1_000_000
"""So that a schedule that sinks to nothing ends."""


@dataclass(frozen=True)
class Stretch:
    """From `start_ns` after the beginning, `value` holds: requests per second, or workers."""

    start_ns: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A value that begins at `start` and changes by `step` every `step_ns`.

    It stays at `end` once it would pass it, or from `max_ns` on (then at `end`, or where it is without one).
    """

    start: int
    step: int
    step_ns: int
    end: int = 0
    max_ns: int = 0

    def stretches(self) -> Iterator[Stretch]:
        """The schedule; never below 0. Ends when the value has come to rest."""
        for number in range(STRETCHES_MAX):
            start_ns = number * self.step_ns
            value = max(0, self.start + number * self.step)
            if self.max_ns and start_ns >= self.max_ns:
                yield Stretch(self.max_ns, self.end or max(0, self.start + (self.max_ns // self.step_ns) * self.step))
                return
            if not self.max_ns and self.end and self._is_past_end(value):
                yield Stretch(start_ns, self.end)
                return
            yield Stretch(start_ns, value)
            if value == 0 and self.step < 0 and not self.max_ns:
                return

    def _is_past_end(self, value: int) -> bool:
        return value > self.end if self.step > 0 else value < self.end


def constant(value: int) -> Iterator[Stretch]:
    """A schedule that never changes."""
    yield Stretch(0, value)


def due_times(rates: Iterable[Stretch]) -> Iterator[int]:
    """Nanoseconds after the beginning at which request 0, 1, 2 … is due. Ends when the rate has come to rest at 0.

    The first request of a rate r is due after 1/r: a schedule says how many there were, not when they begin.
    """
    hits = 0.0  # that the schedule has by the beginning of the stretch
    number = 1  # of the next request, counted from 1
    for stretch, following in _with_following(rates):
        if following is None:
            if not stretch.value:
                return
            while True:
                yield stretch.start_ns + round((number - hits) / stretch.value * SECOND_NS)
                number += 1
        hits_after = hits + stretch.value * (following.start_ns - stretch.start_ns) / SECOND_NS
        while number <= hits_after and stretch.value:
            yield stretch.start_ns + round((number - hits) / stretch.value * SECOND_NS)
            number += 1
        hits = hits_after


def at_once() -> Iterator[int]:
    """Every request is due at the beginning: as fast as the workers can."""
    return itertools.repeat(0)


def _with_following(stretches: Iterable[Stretch]) -> Iterator[tuple[Stretch, Stretch | None]]:
    remaining = iter(stretches)
    stretch = next(remaining, None)
    while stretch is not None:
        following = next(remaining, None)
        yield stretch, following
        stretch = following
