"""Replies and events: what a server sends, as whole frames, length included.

The versions differ in the envelope only, so one Encoder makes both: version 2 leaves out every key that is at its
default, because bytes are what fan-out costs; version 1 always has its number, its timestamp, its priority and its
room. Frames that many connections share (``messages``, a version-1 ``text_message``) are made once and sent to all.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from services.common.wire import limits
from services.common.wire.frames import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.common.wire.codes import ErrorCode
    from services.common.wire.envelope import RequestId

LOW: Final = 1
NORMAL: Final = 2
HIGH: Final = 3
CRITICAL: Final = 4

VERSION_1_TYPES: Final = frozenset(
    {
        "auth_response",
        "register_response",
        "room_info",
        "text_message",
        "file_chunk",
        "user_list",
        "heartbeat",
        "success",
        "error",
    }
)
"""The only types a version-1 client knows; nothing else may be sent to it."""


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a room: ``ts`` is Unix time in milliseconds, ``file`` describes the file that it stands for."""

    seq: int
    username: str
    text: str
    ts: int
    file: dict[str, Any] | None = None


class _Frame(msgspec.Struct):
    type: str
    re: RequestId | UnsetType
    room_id: str | UnsetType | None
    priority: int | UnsetType
    id: int | UnsetType
    timestamp: str | UnsetType
    data: Any


class _MessagesData(msgspec.Struct):
    epoch: str
    messages: Sequence[Message]


class _MessagesFrame(msgspec.Struct, tag="messages", tag_field="type"):
    room_id: str
    data: _MessagesData


class _StoredData(msgspec.Struct, omit_defaults=True):
    epoch: str
    seq: int
    ts: int
    duplicate: bool = False


class _StoredFrame(msgspec.Struct, tag="success", tag_field="type"):
    re: RequestId | UnsetType
    room_id: str
    data: _StoredData


_encode = msgspec.json.Encoder().encode


class Encoder:
    """Makes the frames of one protocol version (1 or 2).

    ``number`` and ``now`` (Unix seconds) are version 1's frame id and timestamp; version 2 has neither, and the
    arguments may be left out. Every method raises ValueError where the frame would pass 65,536 bytes.
    """

    __slots__ = ("version",)

    def __init__(self, version: int) -> None:
        if version not in (1, limits.PROTOCOL_VERSION):
            raise ValueError(f"there is no version {version}")
        self.version = version

    def can_send(self, type: str) -> bool:  # noqa: A002 - the protocol's word
        """Whether a client of this version knows the type."""
        return self.version != 1 or type in VERSION_1_TYPES

    def reply(
        self,
        type: str,  # noqa: A002 - the protocol's word
        data: Any = None,
        *,
        re: RequestId | None = None,
        room_id: str | None = None,
        priority: int = NORMAL,
        number: int = 0,
        now: float = 0.0,
    ) -> bytes:
        """Make a reply (``re`` is the request's id) or an event. ``data`` is a mapping or a Struct, or nothing."""
        answered = UNSET if re is None else re
        data = {} if data is None else data
        if self.version == 1:
            frame = _Frame(type, answered, room_id, priority, number, iso_time(now), data)
        else:
            room = UNSET if room_id is None else room_id
            frame = _Frame(type, answered, room, UNSET if priority == NORMAL else priority, UNSET, UNSET, data)
        return encode_json(_encode(frame))

    def error(
        self,
        code: ErrorCode,
        message: str,
        *,
        re: RequestId | None = None,
        room_id: str | None = None,
        priority: int = NORMAL,
        retry_after_s: float | None = None,
        details: Mapping[str, object] | None = None,
        number: int = 0,
        now: float = 0.0,
    ) -> bytes:
        """Make an ``error``; ``message`` is for people, ``code`` and ``retry_after_s`` for programs."""
        data: dict[str, object] = {"error": message, "code": code}
        if retry_after_s is not None:
            data["retry_after_s"] = math.ceil(retry_after_s * 1000) / 1000  # never 0: who waits this long gets in
        if details:
            data = {**details, **data}
        return self.reply("error", data, re=re, room_id=room_id, priority=priority, number=number, now=now)

    def refusal(
        self,
        type: str,  # noqa: A002 - the protocol's word
        code: ErrorCode,
        message: str,
        *,
        re: RequestId | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, object] | None = None,
        number: int = 0,
        now: float = 0.0,
    ) -> bytes:
        """Make a failed ``auth_response`` or ``register_response``, which say so in their own form."""
        data: dict[str, object] = {"success": False, "error": message, "code": code}
        if retry_after_s is not None:
            data["retry_after_s"] = math.ceil(retry_after_s * 1000) / 1000  # never 0: who waits this long gets in
        if details:
            data = {**details, **data}
        priority = CRITICAL if type == "auth_response" else HIGH
        return self.reply(type, data, re=re, priority=priority, number=number, now=now)

    def presence(
        self, room_id: str, action: str, *, username: str = "", online: int = 0, number: int = 0, now: float = 0.0
    ) -> bytes:
        """Make a ``user_list`` event; version 1 is shown online as join and offline as leave."""
        if self.version == 1:
            action = _ACTION_V1.get(action, action)
        data = {"action": action, "online": online} if action == "count" else {"action": action, "username": username}
        return self.reply("user_list", data, room_id=room_id, priority=LOW, number=number, now=now)


