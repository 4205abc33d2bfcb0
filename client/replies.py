"""The server's answers and events as typed values; what does not fit is a ProtocolError, never a surprise later."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from client.errors import ProtocolError, RequestError
from services.common.wire import limits
from services.common.wire.envelope import ServerEnvelope


class ServerInfo(msgspec.Struct, frozen=True):
    """What a server says of itself: its limits, in the units of their names."""

    protocol: int
    server: str = ""
    heartbeat_s: float = limits.HEARTBEAT_S
    idle_timeout_s: float = limits.IDLE_TIMEOUT_S
    max_text_chars: int = limits.MAX_TEXT_CHARS
    file_window_bytes: int = 1_048_576
    max_file_bytes: int = limits.MAX_SEQ
    tracing: bool = False


class Message(msgspec.Struct, frozen=True):
    """One message; `seq` counts within the room's epoch, `ts` is Unix time in milliseconds."""

    seq: int
    username: str
    text: str = ""
    ts: int = 0
    file: dict[str, Any] | None = None


class Messages(msgspec.Struct, frozen=True):
    """Consecutive messages of a room, ascending: an event, or a page of history."""

    epoch: str
    messages: list[Message]
    first_seq: int = 0
    last_seq: int = 0
    more: bool = False


class RoomInfo(msgspec.Struct, frozen=True):
    """A room that this user is a member of, and where its log stands.

    After a resume: whether it is `recovered`, and then how many missed messages the server sends by itself.
    """

    room_id: str
    name: str
    epoch: str
    last_seq: int
    topic: str = ""
    role: str = "member"
    recovered: bool = False
    replay: int = 0


class Login(msgspec.Struct, frozen=True):
    """A successful login or resume; `token` resumes the session after the connection was lost."""

    user_id: str
    username: str
    token: str = ""
    rooms: list[RoomInfo] = []


class Registration(msgspec.Struct, frozen=True):
    """A new account."""

    user_id: str


class LeftRoom(msgspec.Struct, frozen=True):
    """A room that the user is no longer a member of."""

    room_id: str


class RoomSummary(msgspec.Struct, frozen=True):
    """A room in a list; `user_count` is who is present now, `created` a time as the server writes it."""

    id: str
    name: str
    topic: str = ""
    user_count: int = 0
    member_count: int = 0
    created: Any = None
    joined: bool = False


class RoomPage(msgspec.Struct, frozen=True):
    """One page of the list of rooms; `next_cursor` is empty on the last."""

    rooms: list[RoomSummary]
    next_cursor: str | None = None


class Member(msgspec.Struct, frozen=True):
    """A member of a room."""

    username: str
    role: str = "member"
    online: bool = False


class UserList(msgspec.Struct, frozen=True):
    """Who is in a room; `users` are the names of those who are online."""

    users: list[str] = []
    members: list[Member] = []


class Presence(msgspec.Struct, frozen=True):
    """Somebody joined, left, came online or went offline; or, in a crowded room, how many are there (`count`)."""

    action: str
    username: str = ""
    online: int = 0


class Stored(msgspec.Struct, frozen=True):
    """The acknowledgement of a text: it is in the log for good."""

    epoch: str
    seq: int
    ts: int = 0
    duplicate: bool = False


class Positions(msgspec.Struct, frozen=True):
    """The answer to a heartbeat: every message of a room up to its seq was sent on this connection before."""

    rooms: dict[str, int] = {}


class Farewell(msgspec.Struct, frozen=True):
    """Why the server closes the connection, and how long the client should stay away."""

    reason: str
    reconnect_after_ms: float | None = None


class TracedSpan(msgspec.Struct, frozen=True):
    """A part of a message's way; times are in microseconds from its beginning."""

    name: str
    start_us: int
    duration_us: int
    span_id: str = ""
    parent_id: str = ""
    service: str = ""
    instance: str = ""
    error: str = ""


class Trace(msgspec.Struct, frozen=True):
    """Where the time of a message went; without spans, nobody has measured it."""

    message_id: str
    trace_id: str = ""
    spans: list[TracedSpan] = []


class Nothing(msgspec.Struct, frozen=True):
    """An answer that says nothing but that it was done."""


T = TypeVar("T")


def read(data: dict[str, Any], into: type[T]) -> T:
    """Converts the `data` of a frame. Raises ProtocolError."""
    try:
        return msgspec.convert(data, into)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"The server's answer does not follow the protocol: {error}") from error


def refused(envelope: ServerEnvelope) -> RequestError | None:
    """The refusal that an answer is, or None for a success."""
    data = envelope.data
    if envelope.type != "error" and data.get("success") is not False:
        return None
    retry_after_s = data.get("retry_after_s")
    return RequestError(
        str(data.get("code") or "internal"),
        str(data.get("error") or "The server refused and did not say why."),
        retry_after_s=max(0.0, float(retry_after_s)) if isinstance(retry_after_s, (int, float)) else None,
        data=data,
    )
