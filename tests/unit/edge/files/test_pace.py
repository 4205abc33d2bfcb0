from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.common.clock import FakeClock
from services.edge.files.pace import (
    CEILING_BYTES_PER_S,
    FLOOR_BYTES_PER_S,
    LATE_S,
    PAUSE_MIN_S,
    START_BYTES_PER_S,
    TALK_S,
    GiveWay,
    Pace,
)

PIECE = 131_072


def test_the_rate_is_kept() -> None:
    pace, now = Pace(), 0.0
    for _ in range(1_000):
        now += pace.pause_s(now, PIECE)
    assert abs(1_000 * PIECE / now / START_BYTES_PER_S - 1) < 0.05


def test_what_was_not_used_is_not_saved_up() -> None:
    pace = Pace()
    pace.pause_s(0.0, PIECE)
    assert pace.pause_s(100.0, 100 * PIECE) == 0.0
    assert pace.pause_s(100.0, PIECE) > 0.1


@given(st.lists(st.floats(0, 0.1), max_size=500))
def test_lateness_moves_the_rate_within_its_bounds(late: list[float]) -> None:
    pace = Pace()
    for late_s in late:
        before = pace.bytes_per_s
        pace.woken(late_s)
        assert FLOOR_BYTES_PER_S <= pace.bytes_per_s <= CEILING_BYTES_PER_S
        assert (pace.bytes_per_s < before) == (late_s > LATE_S) or pace.bytes_per_s in (
            FLOOR_BYTES_PER_S,
            CEILING_BYTES_PER_S,
        )


def test_a_busy_machine_is_found_and_left_again() -> None:
    pace = Pace()
    for _ in range(50):
        pace.woken(0.02)
    assert pace.bytes_per_s == FLOOR_BYTES_PER_S
    for _ in range(500):
        pace.woken(0.0)
    assert pace.bytes_per_s == CEILING_BYTES_PER_S
    small = int(0.6 * PAUSE_MIN_S * CEILING_BYTES_PER_S)
    pace.pause_s(0.0, small)
    assert pace.pause_s(0.0, small) == 0.0  # too short to be worth it, and paid for later
    assert pace.pause_s(0.0, small) >= PAUSE_MIN_S


async def test_pauses_are_made_only_while_people_talk() -> None:
    clock, texts = FakeClock(), [0.0]
    way = GiveWay(lambda: texts[0], clock)
    for _ in range(10):
        await way.step(PIECE)  # returns at once
    texts[0] += 1
    await way.step(PIECE)
    step = asyncio.create_task(way.step(PIECE))
    await asyncio.sleep(0)
    assert not step.done()
    await clock.advance(PIECE / START_BYTES_PER_S)
    await step
    assert way.pace.bytes_per_s > START_BYTES_PER_S  # it woke in time
    await clock.advance(TALK_S)
    assert not way.is_talking()
    await way.step(100 * PIECE)
    await way.step(PIECE)
