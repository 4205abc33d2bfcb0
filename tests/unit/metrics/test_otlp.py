from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics import otlp
from services.metrics.aggregate import Aggregate
from services.metrics.points import Source
from tests.helpers.instances import T0

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
START = int(T0 * 1e9)
TIME = START + 10**10


class Peer:
    """The context of a call, as far as the collectors look at it."""

    def __init__(self, kind: str = "edge") -> None:
        self._kind = kind

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [f"spiffe://parley/{self._kind}".encode()]}


class Stage:
    def __init__(self) -> None:
        self.clock = FakeClock(T0)
        self.counters = Counters()
        self.aggregate = Aggregate(
            monotonic=0.0, stale_after_s=30, max_instances=3, max_series=50, hourly_metric="parley.hourly"
        )
        self.forwarded: list[tuple[str, Any, int]] = []
        self.collector = otlp.MetricsCollector(
            self.aggregate,
            counters=self.counters,
            clock=self.clock,
            max_points=100,
            forward=lambda *given: self.forwarded.append(given),
        )

    async def export(self, request: ExportMetricsServiceRequest, kind: str = "edge") -> int:
        """Returns how many points were rejected."""
        context: Any = Peer(kind)
        response = await self.collector.Export(request, context)
        assert bool(response.partial_success.error_message) == bool(response.partial_success.rejected_data_points)
        return response.partial_success.rejected_data_points

    def count(self, name: str) -> float:
        return self.counters.counter(f"parley.metrics.{name}").value


@pytest.fixture
def stage() -> Stage:
    return Stage()


def new_request(instance: str = "edge-1") -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    attribute = request.resource_metrics.add().resource.attributes.add(key="service.instance.id")
    attribute.value.string_value = instance
    request.resource_metrics[0].scope_metrics.add()
    return request


def add_sum(request: ExportMetricsServiceRequest, name: str, value: float, **attributes: str) -> Metric:
    metric = request.resource_metrics[-1].scope_metrics[0].metrics.add(name=name)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = CUMULATIVE
    point = metric.sum.data_points.add(start_time_unix_nano=START, time_unix_nano=TIME)
    if isinstance(value, int):
        point.as_int = value
    else:
        point.as_double = value
    for key, text in attributes.items():
        point.attributes.add(key=key).value.string_value = text
    return metric


def add_gauge(request: ExportMetricsServiceRequest, name: str, value: float) -> Metric:
    metric = request.resource_metrics[-1].scope_metrics[0].metrics.add(name=name)
    metric.gauge.data_points.add(time_unix_nano=TIME).as_double = value
    return metric


async def test_sums_and_gauges_are_taken_in(stage: Stage) -> None:
    request = new_request()
    add_sum(request, "a", 3, code="x", le="0.5")
    add_sum(request, "a", 4.5, code="y")
    add_gauge(request, "g", -2.0)
    assert await stage.export(request) == 0
    assert stage.aggregate.total("a") == 7.5
    assert stage.aggregate.gauge("g", monotonic=0.0) == -2.0
    (kept,) = stage.aggregate.checkpoints()
    assert kept.source == Source("edge", "edge-1")
    assert {run.attributes for run in kept.runs} == {(("code", "x"), ("le", "0.5")), (("code", "y"),)}
    assert stage.count("points.accepted") == 3


async def test_who_reports_is_what_the_certificate_says(stage: Stage) -> None:
    request = new_request()
    request.resource_metrics[0].resource.attributes.add(key="service.name").value.string_value = "auth"
    add_sum(request, "a", 1)
    await stage.export(request, kind="rooms")
    assert [kept.source for kept in stage.aggregate.checkpoints()] == [Source("rooms", "edge-1")]


def _spoil_delta(metric: Metric) -> None:
    metric.sum.aggregation_temporality = DELTA


def _spoil_start(metric: Metric) -> None:
    metric.sum.data_points[0].start_time_unix_nano = 0


def _spoil_time(metric: Metric) -> None:
    metric.sum.data_points[0].time_unix_nano = 2**64 - 1


def _spoil_no_value(metric: Metric) -> None:
    metric.sum.data_points[0].ClearField("as_int")


def _spoil_negative(metric: Metric) -> None:
    metric.sum.data_points[0].as_int = -1


def _spoil_nan(metric: Metric) -> None:
    metric.sum.data_points[0].as_double = float("nan")


