from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.files.progress import BAR_CELLS, SPAN_S, Rate, bar, percent, size_text, time_text


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.bytes_per_s(0.0) is None
    rate.note(0.0, 0)
    assert rate.bytes_per_s(0.0) is None
    for tenth in range(1, 101):
        rate.note(tenth / 10, tenth * 100)
    assert rate.bytes_per_s(10.0) == pytest.approx(1000, rel=0.05)
    for tenth in range(101, 201):
        rate.note(tenth / 10, 10_000 + (tenth - 100) * 10)
    assert rate.bytes_per_s(20.0) == pytest.approx(100, rel=0.05)
    assert rate.left_s(20.0, 1000) == pytest.approx(10, rel=0.05)


def test_a_transfer_that_stands_still_becomes_slower_and_slower() -> None:
    rate = Rate()
    rate.note(0.0, 0)
    rate.note(1.0, 1000)
    assert rate.bytes_per_s(1.0) == 1000
    assert rate.bytes_per_s(10.0) == 100
    rate.restart()
    assert rate.bytes_per_s(10.0) is None
    assert rate.left_s(10.0, 5) is None


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 10_000)), max_size=300))
def test_a_rate_is_never_below_nothing(steps: list[tuple[float, int]]) -> None:
    rate, now, done = Rate(), 0.0, 0
    for pause, more in steps:
        now, done = now + pause, done + more
        rate.note(now, done)
        found = rate.bytes_per_s(now + SPAN_S)
        assert found is None or found >= 0


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (48_213, "47.1 KiB"),
        (104_857_600, "100 MiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size_text(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (-1, "0:00")]
)
def test_times(seconds: float, shown: str) -> None:
    assert time_text(seconds) == shown


def test_a_bar_is_full_only_at_the_end() -> None:
    assert bar(0, 100) == "░" * BAR_CELLS
    assert bar(999, 1000).count("█") == BAR_CELLS - 1
    assert bar(1000, 1000) == "█" * BAR_CELLS
    assert bar(0, 0) == "█" * BAR_CELLS  # an empty file
    assert [percent(999, 1000), percent(1000, 1000), percent(0, 0)] == [99, 100, 100]
