"""servicer: what operators may ask of the metrics service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from services.common.errors import ParleyError
from services.common.identity import ADMIN, EDGE
from services.common.wire.codes import ErrorCode
from services.metrics.catalogue import NAMES
from services.metrics.graph_data import DAY_S, HOUR_S
from services.metrics.logs.records import LEVELS, LogQuery
from services.metrics.traces.spans import MESSAGE_ID, USER_ID, Span, TraceQuery, is_message_id, is_trace_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc.aio

    from services.common.clock import Clock
    from services.metrics.logs.records import Record
    from services.metrics.logs.store import LogStore
    from services.metrics.reporter import Reporter
    from services.metrics.traces.store import TraceStore

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = "parley.metrics.v1.MetricsService"
OWN_SERVICE = "parley.metrics.v1.MessageTraceService"
ALLOW: Final = {SERVICE: frozenset({ADMIN}), OWN_SERVICE: frozenset({EDGE})}

INTERVAL_S_MIN: Final = 0.2
INTERVAL_S_MAX: Final = 60.0
INTERVAL_S_DEFAULT: Final = 1.0
WATCHERS_MAX: Final = 32
"""Streams of statistics at a time: each is a screen that somebody looks at."""

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000
_NS_PER_MS: Final = 1_000_000
_DURATION_MS_MAX: Final = 1e12
_RETRY_AFTER_S: Final = 5.0
_PERIODS: Final = {
    metrics_pb2.GRAPH_PERIOD_UNSPECIFIED: DAY_S,
    metrics_pb2.GRAPH_PERIOD_HOUR: HOUR_S,
    metrics_pb2.GRAPH_PERIOD_DAY: DAY_S,
}
_FORMATS: Final = {
    metrics_pb2.GRAPH_FORMAT_UNSPECIFIED: "",
    metrics_pb2.GRAPH_FORMAT_PNG: "png",
    metrics_pb2.GRAPH_FORMAT_SVG: "svg",
}


class MessageTraceServicer(metrics_pb2_grpc.MessageTraceServiceServicer):
    """parley.metrics.v1.MessageTraceService."""

    def __init__(self, traces: TraceStore) -> None:
        self._traces = traces

    async def FindOwnMessageTrace(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.FindOwnMessageTraceRequest, _context: Context
    ) -> metrics_pb2.FindOwnMessageTraceResponse:
        """The trace of a message that this user has sent. Errors: bad_request."""
        if not is_message_id(request.message_id) or not request.user_id:
            raise _bad_request("message_id: room_id-epoch-seq; user_id: is required")
        trace_id = await self._traces.find_message(request.message_id)
        found = [] if trace_id is None else await self._traces.trace(trace_id)
        is_own = any(
            span.attributes.get(MESSAGE_ID) == request.message_id and span.attributes.get(USER_ID) == request.user_id
            for span in found
        )
        own = [msgspec.structs.replace(span, attributes={}, links=[]) for span in found if is_own]
        return metrics_pb2.FindOwnMessageTraceResponse(trace=_trace(trace_id or "", own))


class MetricsServicer(metrics_pb2_grpc.MetricsServiceServicer):
    """parley.metrics.v1.MetricsService."""

    def __init__(self, reporter: Reporter, traces: TraceStore, logs: LogStore, *, clock: Clock) -> None:
        self._reporter = reporter
        self._traces = traces
        self._logs = logs
        self._clock = clock
        self._watchers = 0

    async def GetStatistics(  # noqa: N802 - the method's name in the protocol
        self, _request: metrics_pb2.GetStatisticsRequest, _context: Context
    ) -> metrics_pb2.GetStatisticsResponse:
        """The statistics as they stand now."""
        statistics = self._reporter.statistics()
        return metrics_pb2.GetStatisticsResponse(timestamp_ms=int(statistics.at * 1000), values=statistics.values)

    async def StreamStatistics(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.StreamStatisticsRequest, _context: Context
    ) -> AsyncIterator[metrics_pb2.StreamStatisticsResponse]:
        """The statistics now and then at every interval. Errors: bad_request, overloaded."""
        interval_s = request.interval_s or INTERVAL_S_DEFAULT
        if not INTERVAL_S_MIN <= interval_s <= INTERVAL_S_MAX:
            raise _bad_request(f"interval_s: {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g}")
        if self._watchers >= WATCHERS_MAX:
            message = f"{WATCHERS_MAX} callers watch the statistics already"
            raise ParleyError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_AFTER_S)
        self._watchers += 1
        try:
            while True:
                statistics = self._reporter.statistics()
                yield metrics_pb2.StreamStatisticsResponse(
                    timestamp_ms=int(statistics.at * 1000), values=statistics.values
                )
                await self._clock.sleep(interval_s)
        finally:
            self._watchers -= 1

    async def DrawGraphs(  # noqa: N802 - the method's name in the protocol
        self, _request: metrics_pb2.DrawGraphsRequest, _context: Context
    ) -> metrics_pb2.DrawGraphsResponse:
        """Draw all graphs now. Errors: unavailable."""
        paths = await self._reporter.draw()
        return metrics_pb2.DrawGraphsResponse(paths=[str(path) for path in paths])

    async def GetGraph(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.GetGraphRequest, _context: Context
    ) -> metrics_pb2.GetGraphResponse:
        """What a graph shows. Errors: bad_request, unavailable."""
        if request.name not in NAMES:
            raise _bad_request(f"name: one of {', '.join(NAMES)}")
        if request.period not in _PERIODS or request.format not in _FORMATS:
            raise _bad_request("period and format: as the protocol lists them")
        period_s, picture_format = _PERIODS[request.period], _FORMATS[request.format]
        picture = await self._reporter.picture(request.name, period_s, picture_format) if picture_format else b""
        if picture is None:
            raise ParleyError(ErrorCode.UNAVAILABLE, "not drawn yet: DrawGraphs draws all graphs")
        shown = await self._reporter.graph(request.name, period_s)
        return metrics_pb2.GetGraphResponse(
            title=shown.title,
            unit=shown.unit,
            times_ms=[int(at * 1_000) for at in shown.times],
            series=[
                metrics_pb2.GraphSeries(name=name, values=values, is_below=name == shown.below)
                for name, values in shown.series.items()
            ],
            picture=picture,
        )

    async def ListLogs(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.ListLogsRequest, _context: Context
    ) -> metrics_pb2.ListLogsResponse:
        """The newest log records. Errors: bad_request."""
        if not 0 <= request.page_size <= PAGE_SIZE_MAX:
            raise _bad_request(f"page_size: 0 to {PAGE_SIZE_MAX}")
        if request.trace_id and not is_trace_id(request.trace_id):
            raise _bad_request("trace_id: 32 hex digits, not all 0")
        if request.level_min and request.level_min not in LEVELS:
            raise _bad_request(f"level_min: one of {', '.join(LEVELS)}")
        wanted = LogQuery(
            request.page_size or PAGE_SIZE_DEFAULT,
            trace_id=request.trace_id,
            level_min=LEVELS.get(request.level_min, 0),
            instance=request.instance,
        )
        return metrics_pb2.ListLogsResponse(records=[_record(record) for record in await self._logs.newest(wanted)])

    async def GetTrace(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.GetTraceRequest, _context: Context
    ) -> metrics_pb2.GetTraceResponse:
        """All spans of a trace. Errors: bad_request."""
        trace_id = request.trace_id.lower()
        if not is_trace_id(trace_id):
            raise _bad_request("trace_id: 32 hex digits, not all 0")
        return metrics_pb2.GetTraceResponse(trace=_trace(trace_id, await self._traces.trace(trace_id)))

    async def FindTraceOfMessage(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.FindTraceOfMessageRequest, _context: Context
    ) -> metrics_pb2.FindTraceOfMessageResponse:
        """The trace of a message. Errors: bad_request."""
        if not is_message_id(request.message_id):
            raise _bad_request("message_id: room_id-epoch-seq")
        trace_id = await self._traces.find_message(request.message_id)
        found = [] if trace_id is None else await self._traces.trace(trace_id)
        return metrics_pb2.FindTraceOfMessageResponse(trace=_trace(trace_id or "", found))

    async def ListTraces(  # noqa: N802 - the method's name in the protocol
        self, request: metrics_pb2.ListTracesRequest, _context: Context
    ) -> metrics_pb2.ListTracesResponse:
        """The newest traces. Errors: bad_request."""
        if not 0 <= request.page_size <= PAGE_SIZE_MAX:
            raise _bad_request(f"page_size: 0 to {PAGE_SIZE_MAX}")
        if not 0 <= request.duration_min_ms <= _DURATION_MS_MAX:
            raise _bad_request("duration_min_ms: not below 0, and not longer than people live")
        wanted = TraceQuery(
            request.page_size or PAGE_SIZE_DEFAULT,
            duration_min_ns=int(request.duration_min_ms * _NS_PER_MS),
            only_errors=request.only_errors,
            room_id=request.room_id,
            user_id=request.user_id,
        )
        return metrics_pb2.ListTracesResponse(traces=[_summary(span) for span in await self._traces.entries(wanted)])


def register(server: grpc.aio.Server, reporter: Reporter, traces: TraceStore, logs: LogStore, *, clock: Clock) -> None:
    """Add the services to a server."""
    servicer = MetricsServicer(reporter, traces, logs, clock=clock)
    metrics_pb2_grpc.add_MetricsServiceServicer_to_server(servicer, server)
    metrics_pb2_grpc.add_MessageTraceServiceServicer_to_server(MessageTraceServicer(traces), server)


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)


def _trace(trace_id: str, spans: Sequence[Span]) -> metrics_pb2.Trace:
    return metrics_pb2.Trace(trace_id=trace_id if spans else "", spans=[_span(span) for span in spans])


def _span(span: Span) -> metrics_pb2.Span:
    return metrics_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        service=span.service,
        instance=span.instance,
        name=span.name,
        kind=span.kind,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        is_error=span.is_error,
        status_message=span.status_message,
        attributes=span.attributes,
        links=[metrics_pb2.SpanLink(trace_id=link.trace_id, span_id=link.span_id) for link in span.links],
    )


def _record(record: Record) -> metrics_pb2.LogRecord:
    return metrics_pb2.LogRecord(
        time_ns=record.time_ns,
        service=record.service,
        instance=record.instance,
        level=record.level_name,
        body=record.body,
        attributes=record.attributes,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )


def _summary(span: Span) -> metrics_pb2.TraceSummary:
    return metrics_pb2.TraceSummary(
        trace_id=span.trace_id,
        name=span.name,
        service=span.service,
        instance=span.instance,
        started_at_ms=span.start_ns // _NS_PER_MS,
        duration_ms=(span.end_ns - span.start_ns) / _NS_PER_MS,
        is_error=span.is_error,
        message_id=span.attributes.get(MESSAGE_ID, ""),
    )
