"""The pace of files: while people talk, files take only as much of the machine as leaves those people's texts fast.

What slows chat down beside a file is not the event loop, whose turns stay short, but the processor: the edge, rooms and
their threads wait for each other. How long they wait is what a timer is late by, so a transfer pauses after each
piece for as long as its rate says, and the rate falls where timers wake late and rises where they wake in time. That is
how TCP finds what a network carries, with lateness in the place of loss. While nobody talks there are no pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.common.clock import Clock

START_BYTES_PER_S: Final = 32 * 1024 * 1024
FLOOR_BYTES_PER_S: Final = 4 * 1024 * 1024
"""Files always make progress, however loaded the machine is with other things."""

CEILING_BYTES_PER_S: Final = 64 * 1024 * 1024
"""Also on a machine that is not loaded: beyond it the loop of rooms is busy with files most of the time, and the thread
that stores messages waits for the interpreter behind it."""

LATE_S: Final = 0.002
"""A timer that wakes later than this has waited for the processor: its own resolution is a millisecond. A message waits
so at each of its four stops."""

SLOWER: Final = 0.8
FASTER: Final = 1.02
TALK_S: Final = 1.0
"""How long after a text people count as talking."""

PAUSE_MIN_S: Final = 0.001
"""Shorter pauses are saved up: they would cost more than they give."""

PIECE_BYTES: Final = 256 * 1024
"""What goes on at a time while people talk; more would hold up the loop, and the other end's, for milliseconds."""


class Pace:
    """The rate of all files of an edge together. Pure: times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.bytes_per_s = float(START_BYTES_PER_S)
        self._free_at = 0.0  # when what has gone on is paid for

    def pause_s(self, now: float, count: int) -> float:
        """So many bytes go on; returns how long to pause before."""
        pause_s = self._free_at - now
        self._free_at = max(now, self._free_at) + count / self.bytes_per_s
        return pause_s if pause_s >= PAUSE_MIN_S else 0.0

    def woken(self, late_s: float) -> None:
        """A pause was so much longer than asked for."""
        factor = SLOWER if late_s > LATE_S else FASTER
        self.bytes_per_s = min(CEILING_BYTES_PER_S, max(FLOOR_BYTES_PER_S, self.bytes_per_s * factor))


class GiveWay:
    """Lets transfers give way to texts; `texts()` counts the texts so far."""

    def __init__(self, texts: Callable[[], float], clock: Clock) -> None:
        self.pace = Pace()
        self._texts = texts
        self._clock = clock
        self._seen = 0.0
        self._talked_at = -TALK_S

    def is_talking(self) -> bool:
        """Whether there were texts just now."""
        now, texts = self._clock.monotonic(), self._texts()
        if texts != self._seen:
            self._seen, self._talked_at = texts, now
        return now - self._talked_at < TALK_S

    async def step(self, count: int) -> None:
        """To be called before so many bytes go on."""
        if not self.is_talking():
            return
        clock = self._clock
        asked_at = clock.monotonic()
        pause_s = self.pace.pause_s(asked_at, count)
        if pause_s:
            await clock.sleep(pause_s)
            self.pace.woken(clock.monotonic() - asked_at - pause_s)
