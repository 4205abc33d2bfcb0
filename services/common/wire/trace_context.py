"""Trace context: how a message says to which trace it belongs, in W3C's words and in bytes.

In a client's frame it is the string of https://www.w3.org/TR/trace-context/ (`00-<trace id>-<span id>-<flags>`);
between the services it is 24 bytes, the trace id (16) and the span id (8). Only what is sampled has a context at all.
"""

from __future__ import annotations

import re
from typing import Final

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
CONTEXT_BYTES: Final = TRACE_ID_BYTES + SPAN_ID_BYTES

TRACEPARENT_CHARS: Final = 55
"""Of version 00; later versions may be longer, and begin alike."""

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED: Final = 1
_CHARS_MAX: Final = 512


def parse_traceparent(text: str) -> bytes | None:
    """The context, or None where it is malformed or not sampled: a mistake costs a trace, never a message."""
    if len(text) > _CHARS_MAX or (match := _FORM.fullmatch(text)) is None:
        return None
    if text.startswith("00") and len(text) != TRACEPARENT_CHARS:
        return None
    trace_id, span_id, flags, _ = match.groups()
    context = bytes.fromhex(trace_id + span_id)
    return context if int(flags, 16) & _SAMPLED and is_context(context) else None


def format_traceparent(context: bytes) -> str:
    """The string of a sampled context."""
    return f"00-{context[:TRACE_ID_BYTES].hex()}-{context[TRACE_ID_BYTES:].hex()}-01"


def is_context(context: bytes) -> bool:
    """Whether these are two ids, neither of them all zeros."""
    return len(context) == CONTEXT_BYTES and any(context[:TRACE_ID_BYTES]) and any(context[TRACE_ID_BYTES:])
