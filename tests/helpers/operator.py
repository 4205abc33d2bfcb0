"""An operator in a test: gRPC calls to a stack's processes with the identity that `parley up` makes."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any

from parley.edge.v1 import edge_pb2_grpc
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from client.admin.channels import ask_one, open_stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from parley.metrics.v1.metrics_pb2 import Span, Trace

    from tests.helpers.stack import Stack

PATIENCE_S = 60.0
"""A drawing takes seconds; longer on a busy machine."""
KEPT_S = 30.0
"""Spans are on their way for a second or two; longer on a busy machine."""


def traceparent() -> tuple[str, str, str]:
    """A W3C trace context as clients send it, its trace id and its span id."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace_id}-{span_id}-01", trace_id, span_id


class Operator:
    """Asks the processes of a stack."""

    def __init__(self, stack: Stack) -> None:
        self._channels = open_stack(stack.home, "local")

    async def metrics(self, method: str, request: Any) -> Any:
        """Calls the metrics service."""
        return await asyncio.to_thread(
            ask_one,
            self._channels,
            "metrics",
            lambda channel: getattr(metrics_pb2_grpc.MetricsServiceStub(channel), method)(request, timeout=PATIENCE_S),
        )

    async def edge(self, method: str, request: Any) -> Any:
        """Calls the first edge."""
        return await asyncio.to_thread(
            ask_one,
            self._channels,
            "edge",
            lambda channel: getattr(edge_pb2_grpc.EdgeAdminServiceStub(channel), method)(request, timeout=PATIENCE_S),
        )

    async def trace_of(self, message_id: str, is_whole: Callable[[list[Span]], bool]) -> Trace:
        """The trace of a message, once it is whole."""
        deadline = time.monotonic() + KEPT_S
        while True:
            request = metrics_pb2.FindTraceOfMessageRequest(message_id=message_id)
            trace: Trace = (await self.metrics("FindTraceOfMessage", request)).trace
            if is_whole(list(trace.spans)):
                return trace
            shown = [(span.instance, span.name) for span in trace.spans]
            assert time.monotonic() < deadline, f"the trace stays incomplete: {shown}"
            await asyncio.sleep(0.2)
