from __future__ import annotations

import asyncio
import time

import pytest

from services.common.clock import Clock, FakeClock, SystemClock


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = FakeClock(1000.0)
    sleeper = asyncio.create_task(clock.sleep(5))
    await clock.wait_for_sleepers()
    await clock.advance(4.999)
    assert not sleeper.done()
    await clock.advance(0.001)
    assert sleeper.done()
    assert (clock.now(), clock.monotonic()) == (1005.0, 5.0)


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = FakeClock()
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (3, 1, 2)]
    await clock.wait_for_sleepers(3)
    await clock.advance(10)
    assert woken == [1, 2, 3]
    await asyncio.gather(*tasks)


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    sleeper = asyncio.create_task(clock.sleep(5))
    await clock.wait_for_sleepers()
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock.sleeper_count == 0
    await clock.advance(10)


async def test_waiting_for_sleepers_ends_when_they_arrive() -> None:
    clock = FakeClock()
    waiting = asyncio.create_task(clock.wait_for_sleepers(2))
    first = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    second = asyncio.create_task(clock.sleep(1))
    await waiting
    await clock.advance(1)
    await asyncio.gather(first, second)


async def test_sleeping_for_nothing_does_not_wait_for_the_clock() -> None:
    await FakeClock().sleep(0)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        FakeClock().advance(-1)


def test_advancing_needs_no_event_loop() -> None:
    clock = FakeClock(0)
    clock.advance(1.5)
    assert clock.now() == 1.5


async def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    assert clock.now() == pytest.approx(time.time(), abs=60)
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before


def test_the_time_of_day_jumps_alone() -> None:
    clock = FakeClock(start=1_000.0)
    clock.jump(-600.0)
    assert (clock.now(), clock.monotonic()) == (400.0, 0.0)