def _spoil_infinite(metric: Metric) -> None:
    metric.sum.data_points[0].as_double = float("inf")


def _spoil_huge(metric: Metric) -> None:
    metric.sum.data_points[0].as_int = 2**62


def _spoil_name(metric: Metric) -> None:
    metric.name = "x" * 129


def _spoil_no_name(metric: Metric) -> None:
    metric.name = ""


def _spoil_attribute(metric: Metric) -> None:
    metric.sum.data_points[0].attributes.add(key="k").value.string_value = "x" * 129


def _spoil_unprintable_attribute(metric: Metric) -> None:
    metric.sum.data_points[0].attributes.add(key="k").value.string_value = "\x00" * 100


def _spoil_unprintable_name(metric: Metric) -> None:
    metric.name = "\x1b[2J"


def _spoil_many_attributes(metric: Metric) -> None:
    for n in range(9):
        metric.sum.data_points[0].attributes.add(key=f"k{n}").value.int_value = n


def _spoil_compound_attribute(metric: Metric) -> None:
    metric.sum.data_points[0].attributes.add(key="k").value.array_value.values.add()


def _spoil_histogram(metric: Metric) -> None:
    metric.histogram.data_points.add(count=1)


def _spoil_summary(metric: Metric) -> None:
    metric.summary.data_points.add(count=1)


SPOILERS = [value for name, value in list(globals().items()) if name.startswith("_spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
async def test_a_point_that_is_not_understood_is_rejected_and_the_others_are_not(
    stage: Stage, spoil: Callable[[Metric], None]
) -> None:
    request = new_request()
    spoil(add_sum(request, "bad", 5))
    add_sum(request, "good", 5)
    assert await stage.export(request) == 1
    assert stage.aggregate.total("good") == 5
    assert stage.aggregate.total("bad") == 0
    assert stage.count("points.rejected") == 1


async def test_a_sum_that_also_falls_is_a_gauge(stage: Stage) -> None:
    for value in (9, 4):
        request = new_request()
        add_sum(request, "g", value).sum.is_monotonic = False
        assert await stage.export(request) == 0
    assert stage.aggregate.gauge("g", monotonic=0.0) == 4


@pytest.mark.parametrize("name", ["", "x" * 65])
async def test_an_instance_needs_a_name(stage: Stage, name: str) -> None:
    request = new_request(name)
    add_sum(request, "a", 1)
    with pytest.raises(ParleyError) as caught:
        await stage.export(request)
    assert caught.value.code is ErrorCode.BAD_REQUEST


async def test_too_many_points_are_refused_as_a_whole(stage: Stage) -> None:
    request = new_request()
    metric = add_sum(request, "a", 1)
    for _ in range(100):
        metric.sum.data_points.add()
    with pytest.raises(ParleyError) as caught:
        await stage.export(request)
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert stage.aggregate.checkpoints() == []


async def test_shells_without_points_are_bounded_too(stage: Stage) -> None:
    resources, scopes, metrics = ExportMetricsServiceRequest(), new_request(), new_request()
    for _ in range(10_000):
        resources.resource_metrics.add()
        scopes.resource_metrics[0].scope_metrics.add()
        metrics.resource_metrics[0].scope_metrics[0].metrics.add()
    for request in (resources, scopes, metrics):
        with pytest.raises(ParleyError) as caught:
            await stage.export(request)
        assert caught.value.code is ErrorCode.TOO_LARGE


async def test_series_and_instances_are_bounded(stage: Stage) -> None:
    rejected = 0
    for instance in range(5):
        for batch in range(2):
            request = new_request(f"edge-{instance}")
            for n in range(50):
                add_sum(request, "a", 1, n=f"{batch}-{n}")
            rejected += await stage.export(request)
    assert stage.aggregate.total("a") == 3 * 50
    assert rejected == 500 - 150
    assert stage.count("points.accepted") == 150


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
async def test_whatever_parses_is_answered(stage: Stage, garbage: bytes) -> None:
    request = new_request()
    try:
        request.MergeFromString(garbage)
    except Exception:  # noqa: BLE001 - gRPC itself refuses what is no message
        return
    with contextlib.suppress(ParleyError):
        await stage.export(request)


async def test_what_comes_in_is_sent_on(stage: Stage) -> None:
    request = new_request()
    add_sum(request, "parley.a", 1)
    await stage.export(request)
    assert stage.forwarded == [("metrics", request, 1)]
