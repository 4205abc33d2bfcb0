"""Which fault comes when: drawn from a seed, so that every kind gets its turn before any comes again."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

from tests.chaos import events as e

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.chaos.nemesis.faults import Fault
    from tests.chaos.recorder.log import EventLog

PAUSE_S = (0.3, 2.0)  # between two faults
TOGETHER = 0.35  # how often another fault strikes while one lasts
KINDS_MIN = 4  # of a run, however long the first of them took: a rolling restart can last longer than the whole run


class Nemesis:
    """Breaks and mends, one fault a target at a time, until it is told to stop; then everything is mended."""

    def __init__(self, faults: Sequence[Fault], log: EventLog, dice: random.Random) -> None:
        self._by_kind: dict[str, list[Fault]] = {}
        for fault in faults:
            self._by_kind.setdefault(fault.kind, []).append(fault)
        self._log = log
        self._dice = dice
        self._bag: list[str] = []
        self._busy: set[str] = set()  # targets
        self._struck: set[str] = set()  # kinds

    async def rage(self, until: float) -> None:
        """Until the log's time is `until` and four kinds have struck, where there are four.

        Raises TimeoutError where something does not come back by itself.
        """
        if not self._by_kind:
            await asyncio.sleep(max(0.0, until - self._log.now()))
            return
        async with asyncio.TaskGroup() as tasks:
            while self._log.now() < until or len(self._struck) < min(KINDS_MIN, len(self._by_kind)):
                fault = self._next()
                self._struck.add(fault.kind)
                ends = until if self._log.now() < until else math.inf  # one that came late lasts as long as any
                struck = tasks.create_task(self._suffer(fault, ends))
                if self._dice.random() > TOGETHER:
                    await struck
                left_s = ends - self._log.now()
                await asyncio.sleep(min(max(left_s, 0.0), self._dice.uniform(*PAUSE_S)))

    def _next(self) -> Fault:
        while True:
            if not self._bag:
                self._bag = sorted(self._by_kind)
                self._dice.shuffle(self._bag)
            fault = self._dice.choice(self._by_kind[self._bag.pop()])
            if fault.target not in self._busy or not self._bag:
                return fault

    async def _suffer(self, fault: Fault, until: float) -> None:
        while fault.target in self._busy:  # noqa: ASYNC110 -- seldom, and short
            await asyncio.sleep(0.05)
        self._busy.add(fault.target)
        try:
            began = self._log.now()
            await fault.strike(self._dice)
            lasts_s = self._dice.uniform(*fault.lasts_s)
            try:
                await asyncio.sleep(max(0.0, min(lasts_s, until - self._log.now())))
            finally:
                await fault.mend()
            with contextlib.suppress(ValueError):  # the log is closed where the whole run was given up
                self._log.write(e.Fault, kind=fault.kind, target=fault.target, t0=began, t1=self._log.now())
        finally:
            self._busy.discard(fault.target)
