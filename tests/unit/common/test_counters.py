from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.counters import Counters, Family, Histogram

bounds = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8, unique=True).map(sorted)


def test_a_counter_counts() -> None:
    counter = Counters().counter("parley.test", "1", "Tests.")
    counter.add()
    counter.add(4)
    assert counter.value == 5


def test_asking_again_gives_the_same_one() -> None:
    counters = Counters()
    first = counters.counter("a", attributes={"x": "1", "y": "2"})
    assert counters.counter("a", attributes={"y": "2", "x": "1"}) is first
    assert counters.counter("a", attributes={"x": "1"}) is not first
    assert [len(family.members) for family in counters.families()] == [2]


def test_one_name_has_one_kind() -> None:
    counters = Counters()
    counters.counter("a")
    with pytest.raises(ValueError, match="a is a counter"):
        counters.gauge("a", "1", "", lambda: 0)


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    numbers = [1, 2]
    gauge = Counters().gauge("a", "1", "", lambda: numbers.pop(0))
    assert (gauge.value, gauge.value) == (1, 2)


@given(bounds, st.lists(st.floats(-2e6, 2e6), max_size=50))
def test_a_histogram_counts_every_value_once_and_cumulates(bounds: list[float], values: list[float]) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    expected = [sum(value <= bound for value in values) for bound in bounds]
    assert [count for _, count in histogram.cumulative()] == [*expected, len(values)]


def test_bounds_are_written_as_prometheus_writes_them() -> None:
    assert [bound for bound, _ in Histogram((0.005, 1, 10)).cumulative()] == ["0.005", "1.0", "10.0", "+Inf"]


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1)])
def test_bounds_that_do_not_ascend_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Histogram(bounds)


def test_a_listener_hears_of_families_before_and_after() -> None:
    counters, heard = Counters(), list[Family]()
    counters.counter("a")
    counters.subscribe(heard.append)
    counters.histogram("b", "s", (1,))
    counters.histogram("b", "s", (1,), attributes={"x": "1"})
    assert [family.name for family in heard] == ["a", "b"]
