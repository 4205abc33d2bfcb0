"""Replies as bytes: the same decision in the form of either version, and the goodbyes that end a connection."""

from __future__ import annotations

from typing import Final

from services.common.wire.codes import ErrorCode
from services.common.wire.events import Encoder
from services.edge.decisions import Reply, failure
from services.edge.qos.classes import QosClass

_ENCODERS: Final = {0: Encoder(2), 1: Encoder(1), 2: Encoder(2)}
"""Version 0 is a client whose first frame was a faulty hello: it knows version 2."""

TOO_LARGE: Final = "the answer is too large to be sent"
OVERLOADED: Final = "the server has too much to do; try again in a moment"

_GOODBYE_V1: Final = {
    "draining": (ErrorCode.UNAVAILABLE, "the server is restarting; connect again in a moment"),
    "replaced": (ErrorCode.BAD_TOKEN, "you logged in somewhere else"),
    "revoked": (ErrorCode.BAD_TOKEN, "your session was ended"),
    "slow_consumer": (ErrorCode.OVERLOADED, "the connection is too slow for what is sent to you"),
    "idle": (ErrorCode.UNAVAILABLE, "nothing was heard from you for too long"),
    "protocol_error": (ErrorCode.BAD_REQUEST, "too many faulty frames"),
}
"""Version 1 knows no goodbye: an error tells it."""


def goodbye(reason: str, *, version: int, reconnect_after_ms: int) -> Reply:
    """The last frame of a connection."""
    if version == 1:
        code, message = _GOODBYE_V1[reason]
        return failure(None, None, code, message, lane=QosClass.CRITICAL)
    data = {"reason": reason, "reconnect_after_ms": reconnect_after_ms}
    return Reply("goodbye", data, lane=QosClass.CRITICAL)


def encode(reply: Reply, *, version: int, number: int, now: float) -> bytes:
    """The frame of a reply. `number` and `now` (Unix time) are for version 1."""
    return _ENCODERS[version].reply(
        reply.type,
        reply.data,
        re=reply.re,
        room_id=reply.room_id,
        priority=int(reply.lane),
        number=number,
        now=now,
    )
