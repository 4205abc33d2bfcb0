"""Text messages as nearly all of them come: one decoding step from the frame to checked fields.

Texts are most of what a server reads, so their ordinary form has a way of its own, at a third of the cost. Whatever is
not ordinary in any respect gives None and goes through ``envelope`` and ``requests``, which judge it exactly; the two
ways agree wherever this one has an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from services.common.wire import limits
from services.common.wire.text import is_clean_text

_START: Final = b'{"type":"text_message"'

_ABSENT: Any = None
_Id = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ID_CHARS)]
_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_RoomRef = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ROOM_REF_CHARS)]


class TextData(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The ``data`` of a text message; ``key`` and ``follows`` are None where there is none."""

    text: Annotated[str, Meta(min_length=1, max_length=limits.MAX_TEXT_CHARS)]
    room_id: _RoomRef = _ABSENT
    key: Annotated[str, Meta(min_length=1, max_length=limits.MAX_KEY_CHARS)] = _ABSENT
    follows: bool | None = None


class TextFrame(msgspec.Struct, gc=False, forbid_unknown_fields=True, tag="text_message", tag_field="type"):
    """An ordinary text message. The room is ``data.room_id`` where that is not None, else ``room_id``."""

    data: TextData
    id: _Id | _Int | float = _ABSENT
    priority: Literal[1, 2, 3, 4] = _ABSENT
    room_id: _RoomRef = _ABSENT
    timestamp: str = ""  # ignored


_decode = msgspec.json.Decoder(TextFrame).decode


def parse_text_frame(payload: bytes) -> TextFrame | None:
    """Read a client's JSON frame if it is an ordinary text message."""
    # JSON writes control characters as escapes, but for DEL: without a backslash and a DEL there are none in ASCII.
    if not payload.startswith(_START) or b"\\" in payload or b"\x7f" in payload:
        return None
    try:
        frame = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not payload.isascii():
        data = frame.data
        if not (is_clean_text(data.text) and _is_ascii(frame.room_id) and _is_ascii(data.room_id)):
            return None
        if not _is_ascii(data.key):
            return None
    return frame


def _is_ascii(value: str | None) -> bool:
    return value is None or value.isascii()
