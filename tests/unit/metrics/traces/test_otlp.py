from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics.otlp import RESOURCES_MAX, SCOPES_MAX
from services.metrics.traces import otlp
from services.metrics.traces.spans import Link, Span
from tests.helpers.instances import T0
from tests.unit.metrics.test_otlp import Peer

START = int(T0 * 1e9)


class FakeStore:
    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.evicts = 0
        self.failure: ParleyError | None = None

    async def keep(self, reported: Sequence[Span], *, now: float) -> int:
        assert now == T0
        if self.failure is not None:
            raise self.failure
        self.spans += reported
        return self.evicts


class Stage:
    def __init__(self) -> None:
        self.counters = Counters()
        self.store = FakeStore()
        store: Any = self.store
        self.forwarded: list[tuple[str, Any, int]] = []
        self.collector = otlp.TraceCollector(
            store,
            counters=self.counters,
            clock=FakeClock(T0),
            forward=lambda *given: self.forwarded.append(given),
        )

    async def export(self, request: ExportTraceServiceRequest, kind: str = "edge") -> int:
        """Returns how many spans were rejected."""
        context: Any = Peer(kind)
        response = await self.collector.Export(request, context)
        assert bool(response.partial_success.error_message) == bool(response.partial_success.rejected_spans)
        return response.partial_success.rejected_spans

    def count(self, name: str) -> float:
        return self.counters.counter(f"parley.metrics.spans.{name}").value


@pytest.fixture
def stage() -> Stage:
    return Stage()


def new_request(instance: str = "edge-1") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    attribute = request.resource_spans.add().resource.attributes.add(key="service.instance.id")
    attribute.value.string_value = instance
    request.resource_spans[0].scope_spans.add()
    return request


def add_span(request: ExportTraceServiceRequest, name: str = "text_message") -> OtlpSpan:
    return (
        request.resource_spans[-1]
        .scope_spans[0]
        .spans.add(
            trace_id=b"\x01" * 16,
            span_id=b"\x02" * 8,
            name=name,
            kind=OtlpSpan.SPAN_KIND_SERVER,
            start_time_unix_nano=START,
            end_time_unix_nano=START + 5,
        )
    )


async def test_a_span_is_taken_in_whole(stage: Stage) -> None:
    request = new_request()
    span = add_span(request)
    span.parent_span_id = b"\x03" * 8
    span.status.code = 2
    span.status.message = "unavailable"
    span.attributes.add(key="text").value.string_value = "x"
    span.attributes.add(key="number").value.int_value = 7
    span.attributes.add(key="compound").value.array_value.values.add().int_value = 1
    span.links.add(trace_id=b"\x04" * 16, span_id=b"\x05" * 8)
    span.links.add(trace_id=b"\x04", span_id=b"\x05" * 8)
    assert await stage.export(request, kind="rooms") == 0
    assert stage.store.spans == [
        Span(
            trace_id="01" * 16,
            span_id="02" * 8,
            parent_span_id="03" * 8,
            service="rooms",
            instance="edge-1",
            name="text_message",
            kind="server",
            start_ns=START,
            end_ns=START + 5,
            is_error=True,
            status_message="unavailable",
            attributes={"text": "x", "number": "7"},
            links=[Link("04" * 16, "05" * 8)],
        )
    ]
    assert (stage.count("accepted"), stage.count("rejected")) == (1, 0)


def _no_id(span: OtlpSpan) -> None:
    span.span_id = b""


def _zero_trace(span: OtlpSpan) -> None:
    span.trace_id = bytes(16)


def _long_trace(span: OtlpSpan) -> None:
    span.trace_id = b"\x01" * 17


def _short_parent(span: OtlpSpan) -> None:
    span.parent_span_id = b"\x01"


def _no_name(span: OtlpSpan) -> None:
    span.name = ""


def _backwards(span: OtlpSpan) -> None:
    span.end_time_unix_nano = START - 1


def _no_start(span: OtlpSpan) -> None:
    span.start_time_unix_nano = 0


def _far_future(span: OtlpSpan) -> None:
    span.end_time_unix_nano = 2**64 - 1


@pytest.mark.parametrize(
    "spoil", [_no_id, _zero_trace, _long_trace, _short_parent, _no_name, _backwards, _no_start, _far_future]
)
async def test_a_malformed_span_is_rejected_and_spoils_no_other(
    stage: Stage, spoil: Callable[[OtlpSpan], None]
) -> None:
    request = new_request()
    spoil(add_span(request))
    add_span(request, "good")
    assert await stage.export(request) == 1
    assert [span.name for span in stage.store.spans] == ["good"]
    assert (stage.count("accepted"), stage.count("rejected")) == (1, 1)


async def test_what_is_too_long_is_cut(stage: Stage) -> None:
    request = new_request()
    span = add_span(request, "n" * 5_000)
    for number in range(200):
        span.attributes.add(key=f"{number}{'k' * 1_000}").value.string_value = "v" * 100_000
        span.links.add(trace_id=b"\x04" * 16, span_id=b"\x05" * 8)
    await stage.export(request)
    [kept] = stage.store.spans
    assert len(kept.name) == otlp.CHARS_MAX
    assert len(kept.attributes) == otlp.ATTRIBUTES_MAX
    assert {len(text) for pair in kept.attributes.items() for text in pair} == {otlp.CHARS_MAX}
    assert len(kept.links) == otlp.LINKS_MAX


async def test_too_many_of_anything_are_refused_whole(stage: Stage) -> None:
    spans, scopes, resources = new_request(), new_request(), new_request()
    for _ in range(otlp.SPANS_MAX + 1):
        spans.resource_spans[0].scope_spans[0].spans.add()
    for _ in range(SCOPES_MAX):
        scopes.resource_spans[0].scope_spans.add()
    for _ in range(RESOURCES_MAX):
        resources.resource_spans.add()
    for request in (spans, scopes, resources):
        with pytest.raises(ParleyError) as caught:
            await stage.export(request)
        assert caught.value.code is ErrorCode.TOO_LARGE
    assert stage.store.spans == []


async def test_an_instance_has_to_say_its_name(stage: Stage) -> None:
    with pytest.raises(ParleyError) as caught:
        await stage.export(new_request(""))
    assert caught.value.code is ErrorCode.BAD_REQUEST


async def test_a_busy_store_costs_the_spans_and_is_said_openly(stage: Stage) -> None:
    request = new_request()
    add_span(request)
    stage.store.failure = ParleyError(ErrorCode.OVERLOADED, "too much waits")
    assert await stage.export(request) == 1
    assert (stage.count("accepted"), stage.count("rejected")) == (0, 1)


async def test_what_had_to_make_room_is_counted(stage: Stage) -> None:
    request = new_request()
    add_span(request)
    stage.store.evicts = 3
    await stage.export(request)
    assert stage.count("evicted") == 3
