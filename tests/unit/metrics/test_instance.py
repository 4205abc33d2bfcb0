from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.metrics.instance import REORDER_WINDOW_S, RUNS_REMEMBERED, Gauge, Instance, Series
from services.metrics.points import Point, Source
from services.metrics.room import Room
from tests.helpers.instances import World

MESSAGES = "parley.edge.messages.acknowledged"


def test_a_run_grows_to_the_largest_value_seen() -> None:
    series = Series()
    assert [series.record(1, value) for value in (5, 9, 9, 7, 12)] == [5, 4, 0, 0, 3]
    assert series.total == 12


def test_a_new_start_is_a_new_run_even_when_it_is_earlier_or_counts_higher() -> None:
    series = Series()
    series.record(1000, 50)
    series.record(500, 60)  # the process restarted after its clock was set back
    series.record(500, 61)
    assert series.total == 111


def test_an_overtaken_export_of_a_process_that_is_gone_counts_nothing_twice() -> None:
    series = Series()
    series.record(1, 10)
    series.record(2, 3)
    series.record(1, 8)
    assert series.total == 13
    series.record(1, 11)  # its very last export, which came late
    assert series.total == 14


def test_runs_are_bounded() -> None:
    series = Series()
    for start in range(1, 50):
        series.record(start, 2)
    assert series.total == 98
    assert len(series.runs) == RUNS_REMEMBERED


@given(
    lives=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=1, max_size=RUNS_REMEMBERED),
    data=st.data(),
)
def test_any_order_and_any_repeats_give_the_sum_of_what_each_process_counted(
    lives: list[list[int]], data: st.DataObject
) -> None:
    exports, expected = [], 0
    for start, steps in enumerate(lives):
        value = 0
        for step in steps:
            value += step
            exports.append((start + 1, value))
        expected += value
    # Everything arrives at least once, in any order, some of it again.
    delivered = data.draw(st.permutations(exports + data.draw(st.lists(st.sampled_from(exports), max_size=5))))
    series = Series()
    grown = [series.record(start, value) for start, value in delivered]
    assert series.total == sum(grown) == expected


def test_an_older_gauge_does_not_replace_a_newer_one() -> None:
    gauge = Gauge(7, time_ns=100, taken_at=0.0, seen_at=0.0)
    gauge.record(3, 90, 1.0)
    assert gauge.value == 7
    gauge.record(4, 100, 2.0)
    assert gauge.value == 4


def test_a_gauge_follows_a_clock_that_was_set_back_after_a_while() -> None:
    gauge = Gauge(7, time_ns=10_000, taken_at=0.0, seen_at=0.0)
    gauge.record(3, 90, REORDER_WINDOW_S)
    assert gauge.value == 7
    gauge.record(2, 95, REORDER_WINDOW_S + 0.1)
    assert gauge.value == 2
    gauge.record(1, 96, REORDER_WINDOW_S + 0.2)
    assert gauge.value == 1


def test_points_beyond_the_limit_are_refused_and_known_series_go_on() -> None:
    world = World()
    edge = world.start("edge-1")
    for n in range(5):
        edge.add(f"counter-{n}")
    instance = Instance(max_series=3)
    arguments = {"watched": "", "monotonic": 1.0, "interval_from": 0.0}
    assert instance.ingest(edge.points(world.now), **arguments).refused == 2
    edge.add("counter-0")
    edge.set("gauge", 1)
    assert instance.ingest(edge.points(world.now), **arguments).refused == 3
    assert instance.total("counter-0") == 2
    assert instance.total("counter-4") == 0
    assert instance.gauge("gauge", seen_after=0.0) == 0


def test_what_is_refused_leaves_nothing_behind() -> None:
    room = Room(3_000)
    instance = Instance(max_series=1_000, room=room)
    for number in range(500):
        points = [Point(f"{kind}-{number}", (), kind == "sum", 1, 5, 6) for kind in ("sum", "gauge")]
        instance.ingest(points, watched="", monotonic=1.0, interval_from=0.0)
    assert 0 < len(list(instance.totals())) < 5
    assert len(instance._series) + len(instance._gauges) < 5
    assert 2_000 < room.taken <= 3_000
    instance.give_back()
    assert room.taken == 0


def test_a_window_reaches_from_export_to_export() -> None:
    world = World()
    edge = world.start("edge-1")
    edge.add(MESSAGES)
    instance = Instance(max_series=10)

    def export(monotonic: float) -> None:
        instance.ingest(edge.points(world.now), watched="", monotonic=monotonic, interval_from=0.0)

    export(10.0)
    assert instance.window_s == 10.0
    instance.end_window()
    assert instance.window_s == 10.0  # until something new is known, the last window stands
    assert not instance.has_reported
    edge.add(MESSAGES, 5)
    export(20.0)
    assert instance.has_reported
    assert instance.window_s == 10.0
    assert list(instance.growths(MESSAGES)) == [((), 5)]
    export(30.0)
    assert instance.window_s == 20.0


def test_a_checkpoint_continues_the_process_and_nothing_else() -> None:
    source = Source("edge", "edge-1")
    old = Instance(max_series=10)
    old.ingest(
        [Point("a", (), True, 40, 7, 100), Point("b", (), True, 5, 7, 100)],
        watched="",
        monotonic=1.0,
        interval_from=0.0,
    )
    new = Instance(max_series=10, checkpoint=old.checkpoint(source))
    assert new.total("a") == 0  # nothing is known of the process yet
    points = [Point("a", (), True, 43, 7, 10_000_000_100), Point("b", (), True, 1, 8, 10_000_000_100)]
    result = new.ingest(points, watched="a", monotonic=50.0, interval_from=49.0)
    assert result.growth == 3
    assert result.span_s == 10.0
    assert (new.total("a"), new.total("b")) == (43, 1)
    assert list(new.growths("a")) == [((), 3)]
    assert new.window_s == 10.0
