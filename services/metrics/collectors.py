"""collectors: OpenTelemetry's three collector services on one server, each with its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.metrics import otlp
from services.metrics.logs import otlp as logs_otlp
from services.metrics.traces import otlp as traces_otlp

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from services.common.clock import Clock
    from services.common.counters import Counters
    from services.metrics.aggregate import Aggregate
    from services.metrics.logs.store import LogStore
    from services.metrics.traces.store import TraceStore


def register(
    server: grpc.aio.Server,
    *,
    aggregate: Aggregate,
    traces: TraceStore,
    logs: LogStore,
    counters: Counters,
    clock: Clock,
    max_points: int,
    forward: Callable[[str, Any, int], object],
) -> None:
    """Add the collectors to a server. `forward(signal, request, count)` is given all that comes in."""
    otlp.register(server, aggregate, counters=counters, clock=clock, max_points=max_points, forward=forward)
    traces_otlp.register(server, traces, counters=counters, clock=clock, forward=forward)
    logs_otlp.register(server, logs, counters=counters, clock=clock, forward=forward)
