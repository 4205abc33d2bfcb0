"""Decisions: what a session wants done, as plain data.

The session decides and touches nothing; the connection carries the decisions out. A `Text` is the one object that a
message is from its frame to its reply: queue, publisher and reply all use it, so that a message costs one allocation.
None of these can be part of a reference cycle, so the collector need not look at them.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import RequestId
from services.common.wire.requests import Request
from services.common.wire.trace_context import parse_traceparent
from services.edge.qos.classes import QosClass
from services.edge.runs import Run


class Voucher(msgspec.Struct):
    """Auth's word for a session, which is renewed while the session lasts: `assertion` is opaque here. It is to be
    renewed from `renew_at` on, which is monotonic."""

    assertion: bytes = b""
    renew_at: float = math.inf

    def doubt(self) -> None:
        """Rooms does not believe it, because a clock was wrong or a key has gone: it is to be renewed at once."""
        if self.assertion:
            self.renew_at = -math.inf


class User(msgspec.Struct, frozen=True):
    """Who is logged in. `since` is Unix time."""

    user_id: str
    username: str
    session_id: str
    since: float
    voucher: Voucher = msgspec.field(default_factory=Voucher)


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A frame to this client, in answer to the request `re`. One that is `in_order` keeps its place among the messages
    that wait: what comes before it and after it means something else."""

    type: str
    data: dict[str, Any]
    re: RequestId | None = None
    room_id: str | None = None
    lane: QosClass = QosClass.HIGH
    in_order: bool = False


class Pulse(msgspec.Struct, frozen=True, gc=False):
    """Answer a heartbeat: only the connection knows how far each room has been sent."""

    re: RequestId | None


class Command(msgspec.Struct, gc=False):
    """A request other than a text, to be queued and handled."""

    request: Request
    re: RequestId | None
    qos_class: QosClass
    received_at: float
    connection: Any = None


class Text(msgspec.Struct, gc=False):
    """A text message, to be queued and published; `key` is None where the client gave none."""

    room_id: str
    text: str
    key: str | None
    re: RequestId | None
    qos_class: QosClass
    user_id: str
    username: str
    received_at: float
    connection: Any = None
    voucher: Voucher | None = None
    # What the publisher notes.
    number: int = 0
    size: int = 0
    is_written: bool = False
    is_rewritten: bool = False  # a stream that it was written to before was lost without an answer
    # Where the client says how its texts follow each other.
    run: Run | None = None
    place: int = 0

    @property
    def is_cut_off(self) -> bool:
        """Whether a text in front of this one was turned away, so that this one must not be taken."""
        return self.run is not None and self.run.is_cut_off(self.place)

    def refuse(self, code: ErrorCode, message: str, retry_after_s: float | None, now: float) -> None:
        """Turn the text away, and with it what follows; its connection is told."""
        if self.run is not None:
            self.run.turn_away(self.place, code, retry_after_s)
        self.connection.text_refused(self, code, message, retry_after_s, now)


class TracedText(Text, gc=False):
    """A text that its client wants traced; `context` is that of the client's span."""

    context: bytes = b""


class Close(msgspec.Struct, frozen=True):
    """Say goodbye with `reason`, where there is one, and close the connection."""

    reason: str | None = None


Decision = Reply | Pulse | Command | Text | Close


def traced(decisions: list[Decision], traceparent: str) -> list[Decision]:
    """The decisions with each text as one that is traced, if the client has said so in the right form."""
    context = parse_traceparent(traceparent)
    if context is None:
        return decisions
    return [
        TracedText(**msgspec.structs.asdict(decision), context=context) if type(decision) is Text else decision
        for decision in decisions
    ]


_OWN_RESPONSE = {
    "register_request": "register_response",
    "auth_request": "auth_response",
    "resume": "auth_response",
}
"""Requests whose failures are not shown as `error`."""


def failure(
    request_type: str | None,
    re: RequestId | None,
    code: ErrorCode,
    message: str,
    *,
    retry_after_s: float | None = None,
    details: dict[str, Any] | None = None,
    room_id: str | None = None,
    lane: QosClass = QosClass.HIGH,
) -> Reply:
    """The reply that refuses a request, in the form that its type asks for."""
    data: dict[str, Any] = {"error": message, "code": code.value}
    if retry_after_s is not None:
        data["retry_after_s"] = math.ceil(retry_after_s * 1000) / 1000  # never 0: who waits this long gets in
    if details:
        data.update(details)
    response = _OWN_RESPONSE.get(request_type or "")
    if response is not None:
        return Reply(response, {"success": False, **data}, re, lane=lane)
    return Reply("error", data, re, room_id, lane)
