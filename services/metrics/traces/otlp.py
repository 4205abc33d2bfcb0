"""otlp: OpenTelemetry's trace collector: takes in spans, and says openly which it does not take.

Who reports is what its certificate says. Every limit is checked before anything is converted, and what is cut off or
refused is counted: an export may hold four megabytes of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from services.common.errors import ParleyError
from services.common.identity import EDGE, peer_identity
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.metrics.otlp import SCOPES_MAX, TIME_NS_MAX, check_resources, instance_name
from services.metrics.traces.spans import CLIENT, SPAN_ID_BYTES, TRACE_ID_BYTES, Link, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import grpc.aio
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from services.common.clock import Clock
    from services.common.counters import Counters
    from services.metrics.traces.store import TraceStore

    Context = grpc.aio.ServicerContext[Any, Any]

SPANS_MAX: Final = 4_096
"""Spans in one export: eight times what OpenTelemetry's SDKs send at once."""

ATTRIBUTES_MAX: Final = 32
LINKS_MAX: Final = 128
CHARS_MAX: Final = 256
"""Of a span are kept so many attributes and links, and so many characters of each name and value; the rest is cut."""

_KINDS: Final = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_ERROR: Final = trace_pb2.Status.StatusCode.STATUS_CODE_ERROR
_log = get_logger(__name__)


class TraceCollector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes in spans. Those with malformed ids or times are answered as rejected; so are all when the store is busy.

    `forward(signal, request, count)` is given each export with spans that are understood, kept or not.
    """

    def __init__(
        self, store: TraceStore, *, counters: Counters, clock: Clock, forward: Callable[[str, Any, int], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._forward = forward
        self._accepted = counters.counter("parley.metrics.spans.accepted", "1", "Spans taken in.")
        self._rejected = counters.counter("parley.metrics.spans.rejected", "1", "Spans not understood or not kept.")
        self._evicted = counters.counter("parley.metrics.spans.evicted", "1", "Spans given up early, to make room.")

    async def Export(  # noqa: N802 - the method's name in the protocol
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Context
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take in one export. Errors: too_large, bad_request."""
        total = _check_size(request)
        identity = peer_identity(context)
        assert identity is not None, "the allow-list lets nobody in without an identity"
        spans = _read_spans(request, identity.kind)
        self._forward("spans", request, len(spans))
        del request  # it may be large, and the disk slow
        reason = "ids must be of W3C trace context, and a span must not end before it begins"
        if spans:
            try:
                self._evicted.add(await self._store.keep(spans, now=self._clock.now()))
            except ParleyError as error:  # the sender does not try again: spans are worth less than its time
                _log.warning("spans not kept", count=len(spans), code=error.code, reason=error.message)
                spans, reason = [], "the store is busy"
        self._accepted.add(len(spans))
        self._rejected.add(total - len(spans))
        response = trace_service_pb2.ExportTraceServiceResponse()
        if len(spans) < total:
            response.partial_success.rejected_spans = total - len(spans)
            response.partial_success.error_message = reason
        return response


def register(
    server: grpc.aio.Server,
    store: TraceStore,
    *,
    counters: Counters,
    clock: Clock,
    forward: Callable[[str, Any, int], object],
) -> None:
    """Add the trace collector to a server."""
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
        TraceCollector(store, counters=counters, clock=clock, forward=forward), server
    )


def _check_size(request: trace_service_pb2.ExportTraceServiceRequest) -> int:
    """How many spans there are. Raises ParleyError too_large."""
    check_resources(len(request.resource_spans))
    total = 0
    for resource_spans in request.resource_spans:
        if len(resource_spans.scope_spans) > SCOPES_MAX:
            raise ParleyError(ErrorCode.TOO_LARGE, f"more than {SCOPES_MAX} scopes in an export")
        total += sum(len(scope_spans.spans) for scope_spans in resource_spans.scope_spans)
    if total > SPANS_MAX:
        raise ParleyError(ErrorCode.TOO_LARGE, f"more than {SPANS_MAX} spans in an export")
    return total


def _read_spans(request: trace_service_pb2.ExportTraceServiceRequest, kind: str) -> list[Span]:
    """The spans that are understood. Raises ParleyError bad_request."""
    spans = []
    for resource_spans in request.resource_spans:
        instance = instance_name(resource_spans.resource.attributes)
        service = _service_name(kind, resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            read = (_read_span(span, service, instance) for span in scope_spans.spans)
            spans += [span for span in read if span is not None]
    return spans


def _read_span(span: trace_pb2.Span, service: str, instance: str) -> Span | None:
    """The span, cut to size, or None where it cannot be one."""
    ids_fit = _is_id(span.trace_id, TRACE_ID_BYTES) and _is_id(span.span_id, SPAN_ID_BYTES)
    if not ids_fit or (span.parent_span_id and len(span.parent_span_id) != SPAN_ID_BYTES) or not span.name:
        return None
    if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano <= TIME_NS_MAX:
        return None
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        service=service,
        instance=instance,
        name=span.name[:CHARS_MAX],
        kind=_KINDS.get(span.kind, "internal"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=span.status.code == _ERROR,
        status_message=span.status.message[:CHARS_MAX],
        attributes=read_attributes(span.attributes),
        links=[
            Link(link.trace_id.hex(), link.span_id.hex())
            for link in span.links[:LINKS_MAX]
            if _is_id(link.trace_id, TRACE_ID_BYTES) and _is_id(link.span_id, SPAN_ID_BYTES)
        ],
    )


def _service_name(kind: str, attributes: Iterable[KeyValue]) -> str:
    """Who measured: the service that reports, or, where an edge says so, a client of it."""
    is_client = kind == EDGE and any(
        pair.key == "service.name" and pair.value.string_value == CLIENT for pair in attributes
    )
    return CLIENT if is_client else kind


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def read_attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    """Plain attributes as text; compound ones are left out."""
    attributes: dict[str, str] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if len(attributes) < ATTRIBUTES_MAX and kind in ("string_value", "bool_value", "int_value", "double_value"):
            attributes[pair.key[:CHARS_MAX]] = str(getattr(pair.value, kind))[:CHARS_MAX]
    return attributes
