"""spans: what a trace consists of, in our own words, and how much of it is kept.

A batch that several messages shared has one span. It belongs to the trace of one of them and links to the others, so
a trace is its own spans and those that link to one of them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

TRACE_SPANS_MAX: Final = 1_000
"""Spans of one trace that are shown; a message's way has about ten."""

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8

EDGE: Final = "edge"
CLIENT: Final = "client"
"""The service of spans that a client has measured, and its edge has passed on."""

MESSAGE_ID: Final = "parley.message.id"
ROOM_ID: Final = "parley.room.id"
USER_ID: Final = "parley.user.id"
"""Attributes by which traces are found. They hold ids, never names or texts."""

_MESSAGE_ID_FORM: Final = re.compile(r"[a-z0-9]{1,64}-[A-Za-z0-9]{1,64}-[1-9][0-9]{0,18}")


class Link(NamedTuple):
    """Another span to which one belongs; ids in lower-case hex."""

    trace_id: str
    span_id: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span. Ids are lower-case hex, `parent_span_id` is empty where there is none; times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_span_id: str
    service: str
    instance: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    is_error: bool = False
    status_message: str = ""
    attributes: dict[str, str] = {}
    links: list[Link] = []

    @property
    def is_entry(self) -> bool:
        """Whether the trace begins with it, as far as we saw it begin: what a client did before that may be missing."""
        if self.service == CLIENT:
            return False
        return not self.parent_span_id or (self.service == EDGE and self.kind == "server")


class TraceQuery(NamedTuple):
    """Which traces are wanted: the newest, at most `limit`; empty ids and a duration of 0 mean any."""

    limit: int
    duration_min_ns: int = 0
    only_errors: bool = False
    room_id: str = ""
    user_id: str = ""


def is_trace_id(text: str) -> bool:
    """Whether it is the hex form of a trace id that is not all zeros."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None and set(text) != {"0"}


def is_message_id(text: str) -> bool:
    """Whether it is `room_id-epoch-seq`."""
    return _MESSAGE_ID_FORM.fullmatch(text) is not None
