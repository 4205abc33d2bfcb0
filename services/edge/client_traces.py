"""Client traces: what a client says that it measured of a message, and the trace that a user asks for.

A client may add to those traces only that it has begun itself, on this edge, a short while ago: their contexts are
remembered, each with its user. What it says are times by its own clock, and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from services.common import tracing
from services.common.errors import ParleyError
from services.common.tracing import USER_ID
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import GetTrace, TraceReport
from services.common.wire.trace_context import TRACE_ID_BYTES, parse_traceparent
from services.edge.decisions import Command
from services.edge.handlers import Answer, Caller, Table, user_of

if TYPE_CHECKING:
    from services.edge.ports import TracesBackend

REMEMBERED_MAX: Final = 1_000
"""Traces that clients have begun here; some twenty a second at most, so this is most of a minute."""

_NS_PER_US: Final = 1_000
SPAN_S_MAX: Final = 3_600
"""Nothing that a client measures takes longer; what does is a broken clock."""


class WishedTraces:
    """The traces that clients have begun: contexts with the ids of their users."""

    def __init__(self) -> None:
        self._users: OrderedDict[bytes, str] = OrderedDict()

    def add(self, context: bytes, user_id: str) -> None:
        """A trace has begun by a client's wish."""
        self._users[context] = user_id
        if len(self._users) > REMEMBERED_MAX:
            self._users.popitem(last=False)

    def take(self, context: bytes, user_id: str) -> bool:
        """Whether this user has begun it and not told of it yet."""
        if self._users.get(context) != user_id:
            return False
        del self._users[context]
        return True


class ClientTraces:
    """The commands about traces."""

    def __init__(self, wished: WishedTraces, backend: TracesBackend) -> None:
        self._wished = wished
        self._backend = backend
        self.table: Table = {TraceReport: self._report, GetTrace: self._get}

    async def _report(self, caller: Caller, request: TraceReport, _: Command) -> Answer:
        user = user_of(caller)
        context = parse_traceparent(request.traceparent)
        times = (request.sent_at_us, request.acknowledged_at_us, request.shown_at_us)
        if context is None or list(times) != sorted(times) or times[-1] - times[0] > SPAN_S_MAX * 1_000_000:
            raise ParleyError(ErrorCode.BAD_REQUEST, "a traceparent and three ascending times are required")
        if self._wished.take(context, user.user_id):
            sent_ns, acknowledged_ns, shown_ns = (at * _NS_PER_US for at in times)
            # Ids for the spans below the client's own, which the server need not know beforehand.
            below = [context[:TRACE_ID_BYTES] + _inverted(context[TRACE_ID_BYTES:], mask) for mask in (0x55, 0xAA)]
            attributes = {USER_ID: user.user_id}
            spans = (
                ("send", context, None, sent_ns, shown_ns),
                ("await acknowledgement", below[0], context, sent_ns, acknowledged_ns),
                ("await own message", below[1], context, acknowledged_ns, shown_ns),
            )
            for name, own, parent, start_ns, end_ns in spans:
                tracing.current().pass_on(
                    name,
                    service="client",
                    context=own,
                    parent=parent,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    attributes=attributes,
                )
        return Answer("success")

    async def _get(self, caller: Caller, request: GetTrace, _: Command) -> Answer:
        user = user_of(caller)
        trace_id, spans = await self._backend.own_message_trace(user, request.message_id)
        data: dict[str, Any] = {"message_id": request.message_id, "trace_id": trace_id, "spans": spans}
        return Answer("trace", data)


def _inverted(span_id: bytes, mask: int) -> bytes:
    return bytes(byte ^ mask for byte in span_id)
