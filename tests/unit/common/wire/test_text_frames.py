from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire.envelope import WireError, parse
from services.common.wire.requests import TextMessage, parse_request
from services.common.wire.text_frames import parse_text_frame


def pack(**frame: Any) -> bytes:
    return json.dumps({"type": "text_message", **frame}, ensure_ascii=False, separators=(",", ":")).encode()


def exactly(payload: bytes) -> tuple[Any, ...] | None:
    """What the exact way reads: id, priority, room, text, key; None where it refuses."""
    try:
        envelope = parse(payload)
        request = parse_request(envelope)
    except WireError:
        return None
    assert isinstance(request, TextMessage)
    return envelope.id, envelope.priority, request.room_id, request.text, request.key


def quickly(payload: bytes) -> tuple[Any, ...] | None:
    frame = parse_text_frame(payload)
    if frame is None:
        return None
    data = frame.data
    room_id = data.room_id if data.room_id is not None else frame.room_id
    return frame.id, frame.priority, room_id, data.text, data.key


@pytest.mark.parametrize(
    "payload",
    [
        pack(data={"text": "hi"}),
        pack(id=1, room_id="room0001", data={"text": "hi"}),
        pack(id="x", room_id="room0001", data={"text": "hi", "key": "k"}, priority=1),
        pack(id=1.5, data={"text": "سلام 👋", "room_id": "room0001"}),
        pack(id=1, room_id="room0001", data={"text": "hi", "room_id": "room0002"}, timestamp="now"),
        pack(data={"text": "x" * 4_000}),
    ],
)
def test_ordinary_texts_are_read(payload: bytes) -> None:
    assert quickly(payload) == exactly(payload) is not None


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type": "text_message","data":{"text":"spaces are for the exact way"}}',
        pack(data={"text": "line\nfeed"}),
        pack(data={"text": "\x7f"}),
        pack(data={"text": "\x9b31m"}),
        pack(data={"text": ""}),
        pack(data={"text": "x" * 4_001}),
        pack(data={"text": None}),
        pack(data={}),
        pack(),
        pack(data={"text": "hi", "more": 1}),
        pack(data={"text": "hi"}, more=1),
        pack(data={"text": "hi", "key": None}),
        pack(data={"text": "hi", "key": "\u202e"}),
        pack(data={"text": "hi"}, room_id=None),
        pack(data={"text": "hi"}, room_id="\u2028"),
        pack(data={"text": "hi"}, priority=5),
        pack(data={"text": "hi"}, id=2**63),
        pack(data={"text": "hi"}, id=""),
        b'{"type":"text_message","data":{"text":"\xff"}}',
        b'{"type":"text_message","data":{"text":"hi"}',
        b'{"type":"text_message","type":"logout","data":{"text":"hi"}}',
        b'{"type":"text_message","data":' + b"[" * 10_000,
        b'{"type":"logout"}',
    ],
)
def test_anything_else_is_left_to_the_exact_way(payload: bytes) -> None:
    assert parse_text_frame(payload) is None


_TEXTS = st.one_of(st.text(max_size=20), st.text("abc \x7f\x85\u200c\u202eپ\n\\", max_size=8))
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXTS)


@given(
    frame=st.fixed_dictionaries(
        {},
        optional={
            "id": _SCALARS,
            "priority": st.one_of(st.integers(0, 5), _SCALARS),
            "room_id": _SCALARS,
            "timestamp": _SCALARS,
            "data": st.one_of(
                st.fixed_dictionaries(
                    {"text": _TEXTS}, optional={"key": _SCALARS, "room_id": _SCALARS, "other": _SCALARS}
                ),
                _SCALARS,
            ),
        },
    ),
    escape=st.booleans(),
)
def test_both_ways_agree(frame: dict[str, Any], escape: bool) -> None:
    text = json.dumps({"type": "text_message", **frame}, ensure_ascii=escape, separators=(",", ":"))
    payload = text.encode("utf-8", "surrogatepass")
    found = quickly(payload)
    assert found is None or found == exactly(payload)


@given(st.binary(max_size=30))
def test_nothing_is_raised(tail: bytes) -> None:
    payload = b'{"type":"text_message"' + tail
    found = quickly(payload)
    assert found is None or found == exactly(payload)