_ACTION_V1: Final = {"online": "join", "offline": "leave"}


def messages_frames(room_id: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
    """Make the shared version-2 ``messages`` frames of consecutive messages, split where one would pass the limit.

    Raises ValueError where one message alone is above it, which no stored message is.
    """
    payload = _encode(_MessagesFrame(room_id, _MessagesData(epoch, messages)))
    if len(payload) <= limits.MAX_JSON_BYTES:
        return [encode_json(payload)]
    envelope_bytes = len(_encode(_MessagesFrame(room_id, _MessagesData(epoch, ()))))
    frames = []
    start = 0
    while start < len(messages):
        count = max(1, _fitting(messages[start:], limits.MAX_JSON_BYTES - envelope_bytes))
        part = messages[start : start + count]
        frames.append(encode_json(_encode(_MessagesFrame(room_id, _MessagesData(epoch, part)))))
        start += count
    return frames


def _fitting(messages: Sequence[Message], budget_bytes: int) -> int:
    """How many of the messages, from the first on, fit into the budget as elements of a JSON array."""
    used = -1  # the first one has no comma
    for count, message in enumerate(messages):
        used += 1 + len(_encode(message))
        if used > budget_bytes:
            return count
    return len(messages)


def history_frame(
    room_id: str,
    epoch: str,
    messages: Sequence[Message],
    *,
    first_seq: int,
    last_seq: int,
    more: bool,
    keep_newest: bool,
    re: RequestId | None = None,
) -> bytes:
    """Make the one reply to ``history``; messages that one frame cannot hold are left out, and ``more`` is true then.

    ``keep_newest`` says at which end the page is anchored: true for ``before`` and for the newest page, false for
    ``after``, so that the next page joins on without a gap.
    """

    def frame(part: Sequence[Message], more: bool) -> bytes:
        data = {"epoch": epoch, "messages": part, "first_seq": first_seq, "last_seq": last_seq, "more": more}
        answered = UNSET if re is None else re
        return _encode(_Frame("messages", answered, room_id, LOW, UNSET, UNSET, data))

    payload = frame(messages, more)
    if len(payload) > limits.MAX_JSON_BYTES:
        budget = limits.MAX_JSON_BYTES - len(frame((), more=False))
        if keep_newest:
            messages = messages[len(messages) - _fitting(messages[::-1], budget) :]
        else:
            messages = messages[: _fitting(messages, budget)]
        payload = frame(messages, more=True)
    return encode_json(payload)


def text_stored_frame(
    room_id: str, epoch: str, *, seq: int, ts: int, duplicate: bool = False, re: RequestId | None = None
) -> bytes:
    """Make the version-2 success for a ``text_message`` that is durable (version 1 gets none)."""
    data = _StoredData(epoch, seq, ts, duplicate)
    return encode_json(_encode(_StoredFrame(UNSET if re is None else re, room_id, data)))


def text_message_frame(room_id: str, message: Message, *, number: int, now: float) -> bytes:
    """Make the version-1 form of one message, for every version-1 client in the room but its sender."""
    data = {
        "username": message.username,
        "text": message.text,
        "timestamp": iso_time(message.ts / 1000),
        "seq": message.seq,
    }
    return _VERSION_1.reply("text_message", data, room_id=room_id, number=number, now=now)


_VERSION_1: Final = Encoder(1)


def iso_time(unix_s: float) -> str:
    """Write a time as ISO 8601 in UTC, with offset and milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
