from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import pytest
from opentelemetry import trace

from services.common import tracing
from services.common.rpc_spans import TRACEPARENT, ServerSpans, UnaryStreamContext, UnaryUnarySpans
from services.common.wire.trace_context import format_traceparent, parse_traceparent
from tests.helpers.spans import one, recorded

METHOD = "/parley.test.v1.EchoService/Do"
CONTEXT = bytes(range(1, 25))


class ServerContext:
    """What the spans use of gRPC's context."""

    def __init__(self, *, traceparent: str | bytes | None = None, code: Any = None) -> None:
        self._metadata = () if traceparent is None else ((TRACEPARENT, traceparent),)
        self._code = code

    def invocation_metadata(self) -> Any:
        return self._metadata

    def code(self) -> Any:
        return self._code

    async def write(self, message: Any) -> None:
        """Nobody reads it."""


class CallDetails(NamedTuple):
    method: Any
    metadata: Any = None


async def serve(context: ServerContext, *, method: str = METHOD, error: BaseException | None = None) -> list[Any]:
    """Makes a call to a handler; returns the spans that were current in it."""
    current: list[Any] = []

    async def run(_request: Any, _context: Any) -> bytes:
        current.append(trace.get_current_span())
        if error is not None:
            raise error
        return b""

    async def continuation(_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(run)

    details: Any = CallDetails(method)
    handler: Any = await ServerSpans().intercept_service(continuation, details)
    await handler.unary_unary(b"", context)
    return current


async def test_a_traced_call_is_a_span_below_its_caller_s() -> None:
    with recorded() as spans:
        [current] = await serve(ServerContext(traceparent=format_traceparent(CONTEXT)))
    span = one(spans, METHOD.strip("/"))
    assert current.get_span_context() == span.context
    assert span.parent is not None
    assert span.parent.span_id.to_bytes(8, "big") == CONTEXT[16:]
    assert span.kind is trace.SpanKind.SERVER
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD.strip("/"),
        "rpc.response.status_code": "OK",
    }


@pytest.mark.parametrize("bad", [None, "", "nonsense", b"bytes", format_traceparent(CONTEXT)[:-2] + "00"])
async def test_what_is_not_sampled_or_malformed_has_no_span(bad: str | bytes | None) -> None:
    with recorded() as spans:
        await serve(ServerContext(traceparent=bad))
    assert not spans


@pytest.mark.parametrize(
    ("code", "status", "is_ok"),
    [
        (grpc.StatusCode.INTERNAL, "INTERNAL", False),
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", True),
        (14, "UNAVAILABLE", False),
        (99, "UNKNOWN", False),
    ],
)
async def test_the_server_s_faults_are_errors(code: Any, status: str, is_ok: bool) -> None:
    with recorded() as spans:
        await serve(ServerContext(traceparent=format_traceparent(CONTEXT), code=code))
    [span] = spans
    assert span.attributes is not None
    assert (span.attributes["rpc.response.status_code"], span.status.is_ok) == (status, is_ok)


async def test_faults_and_slow_calls_have_a_span_whoever_calls() -> None:
    with recorded() as spans:
        await serve(ServerContext(code=grpc.StatusCode.UNAVAILABLE))
        assert not spans.pop().status.is_ok
        await serve(ServerContext(code=grpc.StatusCode.NOT_FOUND))
        assert not spans
    with recorded(slow_s=0.0) as spans:
        await serve(ServerContext())
        assert spans.pop().status.is_ok


async def test_exports_and_health_have_none() -> None:
    with recorded(slow_s=0.0) as spans:
        for method in (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "/grpc.health.v1.Health/Check",
            "/grpc.channelz.v1.Channelz/GetServers",
        ):
            await serve(ServerContext(traceparent=format_traceparent(CONTEXT)), method=method)
    assert not spans


async def test_a_handler_that_raises_ends_its_span_and_its_context() -> None:
    with recorded() as spans:
        with pytest.raises(KeyError):
            await serve(ServerContext(traceparent=format_traceparent(CONTEXT), code=2), error=KeyError())
        assert not one(spans, METHOD.strip("/")).status.is_ok
    assert not trace.get_current_span().is_recording()


class Call:
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    async def code(self) -> grpc.StatusCode:
        return self._code

    def cancel(self) -> None:
        """Nothing is under way."""


async def ask(interceptor: Any, name: str, outcome: Any) -> list[Any]:
    """Makes a call; returns the details with which it went out."""
    seen: list[Any] = []

    async def continuation(details: Any, _request: Any) -> Any:
        seen.append(details)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    await getattr(interceptor, name)(continuation, CallDetails(METHOD.encode()), b"")
    return seen


@contextmanager
def within_a_span() -> Iterator[None]:
    """While a command's span is the current one. Made when it is entered: under the tracing that is installed then."""
    with trace.use_span(tracing.current().begin("command"), record_exception=False):
        yield


async def test_a_caller_within_a_span_sends_its_context() -> None:
    with recorded() as spans:
        parent = tracing.current().begin("command")
        with trace.use_span(parent):
            [details] = await ask(UnaryUnarySpans(), "intercept_unary_unary", Call(grpc.StatusCode.NOT_FOUND))
            [stream] = await ask(UnaryStreamContext(), "intercept_unary_stream", Call(grpc.StatusCode.OK))
    span = spans[0]
    assert span.context is not None
    sent = parse_traceparent(dict(details.metadata)[TRACEPARENT])
    assert sent is not None
    assert sent[16:] == span.context.span_id.to_bytes(8, "big")
    assert not span.status.is_ok  # to a caller every status but OK is a failure
    assert parse_traceparent(dict(stream.metadata)[TRACEPARENT]) == tracing.context_of(parent)


async def test_a_caller_outside_of_a_span_sends_nothing() -> None:
    with recorded() as spans:
        [details] = await ask(UnaryUnarySpans(), "intercept_unary_unary", Call(grpc.StatusCode.OK))
        [stream] = await ask(UnaryStreamContext(), "intercept_unary_stream", Call(grpc.StatusCode.OK))
    assert details.metadata is stream.metadata is None
    assert not spans


async def test_a_call_that_is_cancelled_ends_its_span() -> None:
    with recorded() as spans, pytest.raises(asyncio.CancelledError), within_a_span():
        await ask(UnaryUnarySpans(), "intercept_unary_unary", asyncio.CancelledError())
    span = one(spans, METHOD.strip("/"))
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "CANCELLED"
