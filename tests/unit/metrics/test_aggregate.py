from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.aggregate import FORGET_AFTER_S, SPREAD_HOURS_MAX, Aggregate, percentile
from services.metrics.points import Point, Source
from services.metrics.summary import ACKNOWLEDGED
from tests.helpers.instances import T0, Process, World

BOUNDS = (0.001, 0.01, 0.1, 1.0)
HOUR = int(T0 // 3600)
SESSIONS = "parley.edge.sessions"


@pytest.fixture
def world() -> World:
    return World()


def run(world: World, edge: Process, *, seconds: int, each: float, step: int = 10) -> None:
    """Let an edge count `each` messages in every export interval."""
    for _ in range(seconds // step):
        world.elapsed += step
        edge.add(ACKNOWLEDGED, each)
        world.export(edge)


def test_totals_add_up_over_instances_and_attributes(world: World) -> None:
    one, two = world.start("edge-1"), world.start("edge-2")
    one.add("errors", 3, code="internal")
    one.add("errors", 4, code="forbidden")
    two.add("errors", 5)
    world.export(one, two)
    assert world.aggregate.total("errors") == 12
    assert world.aggregate.total("nothing") == 0


def test_the_series_of_all_instances_share_their_room_and_leave_it_when_they_are_forgotten() -> None:
    aggregate = Aggregate(
        monotonic=0.0, stale_after_s=30, max_instances=2, max_series=100, hourly_metric="", max_bytes=10_000
    )

    def export(instance: str, monotonic: float) -> int:
        points = [Point(f"{instance}-{number}", (), True, 1, 5, 6) for number in range(10)]
        return aggregate.ingest(Source("edge", instance), points, now=T0, monotonic=monotonic)

    assert export("one", 1.0) == 0
    refused = export("two", 2.0)
    assert 0 < refused < 10
    assert export("one", FORGET_AFTER_S) == 0  # what is known goes on
    assert export("three", 2.0 + FORGET_AFTER_S) == refused  # in the place of the second
    assert aggregate.total("two-0") == 1


def test_the_names_of_those_who_are_gone_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.metrics.aggregate.FORGOTTEN_MAX", 25)
    aggregate = Aggregate(monotonic=0.0, stale_after_s=30, max_instances=1, max_series=100, hourly_metric="")
    for turn in range(10):
        names = ["known", *(f"{turn}-{number}" for number in range(10))]
        points = [Point(name, (), True, 1, 5, 6) for name in names]
        monotonic = turn * (FORGET_AFTER_S + 1)
        assert aggregate.ingest(Source("edge", f"edge-{turn}"), points, now=T0, monotonic=monotonic) == 0
    assert len(aggregate._forgotten) == 25
    assert aggregate.total("known") == 10


def test_the_same_name_in_another_service_is_another_instance(world: World) -> None:
    edge, rooms = world.start("a", service="edge"), world.start("a", service="rooms")
    edge.add("errors", 3)
    rooms.add("errors", 4)
    world.export(edge, rooms)
    assert world.aggregate.total("errors") == 7
    assert world.aggregate.live_instances(monotonic=world.monotonic) == 2


def test_a_killed_edge_loses_nothing_and_counts_nothing_twice(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=20)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(2.0)
    world.end_interval()
    run(world, edge, seconds=30, each=20)
    last = edge.points(world.now)
    edge = world.start("edge-1")  # kill -9, and again
    run(world, edge, seconds=30, each=20)
    world.send(edge.source, last)  # the export of the dead process arrives late
    assert world.aggregate.total(ACKNOWLEDGED) == 240
    assert world.rate(ACKNOWLEDGED) == pytest.approx(2.0)
    assert sum(world.aggregate.hourly().values()) == 240


def test_a_restart_with_a_clock_that_was_set_back(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    edge = world.start("edge-1", skew_s=-7200.0)
    edge.add(ACKNOWLEDGED, 100)  # already higher than the old one
    run(world, edge, seconds=60, each=10)
    assert world.aggregate.total(ACKNOWLEDGED) == 60 + 100 + 60


def test_a_senders_clock_may_jump_while_it_runs(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    world.end_interval()
    for skew_s in (-3600.0, 86_400.0, 0.0):
        edge.skew_s = skew_s
        run(world, edge, seconds=20, each=10)
    assert world.aggregate.total(ACKNOWLEDGED) == 120
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0)


def test_the_own_clock_may_jump_back(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=30, each=10)
    world.wall_skew_s = -7200.0
    run(world, edge, seconds=30, each=10)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0)
    assert world.aggregate.hourly() == {HOUR: 30, HOUR - 2: 30}


def test_a_repeated_export_changes_nothing(world: World) -> None:
    edge = world.start("edge-1")
    edge.add(ACKNOWLEDGED, 10)
    edge.set(SESSIONS, 3)
    world.elapsed = 10
    for _ in range(3):
        world.export(edge)
    assert world.aggregate.total(ACKNOWLEDGED) == 10
    assert world.gauge(SESSIONS) == 3
    assert world.rate(ACKNOWLEDGED) == 1.0


def test_exports_out_of_order(world: World) -> None:
    edge = world.start("edge-1")
    edge.add(ACKNOWLEDGED, 10)
    edge.set(SESSIONS, 3)
    world.elapsed = 10
    early = edge.points(world.now)
    world.elapsed = 20
    edge.add(ACKNOWLEDGED, 10)
    edge.set(SESSIONS, 5)
    world.export(edge)
    world.send(edge.source, early)
    assert world.aggregate.total(ACKNOWLEDGED) == 20
    assert world.gauge(SESSIONS) == 5


def test_rates_do_not_depend_on_how_exports_and_intervals_fall_together(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=50)
    for _ in range(20):
        world.end_interval()
        world.elapsed += 1.0  # an interval that is over before the next export: the last rate stands
        assert world.rate(ACKNOWLEDGED) == pytest.approx(5.0)
        world.elapsed += 9.0
        edge.add(ACKNOWLEDGED, 50)
        world.export(edge)
        assert world.rate(ACKNOWLEDGED) == pytest.approx(5.0)


def test_an_export_right_after_another_does_not_make_a_rate_of_its_own(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    world.end_interval()
    world.elapsed += 0.001  # the flush at a shutdown
    edge.add(ACKNOWLEDGED, 1)
    world.export(edge)
    assert world.rate(ACKNOWLEDGED) == 1.0


def test_a_new_instance_counts_as_what_it_did_in_the_whole_interval(world: World) -> None:
    world.elapsed = 50
    edge = world.start("edge-1")
    run(world, edge, seconds=10, each=60)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(60 / 60)


def test_an_instance_older_than_this_service_does_not_cause_a_peak(world: World) -> None:
    edge = world.start("edge-1")
    edge.add(ACKNOWLEDGED, 36_000)
    world.elapsed = 3600
    world.aggregate = world.new_aggregate()  # restarted, and its database was lost
    world.elapsed += 10
    edge.add(ACKNOWLEDGED, 100)
    world.export(edge)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(36_100 / 3610)
    assert world.aggregate.total(ACKNOWLEDGED) == 36_100


def test_a_vanished_instance_stops_counting_for_users_and_rates_but_not_for_totals(world: World) -> None:
    one = world.start("edge-1")
    one.set(SESSIONS, 7)
    run(world, one, seconds=30, each=10)
    world.end_interval()
    two = world.start("edge-2")
    two.set(SESSIONS, 4)
    run(world, one, seconds=10, each=10)
    run(world, two, seconds=30, each=10)
    assert world.gauge(SESSIONS) == 11  # one was silent for 30 s: three intervals, not more
    world.elapsed += 0.1
    assert world.gauge(SESSIONS) == 4
    assert world.aggregate.live_instances(monotonic=world.monotonic) == 1
    # In this interval it did its share; in the next it does nothing.
    assert world.rate(ACKNOWLEDGED) == pytest.approx(10 / 40.1 + 30 / 40)
    world.end_interval()
    run(world, two, seconds=10, each=10)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0, rel=0.02)
    assert world.aggregate.total(ACKNOWLEDGED) == 40 + 40


def test_an_instance_that_comes_back_after_hours_has_the_rate_of_now(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    for _ in range(60):
        world.elapsed += 60
        world.end_interval()
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0)


def test_a_gauge_that_is_no_longer_sent_stops_counting(world: World) -> None:
    edge = world.start("edge-1")
    edge.set("parley.edge.queue.waiting", 9)
    run(world, edge, seconds=10, each=1)
    edge.gauges.clear()
    run(world, edge, seconds=40, each=1)
    assert world.gauge("parley.edge.queue.waiting") == 0


def test_what_instances_share_is_counted_once(world: World) -> None:
    for name, count in (("rooms-1", 7), ("rooms-2", 8)):
        rooms = world.start(name, service="rooms")
        rooms.set("parley.rooms.count", count)
        world.export(rooms)
    assert world.gauge("parley.rooms.count") == 15
    assert world.aggregate.largest("parley.rooms.count", monotonic=world.monotonic) == 8
    assert world.aggregate.largest("parley.unknown", monotonic=world.monotonic) == 0


def test_a_restart_of_this_service_goes_on_where_it_was(world: World) -> None:
    edge, auth = world.start("edge-1"), world.start("auth-1", service="auth")
    auth.add("parley.auth.logins", 5)
    run(world, edge, seconds=60, each=10)
    world.export(auth)
    kept = world.aggregate.checkpoints()
    world.elapsed += 30  # down; the edge goes on counting
    edge.add(ACKNOWLEDGED, 30)
    world.aggregate = world.new_aggregate()
    world.aggregate.restore(kept)
    run(world, edge, seconds=60, each=10)
    assert world.aggregate.total(ACKNOWLEDGED) == 150
    assert world.aggregate.hourly() == {HOUR: 90}
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0)
    assert world.aggregate.total("parley.auth.logins") == 0  # of a process that is not met again
    assert {kept.source.instance for kept in world.aggregate.checkpoints()} == {"edge-1"}


def test_everything_restarts(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=60, each=10)
    kept = world.aggregate.checkpoints()
    world.elapsed += 36_000
    world.aggregate = world.new_aggregate()
    world.aggregate.restore(kept)
    edge = world.start("edge-1")
    run(world, edge, seconds=10, each=10)
    assert world.aggregate.total(ACKNOWLEDGED) == 10
    assert world.rate(ACKNOWLEDGED) == pytest.approx(1.0)
    assert world.aggregate.hourly() == {HOUR + 10: 10}


def test_hours_get_what_happened_in_them(world: World) -> None:
    edge = world.start("edge-1")
    run(world, edge, seconds=7200, each=1, step=60)
    hourly = world.aggregate.hourly()
    assert hourly == {HOUR: 59, HOUR + 1: 60, HOUR + 2: 1}
    world.aggregate.strike_hourly({HOUR: 59, HOUR + 1: 50})
    assert world.aggregate.hourly() == {HOUR + 1: 10, HOUR + 2: 1}


def test_growth_of_several_hours_is_spread_over_them(world: World) -> None:
    edge = world.start("edge-1")
    edge.add(ACKNOWLEDGED, 1)
    world.export(edge)
    edge.add(ACKNOWLEDGED, 1001)
    world.elapsed = 3 * 3600 + 60  # nothing came through for three hours
    world.export(edge)
    assert world.aggregate.hourly() == {HOUR: 251, HOUR + 1: 250, HOUR + 2: 250, HOUR + 3: 251}


def test_a_senders_wild_clock_does_not_fill_the_hours(world: World) -> None:
    points = [Point(ACKNOWLEDGED, (), True, 960, 1, int(T0 * 1e9))]
    world.send(Source("edge", "edge-1"), points)
    hourly = world.aggregate.hourly()
    assert sum(hourly.values()) == 960
    assert len(hourly) == SPREAD_HOURS_MAX


def test_timing_comes_from_the_buckets_of_the_window(world: World) -> None:
    one, two = world.start("edge-1"), world.start("edge-2")
    for _ in range(100):
        one.observe("t", 5.0, BOUNDS)
    world.export(one)
    world.end_interval()
    assert world.aggregate.timing("t") is None
    world.elapsed += 10
    for _ in range(50):
        one.observe("t", 0.0005, BOUNDS, qos_class="high")
        two.observe("t", 0.05, BOUNDS, qos_class="low")
    world.export(one, two)
    timing = world.aggregate.timing("t")
    assert timing is not None
    assert timing.measured == 100
    assert timing.mean == pytest.approx(0.02525)
    assert timing.p50 == pytest.approx(0.001)
    assert 0.01 < timing.p99 <= 0.1


def test_too_many_instances_are_refused_until_one_may_be_forgotten() -> None:
    world = World(max_instances=2)
    edges = [world.start(f"edge-{n}") for n in range(3)]
    for edge in edges:
        edge.add("errors", 5)
    assert world.export(*edges) == 1
    assert world.aggregate.total("errors") == 10
    world.elapsed = FORGET_AFTER_S - 1
    world.export(edges[1])
    world.elapsed = FORGET_AFTER_S + 1
    assert world.export(edges[2]) == 0
    assert world.aggregate.total("errors") == 15
    assert world.aggregate.live_instances(monotonic=world.monotonic) == 2
    assert {kept.source.instance for kept in world.aggregate.checkpoints()} == {"edge-1", "edge-2"}


def test_an_empty_export_is_nothing(world: World) -> None:
    assert world.send(Source("edge", "edge-1"), []) == 0
    assert world.aggregate.live_instances(monotonic=world.monotonic) == 0
    assert world.aggregate.timing("t") is None
    assert world.rate("x") == 0.0


@given(
    messages=st.lists(st.integers(0, 50), min_size=2, max_size=60),
    restarts=st.sets(st.integers(0, 59)),
    intervals=st.sets(st.integers(0, 59)),
    metrics_restarts=st.sets(st.integers(0, 59), max_size=3),
)
def test_nothing_is_lost_or_counted_twice_whatever_restarts(
    messages: list[int], restarts: set[int], intervals: set[int], metrics_restarts: set[int]
) -> None:
    world = World()
    edge = world.start("edge-1")
    kept: dict[int, int] = {}
    for step, count in enumerate(messages):
        world.elapsed += 10
        edge.add(ACKNOWLEDGED, count)
        world.export(edge)
        if step in restarts:
            edge = world.start("edge-1")
        if step in intervals:
            world.end_interval()
        if step in metrics_restarts:
            for hour, more in world.aggregate.hourly().items():
                kept[hour] = kept.get(hour, 0) + more
            checkpoints = world.aggregate.checkpoints()
            world.aggregate = world.new_aggregate()
            world.aggregate.restore(checkpoints)
        assert world.rate(ACKNOWLEDGED) <= max(messages) / 10 + 1e-9
    counted = sum(kept.values()) + sum(world.aggregate.hourly().values())
    assert counted == sum(messages)
    if not metrics_restarts & set(range(len(messages))):
        assert world.aggregate.total(ACKNOWLEDGED) == sum(messages)


def test_percentiles_lie_where_they_must() -> None:
    buckets = [(0.001, 0), (0.01, 90), (0.1, 99), (1.0, 100), (math.inf, 100)]
    assert percentile(buckets, 100, 0.5) == pytest.approx(0.001 + 0.009 * 50 / 90)
    assert percentile(buckets, 100, 0.9) == pytest.approx(0.01)
    assert percentile(buckets, 100, 0.99) == pytest.approx(0.1)
    assert percentile(buckets, 100, 1.0) == pytest.approx(1.0)


def test_above_the_last_bound_the_bound_is_the_answer() -> None:
    assert percentile([(0.5, 0), (math.inf, 10)], 10, 0.99) == 0.5
    assert percentile([(math.inf, 10)], 10, 0.99) == 0.0
    assert percentile([], 10, 0.5) == 0.0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_percentile_is_in_the_bucket_of_the_true_one(values: list[float], fraction: float) -> None:
    bounds = (0.01, 0.1, 0.5, 1.0, 2.0)
    buckets = [(bound, sum(value <= bound for value in values)) for bound in bounds] + [(math.inf, len(values))]
    true = sorted(values)[max(0, math.ceil(fraction * len(values) - 1e-9) - 1)]
    bucket = next(n for n, bound in enumerate(bounds) if true <= bound)
    low = bounds[bucket - 1] if bucket else 0.0
    assert low - 1e-9 <= percentile(buckets, len(values), fraction) <= bounds[bucket] + 1e-9
