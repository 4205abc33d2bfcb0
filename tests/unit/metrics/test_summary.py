from __future__ import annotations

import pytest

from services.metrics.summary import ACKNOWLEDGED, Summary
from tests.helpers.instances import World

BOUNDS = (0.001, 0.01, 0.1, 1.0)
NAMES = {
    "uptime_seconds total_connections concurrent_users messages_sent messages_delivered bytes_transferred",
    "avg_processing_time_ms avg_latency_ms p50_latency_ms p99_latency_ms messages_per_second bandwidth_mbps errors",
}


def test_an_empty_installation_has_all_numbers() -> None:
    world = World()
    values, sample = _state(Summary(world.aggregate, monotonic=world.monotonic), world)
    assert set(" ".join(NAMES).split()) <= set(values)
    assert not any(values.values())
    assert sample.processing_mean_ms is None
    assert sample.latency_p99_ms is None


def test_the_numbers_are_right() -> None:
    world = World()
    summary = Summary(world.aggregate, monotonic=world.monotonic)
    edges = [world.start("edge-1"), world.start("edge-2")]
    rooms, auth = world.start("rooms-1", service="rooms"), world.start("auth-1", service="auth")
    world.elapsed = 10
    for edge in edges:
        edge.add("parley.edge.connections.accepted", 5)
        edge.set("parley.edge.connections", 4)
        edge.set("parley.edge.sessions", 3)
        edge.add("parley.edge.bytes.received", 250_000)
        edge.add("parley.edge.bytes.sent", 1_000_000)
        edge.add(ACKNOWLEDGED, 100)
        edge.add("parley.edge.messages.delivered", 400)
        edge.add("parley.edge.errors", 2)
        for _ in range(100):
            edge.observe("parley.edge.request.duration", 0.002, BOUNDS)
            edge.observe("parley.edge.publish.duration", 0.02, BOUNDS)
    rooms.add("parley.rooms.messages.stored", 200)
    rooms.set("parley.rooms.count", 3)
    auth.set("parley.auth.accounts", 12.0)
    world.export(*edges, rooms, auth)
    values, sample = _state(summary, world)
    assert (
        values
        | {
            "uptime_seconds": 10.0,
            "interval_seconds": 10.0,
            "reporting_instances": 4,
            "total_connections": 10,
            "open_connections": 8,
            "concurrent_users": 6,
            "bytes_transferred": 2_500_000,
            "bandwidth_mbps": 2.0,
            "messages_sent": 200,
            "messages_stored": 200,
            "messages_delivered": 800,
            "messages_per_second": 20.0,
            "deliveries_per_second": 80.0,
            "errors": 4,
            "rooms": 3,
            "accounts": 12,
            "avg_processing_time_ms": 2.0,
            "avg_latency_ms": 20.0,
            "requests_measured": 200,
            "latencies_measured": 200,
        }
        == values
    )
    assert 10 < values["p50_latency_ms"] < values["p99_latency_ms"] <= 100
    assert all(isinstance(values[name], int) for name in ("accounts", "messages_sent", "concurrent_users"))
    assert (sample.at, sample.requests, sample.processing_mean_ms) == (world.now, 200, 2.0)
    assert sample.latency_p99_ms == values["p99_latency_ms"]
    assert sample.messages_per_second == 20.0


def test_what_was_measured_last_stays_visible_but_is_no_new_sample() -> None:
    world = World()
    summary = Summary(world.aggregate, monotonic=world.monotonic)
    edge = world.start("edge-1")
    edge.observe("parley.edge.request.duration", 0.004, BOUNDS)
    world.elapsed = 10
    world.export(edge)
    assert _state(summary, world)[0]["avg_processing_time_ms"] == 4.0
    for _ in range(3):
        summary.end_interval(monotonic=world.monotonic)
        world.elapsed += 10
        world.export(edge)
        values, sample = _state(summary, world)
        assert values["avg_processing_time_ms"] == 4.0
        assert values["requests_measured"] == 0
        assert values["interval_seconds"] == 10.0
        assert sample.processing_mean_ms is None
        assert sample.requests == 0


@pytest.mark.parametrize("interval_s", [1, 3, 10, 45])
def test_samples_count_each_request_once_whatever_the_interval(interval_s: int) -> None:
    world = World()
    summary = Summary(world.aggregate, monotonic=world.monotonic)
    edge = world.start("edge-1")
    requests = 0
    for second in range(1, 181):
        world.elapsed = second
        edge.observe("parley.edge.request.duration", 0.004, BOUNDS)
        if second % 10 == 0:
            world.export(edge)
        if second % interval_s == 0:
            requests += _state(summary, world)[1].requests
            summary.end_interval(monotonic=world.monotonic)
    assert requests == 180


def _state(summary: Summary, world: World):
    statistics = summary.statistics(now=world.now, monotonic=world.monotonic)
    assert statistics.at == world.now
    return statistics.values, statistics.sample
