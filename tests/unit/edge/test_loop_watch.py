from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from services.common.clock import FakeClock
from services.common.counters import Counters, Histogram
from services.edge.loop_watch import INTERVAL_S, LoopWatch


async def test_lateness_is_counted_and_the_longest_kept() -> None:
    clock, counters = FakeClock(), Counters()
    watch = LoopWatch(counters, clock)
    task = asyncio.create_task(watch.run())
    await clock.wait_for_sleepers()
    for late_s in (0.0, 0.03, 0.004):
        await clock.advance(INTERVAL_S + late_s)
    families = {family.name: family for family in counters.families()}
    (lateness,) = families["parley.edge.loop.lateness"].members.values()
    assert isinstance(lateness, Histogram)
    assert lateness.count == 3
    assert dict(lateness.cumulative())["0.02"] == 2
    assert lateness.sum == pytest.approx(0.034)
    (longest,) = families["parley.edge.loop.lateness.max"].members.values()
    assert not isinstance(longest, Histogram)
    assert longest.value == watch.longest_s == pytest.approx(0.03)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_what_is_woken_in_time_is_not_late() -> None:
    clock = FakeClock()
    watch = LoopWatch(Counters(), clock)
    task = asyncio.create_task(watch.run())
    await clock.wait_for_sleepers()
    for _ in range(100):
        await clock.advance(INTERVAL_S)
    assert watch.longest_s == pytest.approx(0.0, abs=1e-9)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
