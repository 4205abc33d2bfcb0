"""Tracing: the spans of this process, on OpenTelemetry's SDK.

Whether something is traced is decided before a span is made (at the edge, by chance or by wish; elsewhere by the
context that a caller sends), so what is not sampled costs a comparison. A span may be made after the fact, from times
that were taken anyway: that is how what failed or was slow gets one whatever chance has said.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.common.wire.trace_context import SPAN_ID_BYTES, TRACE_ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    Attributes = Mapping[str, str | int | float | bool]

__all__ = ["Link", "Span", "SpanKind", "Status", "StatusCode", "Tracing", "current", "install"]

MESSAGE_ID: Final = "parley.message.id"
ROOM_ID: Final = "parley.room.id"
USER_ID: Final = "parley.user.id"
"""Attributes by which traces are found. They hold ids, never names or texts."""

_NS_PER_S: Final = 1_000_000_000
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class _Handover(SpanProcessor):
    """Gives ended spans away."""

    def __init__(self, put: Callable[[ReadableSpan], object]) -> None:
        self._put = put

    def on_end(self, span: ReadableSpan) -> None:
        self._put(span)


class Tracing:
    """Makes spans. `put` takes those that have ended; None: nobody wants them, and none should be made.

    What takes longer than `slow_s` deserves a span by itself.
    """

    def __init__(
        self,
        *,
        resource: Resource | None = None,
        put: Callable[[ReadableSpan], object] | None = None,
        slow_s: float = 1.0,
    ) -> None:
        self.is_on = put is not None
        self.slow_s = slow_s
        self._put = put
        self._resource = resource or Resource({})
        provider = TracerProvider(sampler=ALWAYS_ON, resource=self._resource, shutdown_on_exit=False)
        if put is not None:
            provider.add_span_processor(_Handover(put))
        self._tracer = provider.get_tracer("parley")

    def begin(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: bytes | Span | None = None,
        attributes: Attributes | None = None,
        links: Iterable[bytes] = (),
        start_ns: int | None = None,
    ) -> Span:
        """Begins a span: below `parent`, or, where that is None, a trace of its own."""
        return self._tracer.start_span(
            name,
            context=_below(parent),
            kind=kind,
            attributes=attributes,
            links=[Link(_span_context(link)) for link in links],
            start_time=start_ns,
        )

    def record(
        self,
        name: str,
        *,
        start_ns: int,
        end_ns: int,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: bytes | Span | None = None,
        attributes: Attributes | None = None,
        links: Iterable[bytes] = (),
        error: str | None = None,
    ) -> bytes:
        """Makes a span of what has happened; returns its context. `error` says how it failed."""
        span = self.begin(name, kind=kind, parent=parent, attributes=attributes, links=links, start_ns=start_ns)
        if error is not None:
            fail(span, error)
        span.end(max(start_ns, end_ns))
        return context_of(span)

    def pass_on(
        self,
        name: str,
        *,
        service: str,
        context: bytes,
        parent: bytes | None,
        start_ns: int,
        end_ns: int,
        attributes: Attributes | None = None,
    ) -> None:
        """Hands over a span that another program has made, with the ids that it chose."""
        if self._put is None:
            return
        self._put(
            ReadableSpan(
                name,
                context=_span_context(context),
                parent=None if parent is None else _span_context(parent),
                resource=self._resource.merge(Resource({"service.name": service})),
                attributes=attributes,
                kind=SpanKind.CLIENT,
                start_time=start_ns,
                end_time=end_ns,
            )
        )


def fail(span: Span, reason: str) -> None:
    """The span's work has failed."""
    span.set_attribute("error.type", reason)
    span.set_status(Status(StatusCode.ERROR, reason))


def context_of(span: Span) -> bytes:
    """The span's context, to be sent to whoever goes on."""
    context = span.get_span_context()
    return context.trace_id.to_bytes(TRACE_ID_BYTES, "big") + context.span_id.to_bytes(SPAN_ID_BYTES, "big")


def ns_of(moment: float, *, monotonic: float) -> int:
    """Unix nanoseconds of a moment of the monotonic clock, which is now at `monotonic`."""
    return time.time_ns() - int((monotonic - moment) * _NS_PER_S)


def _below(parent: bytes | Span | None) -> Context:
    if parent is None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    if isinstance(parent, bytes):
        parent = NonRecordingSpan(_span_context(parent))
    return trace.set_span_in_context(parent)


def _span_context(context: bytes) -> SpanContext:
    trace_id, span_id = context[:TRACE_ID_BYTES], context[TRACE_ID_BYTES:]
    return SpanContext(
        int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), is_remote=True, trace_flags=_SAMPLED
    )


_current: list[Tracing] = [Tracing()]


def current() -> Tracing:
    """The tracing of this process; one that is off, until another is installed."""
    return _current[0]


def install(tracing: Tracing | None) -> None:
    """From now on this is the tracing of this process; None: none."""
    _current[0] = tracing if tracing is not None else Tracing()
