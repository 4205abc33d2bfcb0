"""Spans in a test: a tracing that keeps what was made."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from services.common import tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan


@contextmanager
def recorded(slow_s: float = 1.0) -> Iterator[list[ReadableSpan]]:
    """The spans that end while this is in force, in order."""
    ended: list[ReadableSpan] = []
    tracing.install(tracing.Tracing(resource=Resource({"service.name": "test"}), put=ended.append, slow_s=slow_s))
    try:
        yield ended
    finally:
        tracing.install(None)


def one(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    """The only span of that name."""
    [found] = [span for span in spans if span.name == name]
    return found


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is a child of the other one, in the same trace."""
    assert span.context is not None
    assert parent.context is not None
    return (
        span.parent is not None
        and span.parent.span_id == parent.context.span_id
        and span.context.trace_id == parent.context.trace_id
    )
