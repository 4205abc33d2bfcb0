"""otlp: OpenTelemetry's metrics collector, and what it has in common with those of spans and logs (traces/, logs/).

Who reports is what its certificate says, so that no service can speak for another; the instance's name is its own
word. Every limit is checked before anything is converted: an export may hold four megabytes of anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from services.common.errors import ParleyError
from services.common.identity import SERVICES, peer_identity
from services.common.wire.codes import ErrorCode
from services.metrics.points import Point, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import grpc.aio
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from services.common.clock import Clock
    from services.common.counters import Counters
    from services.metrics.aggregate import Aggregate
    from services.metrics.points import Attributes

    Context = grpc.aio.ServicerContext[Any, Any]

METRICS_SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
ALLOW = dict.fromkeys((METRICS_SERVICE, TRACE_SERVICE, LOGS_SERVICE), SERVICES)

# An export comes from one process: one resource, a few scopes. More is a mistake or an attack.
RESOURCES_MAX = 16
SCOPES_MAX = 64
# What a name may be long, and what a point may have of attributes: ours have at most two short ones.
NAME_CHARS_MAX = 128
ATTRIBUTES_MAX = 8
INSTANCE_CHARS_MAX = 64
# Larger numbers are not exact as floating-point numbers, and nothing here ever counted so far.
VALUE_MAX = 2**53
# Signed, as databases have it: the year 2262.
TIME_NS_MAX = 2**63 - 1
_CUMULATIVE = metrics_pb2.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


class MetricsCollector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes in metrics: cumulative monotonic sums and gauges. Others are answered as rejected points.

    `forward(signal, request, count)` is given each export.
    """

    def __init__(
        self,
        aggregate: Aggregate,
        *,
        counters: Counters,
        clock: Clock,
        max_points: int,
        forward: Callable[[str, Any, int], object],
    ) -> None:
        self._aggregate = aggregate
        self._forward = forward
        self._clock = clock
        self._max_points = max_points
        self._accepted = counters.counter("parley.metrics.points.accepted", "1", "Data points taken in.")
        self._rejected = counters.counter(
            "parley.metrics.points.rejected", "1", "Data points not understood or no room."
        )

    async def Export(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: Context
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        """Take in one export. Errors: too_large, bad_request."""
        self._check_size(request)
        identity = peer_identity(context)
        assert identity is not None, "the allow-list lets nobody in without an identity"
        now, monotonic = self._clock.now(), self._clock.monotonic()
        total = accepted = 0
        for resource_metrics in request.resource_metrics:
            source = Source(identity.kind, instance_name(resource_metrics.resource.attributes))
            points: list[Point] = []
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    total += _count_points(metric)
                    points += _read_points(metric)
            refused = self._aggregate.ingest(source, points, now=now, monotonic=monotonic)
            accepted += len(points) - refused
        self._forward("metrics", request, total)
        rejected = total - accepted
        self._accepted.add(accepted)
        self._rejected.add(rejected)
        response = metrics_service_pb2.ExportMetricsServiceResponse()
        if rejected:
            response.partial_success.rejected_data_points = rejected
            response.partial_success.error_message = (
                "only cumulative sums with a start time and gauges, with short names and finite values, are taken in, "
                "and only so many series"
            )
        return response

    def _check_size(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        check_resources(len(request.resource_metrics))
        count = 0
        for resource_metrics in request.resource_metrics:
            if len(resource_metrics.scope_metrics) > SCOPES_MAX:
                raise ParleyError(ErrorCode.TOO_LARGE, f"more than {SCOPES_MAX} scopes in an export")
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    count += max(1, _count_points(metric))  # a metric without points is work, too
                    if count > self._max_points:
                        raise ParleyError(ErrorCode.TOO_LARGE, f"more than {self._max_points} points in an export")


def register(
    server: grpc.aio.Server,
    aggregate: Aggregate,
    *,
    counters: Counters,
    clock: Clock,
    max_points: int,
    forward: Callable[[str, Any, int], object],
) -> None:
    """Add the collector of metrics to a server. An export of more than `max_points` points is refused."""
    collector = MetricsCollector(aggregate, counters=counters, clock=clock, max_points=max_points, forward=forward)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]


def exports_over(channel: grpc.aio.Channel) -> dict[str, Callable[..., Any]]:
    """What exports metrics, spans and logs to another receiver: coroutine functions (encoded request, timeout)."""
    answers: dict[str, tuple[str, Any]] = {
        "metrics": (METRICS_SERVICE, metrics_service_pb2.ExportMetricsServiceResponse),
        "spans": (TRACE_SERVICE, trace_service_pb2.ExportTraceServiceResponse),
        "logs": (LOGS_SERVICE, logs_service_pb2.ExportLogsServiceResponse),
    }
    return {
        signal: channel.unary_unary(f"/{service}/Export", response_deserializer=answer.FromString)
        for signal, (service, answer) in answers.items()
    }


def check_resources(count: int) -> None:
    """Raises ParleyError too_large where an export has more resources than any of ours."""
    if count > RESOURCES_MAX:
        raise ParleyError(ErrorCode.TOO_LARGE, f"more than {RESOURCES_MAX} resources in an export")


def instance_name(attributes: Iterable[KeyValue]) -> str:
    """What the reporting instance calls itself. Raises ParleyError bad_request."""
    for attribute in attributes:
        if attribute.key == "service.instance.id":
            name = attribute.value.string_value
            if 0 < len(name) <= INSTANCE_CHARS_MAX:
                return name
    raise ParleyError(
        ErrorCode.BAD_REQUEST, f"service.instance.id must be a string of 1 to {INSTANCE_CHARS_MAX} characters"
    )


def _count_points(metric: metrics_pb2.Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


def _read_points(metric: metrics_pb2.Metric) -> Iterator[Point]:
    """The points of a metric that are understood."""
    data: metrics_pb2.Sum | metrics_pb2.Gauge
    match metric.WhichOneof("data"):
        case "sum" if metric.sum.aggregation_temporality == _CUMULATIVE:
            data, is_sum = metric.sum, metric.sum.is_monotonic
        case "gauge":
            data, is_sum = metric.gauge, False
        case _:
            return
    if not 0 < len(metric.name) <= NAME_CHARS_MAX or not metric.name.isprintable():
        return
    for data_point in data.data_points:
        attributes = _read_attributes(data_point.attributes)
        value = _read_value(data_point)
        start_ns, time_ns = data_point.start_time_unix_nano, data_point.time_unix_nano
        if attributes is None or value is None or max(start_ns, time_ns) > TIME_NS_MAX:
            continue
        if is_sum and (value < 0 or not start_ns):
            continue
        yield Point(metric.name, attributes, is_sum, value, start_ns if is_sum else 0, time_ns)


def _read_value(data_point: metrics_pb2.NumberDataPoint) -> float | None:
    """The number, or None where there is none or it is out of range."""
    kind = data_point.WhichOneof("value")
    if kind is None:
        return None
    value: float = data_point.as_int if kind == "as_int" else data_point.as_double
    return value if math.isfinite(value) and abs(value) <= VALUE_MAX else None


def _read_attributes(pairs: Iterable[KeyValue]) -> Attributes | None:
    """The attributes in order, or None where there are too many, too long, unprintable, or compound ones."""
    attributes: list[tuple[str, str]] = []
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind not in ("string_value", "bool_value", "int_value", "double_value"):
            return None
        value = str(getattr(pair.value, kind))
        if max(len(pair.key), len(value)) > NAME_CHARS_MAX or len(attributes) >= ATTRIBUTES_MAX:
            return None
        if not (pair.key + value).isprintable():  # six bytes each in a checkpoint, and in no name of ours
            return None
        attributes.append((pair.key, value))
    return tuple(sorted(attributes))
