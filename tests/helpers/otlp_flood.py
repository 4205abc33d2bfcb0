"""A flood of telemetry: exports over OTLP that are as large, as many and as new as they can be, or are none at all.

Each export is encoded once, with a mark in every name, id and value; the mark is replaced before it is sent, so that
no two exports have a name in common and making them costs less than taking them.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import grpc.aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helpers import rpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

SPANS, LOGS, METRICS = (
    f"/opentelemetry.proto.collector.{path}/Export"
    for path in ("trace.v1.TraceService", "logs.v1.LogsService", "metrics.v1.MetricsService")
)
MARK: Final = b"@MARK@@@"
AT_ONCE: Final = 16
"""Exports that each identity has under way."""

EXPORT_S: Final = 10.0
START_NS: Final = 1_700_000_000_000_000_000
KINDS: Final = ("edge", "rooms", "auth")


def _attributes(item: Message, count: int, chars: int) -> None:
    for number in range(count):
        pair = item.attributes.add()  # type: ignore[attr-defined]
        pair.key = f"{MARK.decode()}-{number}"
        pair.value.string_value = (MARK.decode() * (chars // len(MARK)))[:chars]


def _name(resource: Message, name: str = MARK.decode()) -> None:
    pair = resource.attributes.add()  # type: ignore[attr-defined]
    pair.key, pair.value.string_value = "service.instance.id", name


def spans(
    count: int, *, attributes: int = 30, chars: int = 248, instance: str = MARK.decode(), took_ns: int = 1
) -> bytes:
    """An export of spans, each of a trace of its own and of a message of its own; none takes less than no time."""
    request = ExportTraceServiceRequest()
    one = request.resource_spans.add()
    _name(one.resource, instance)
    scope = one.scope_spans.add()
    for number in range(count):
        made = scope.spans.add(name=f"{MARK.decode()}{number}", kind=2)
        made.trace_id, made.span_id = MARK + number.to_bytes(8), (number + 1).to_bytes(8)
        made.start_time_unix_nano, made.end_time_unix_nano = START_NS, START_NS + took_ns
        for key in ("parley.message.id", "parley.room.id", "parley.user.id"):
            pair = made.attributes.add(key=key)
            pair.value.string_value = f"{MARK.decode()}{number}".ljust(chars, "x")
        _attributes(made, attributes - 3, chars)
    return request.SerializeToString()


def logs(count: int, *, chars: int = 900) -> bytes:
    """An export of log records."""
    request = ExportLogsServiceRequest()
    one = request.resource_logs.add()
    _name(one.resource)
    scope = one.scope_logs.add()
    for number in range(count):
        record = scope.log_records.add(time_unix_nano=START_NS, severity_number=17)  # type: ignore[arg-type]
        record.body.string_value = f"{number} ".ljust(chars - len(MARK), "x") + MARK.decode()
        record.trace_id, record.span_id = MARK + number.to_bytes(8), (number + 1).to_bytes(8)
    return request.SerializeToString()


def points(count: int, *, attributes: int = 8, chars: int = 120, instance: str = MARK.decode()) -> bytes:
    """An export of counters and gauges, each with a name of its own."""
    request = ExportMetricsServiceRequest()
    one = request.resource_metrics.add()
    _name(one.resource, instance)
    scope = one.scope_metrics.add()
    for number in range(count):
        metric = scope.metrics.add(name=f"{MARK.decode()}.{number}")
        if number % 2:
            metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2  # type: ignore[assignment]
            point = metric.sum.data_points.add(start_time_unix_nano=START_NS, time_unix_nano=START_NS + 1, as_int=1)
        else:
            point = metric.gauge.data_points.add(time_unix_nano=START_NS + 1, as_int=1)
        _attributes(point, attributes, chars)
    return request.SerializeToString()


def empty_spans(count: int) -> bytes:
    """Two bytes each, and a hundred times that when they are decoded."""
    request = ExportTraceServiceRequest()
    one = request.resource_spans.add()
    _name(one.resource)
    scope = one.scope_spans.add()
    for _ in range(count):
        scope.spans.add()
    return request.SerializeToString()


def exports() -> list[tuple[str, bytes]]:
    """What the flood consists of: method and request."""
    return [
        (SPANS, spans(400)),
        (SPANS, spans(4_000, attributes=3, chars=64)),
        (LOGS, logs(4_000)),
        (METRICS, points(1_500)),
        (METRICS, points(9_000, attributes=1, chars=64)),
        (METRICS, points(1_500, instance="one-that-is-known")),
        # Too large, in each way that there is.
        (SPANS, spans(4_500, attributes=3, chars=32)),
        (SPANS, empty_spans(1_500_000)),
        (LOGS, logs(4_097, chars=64)),
        (METRICS, points(10_001, attributes=0)),
        (METRICS, b"\x0a" + b"x" * 5_000_000),
        # Not what it says.
        (SPANS, b"\xff" * 1_000),
        (LOGS, b"\xff" * 1_000_000),
        (METRICS, b"\xff" * 10),
        (SPANS, spans(100, instance="")),
        (SPANS, spans(500, attributes=3, chars=16, took_ns=-1)),
        (METRICS, points(100, instance="x" * 65)),
    ]


async def flood(address: str, *, seconds: float) -> Counter[str]:
    """Sends for so long, as several identities at once; how the exports ended, by status."""
    ended: Counter[str] = Counter()
    made = exports()
    until = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(rpc.channel(address, identity=kind, service="metrics")) for kind in KINDS
        ]

        async def send(channel: grpc.aio.Channel, first: int) -> None:
            for method, template in itertools.islice(itertools.cycle(made), first, None):
                if time.monotonic() > until:
                    return
                request = template.replace(MARK, secrets.token_hex(len(MARK) // 2).encode())
                try:
                    await channel.unary_unary(method)(request, timeout=EXPORT_S)
                    ended["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    ended[error.code().name] += 1

        await asyncio.gather(*(send(channel, 5 * number) for channel in channels for number in range(AT_ONCE)))
    return ended
