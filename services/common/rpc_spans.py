"""Spans of RPCs: interceptors for servers and clients on grpc.aio.

A call has a span where its caller's metadata say that it is traced (`traceparent`), and, made after the fact, where it
failed for a reason of the server's or was slow. Names and attributes are those of OpenTelemetry's RPC conventions.
OTLP's own exports have none: each would make the next.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from opentelemetry import context as otel_context
from opentelemetry import trace

from services.common import tracing
from services.common.interceptors import take_apart
from services.common.tracing import SpanKind
from services.common.wire.trace_context import format_traceparent, parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.trace import Span

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any  # grpc.RpcMethodHandler, whose published types are those of the synchronous server

TRACEPARENT: Final = "traceparent"

SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are the server's fault, by the conventions for gRPC."""

_UNTRACED: Final = ("/opentelemetry.proto.collector.", "/grpc.health.", "/grpc.reflection.", "/grpc.channelz.")


class ServerSpans(grpc.aio.ServerInterceptor):
    """The server's side. To be the outermost, so that what the others log belongs to the span."""

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler, wrapped. Those inside have made it one that writes to the context itself."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_UNTRACED):
            return handler
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = _wrap(method, handler)
        if known is not None or len(self._wrapped) < _METHODS_MAX:  # methods that do not exist have no end
            self._wrapped[method] = (handler, wrapped)
        return wrapped


_METHODS_MAX: Final = 500


def _wrap(method: str, handler: Handler) -> Handler:
    run, make = take_apart(handler)
    is_stream = handler.request_streaming or handler.response_streaming

    async def traced(request: Any, context: Context) -> Any:
        parent = _parent(context.invocation_metadata())
        tracer = tracing.current()
        if parent is None or not tracer.is_on:
            started = time.monotonic()
            try:
                return await run(request, context)
            finally:
                took_s = time.monotonic() - started
                status = _status(context)
                if not is_stream and tracer.is_on and (took_s >= tracer.slow_s or status in SERVER_ERRORS):
                    _record_late(tracer, method, status, took_s)
        span = tracer.begin(method.strip("/"), kind=SpanKind.SERVER, parent=parent, attributes=_attributes(method))
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            return await run(request, context)
        finally:
            otel_context.detach(token)
            _end(span, _status(context), SERVER_ERRORS)

    return make(
        traced,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _record_late(tracer: tracing.Tracing, method: str, status: str, took_s: float) -> None:
    now_ns = time.time_ns()
    tracer.record(
        method.strip("/"),
        kind=SpanKind.SERVER,
        start_ns=now_ns - int(took_s * 1e9),
        end_ns=now_ns,
        attributes={**_attributes(method), "rpc.response.status_code": status},
        error=status if status in SERVER_ERRORS else None,
    )


def _attributes(method: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": method.strip("/")}


def _status(context: Context) -> str:
    """The name of the status with which the call ends; one that was cancelled has none."""
    code = context.code()
    if not code:  # 0 and None: nothing has gone wrong
        return "CANCELLED" if _is_cancelled() else "OK"
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(int(code), "UNKNOWN")


_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _end(span: Span, status: str, errors: frozenset[str]) -> None:
    span.set_attribute("rpc.response.status_code", status)
    if status in errors:
        tracing.fail(span, status)
    span.end()


def _parent(metadata: Any) -> bytes | None:
    for key, value in metadata or ():
        if key == TRACEPARENT and isinstance(value, str):
            return parse_traceparent(value)
    return None


_FAILURES: Final = frozenset(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
"""To a caller every status but OK is a failure."""


class UnaryUnarySpans(grpc.aio.UnaryUnaryClientInterceptor):
    """Spans of calls with one request and one response, made while a span is current."""

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        """Makes the call."""
        parent = trace.get_current_span()
        if not parent.is_recording():
            return await continuation(client_call_details, request)
        method = _name(client_call_details.method)
        span = tracing.current().begin(
            method.strip("/"), kind=SpanKind.CLIENT, parent=parent, attributes=_attributes(method)
        )
        status = "CANCELLED"
        try:
            call = await continuation(_with_context(client_call_details, span), request)
            try:
                status = (await call.code()).name
            except asyncio.CancelledError:
                call.cancel()
                raise
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            raise
        finally:
            _end(span, status, _FAILURES)
        return call


class UnaryStreamContext(grpc.aio.UnaryStreamClientInterceptor):
    """Tells the server of a stream to which trace it belongs; the span of the whole stream is the server's to make."""

    async def intercept_unary_stream(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        """Makes the call."""
        span = trace.get_current_span()
        if span.is_recording():
            client_call_details = _with_context(client_call_details, span)
        return await continuation(client_call_details, request)


def client_spans() -> list[grpc.aio.ClientInterceptor]:
    """The client's side. Streams that edges keep open for hours have no span: their messages have their own."""
    return [UnaryUnarySpans(), UnaryStreamContext()]


def _name(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method


def _with_context(details: Any, span: Span) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add(TRACEPARENT, format_traceparent(tracing.context_of(span)))
    return details._replace(metadata=metadata)
