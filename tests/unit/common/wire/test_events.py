from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import ServerEnvelope, parse_server
from services.common.wire.events import (
    CRITICAL,
    VERSION_1_TYPES,
    Encoder,
    Message,
    history_frame,
    iso_time,
    messages_frames,
    text_message_frame,
    text_stored_frame,
)
from services.common.wire.frames import FrameDecoder

NOW = 1_700_000_000.25
ids = st.one_of(st.none(), st.text(min_size=1, max_size=64), st.integers(-(2**63), 2**64 - 1), st.floats(-1e9, 1e9))
texts = st.text(min_size=1, max_size=40)


def read(frame: bytes) -> ServerEnvelope:
    """The client's end of the wire."""
    (payload,) = FrameDecoder().feed(frame)
    assert isinstance(payload, bytes)
    return parse_server(payload)


def message(seq: int, text: str = "hi", **keys: Any) -> Message:
    return Message(seq=seq, username="alice", text=text, ts=1_700_000_000_000 + seq, **keys)


def received(frames: list[bytes]) -> list[Message]:
    return [msgspec.convert(one, Message) for frame in frames for one in read(frame).data["messages"]]


class TestEncoder:
    @given(re=ids, room_id=st.none() | texts, priority=st.sampled_from([1, 2, 3, 4]), text=texts)
    def test_back_to_back_in_both_versions(self, re: Any, room_id: str | None, priority: int, text: str) -> None:
        for version in (1, 2):
            frame = Encoder(version).reply(
                "success", {"text": text}, re=re, room_id=room_id, priority=priority, number=7, now=NOW
            )
            read_ = read(frame)
            assert (read_.type, read_.re, read_.room_id, read_.priority) == ("success", re, room_id, priority)
            assert read_.data == {"text": text}
            assert (read_.id, read_.timestamp) == (
                (7, "2023-11-14T22:13:20.250+00:00") if version == 1 else (None, None)
            )

    def test_version_2_leaves_out_what_is_default(self) -> None:
        assert Encoder(2).reply("success")[4:] == b'{"type":"success","data":{}}'
        full = Encoder(2).reply("heartbeat", {"rooms": {"r": 5}}, re=1, room_id="r", priority=CRITICAL)
        assert full[4:] == b'{"type":"heartbeat","re":1,"room_id":"r","priority":4,"data":{"rooms":{"r":5}}}'

    def test_version_1_has_its_keys_always(self) -> None:
        keys = msgspec.json.decode(Encoder(1).reply("success", number=1, now=NOW)[4:])
        assert keys == {
            "type": "success",
            "id": 1,
            "data": {},
            "priority": 2,
            "room_id": None,
            "timestamp": "2023-11-14T22:13:20.250+00:00",
        }

    def test_version_1_knows_its_types_only(self) -> None:
        for type_ in ("messages", "goodbye", "notice", "server_info"):
            assert not Encoder(1).can_send(type_)
            assert Encoder(2).can_send(type_)
        assert all(Encoder(1).can_send(type_) for type_ in VERSION_1_TYPES)

    @pytest.mark.parametrize("version", [0, 3])
    def test_there_are_two_versions(self, version: int) -> None:
        with pytest.raises(ValueError, match="version"):
            Encoder(version)

    def test_error(self) -> None:
        frame = read(Encoder(2).error(ErrorCode.OVERLOADED, "try later", re=5, room_id="r", retry_after_s=0.12345))
        assert (frame.type, frame.re, frame.room_id) == ("error", 5, "r")
        assert frame.data == {"error": "try later", "code": "overloaded", "retry_after_s": 0.124}
        assert read(Encoder(2).error(ErrorCode.INTERNAL, "no")).data == {"error": "no", "code": "internal"}

    def test_details_never_hide_the_code(self) -> None:
        frame = read(Encoder(2).error(ErrorCode.INTERNAL, "no", details={"code": "x", "more": 1}))
        assert frame.data == {"error": "no", "code": "internal", "more": 1}

    def test_refusals_of_auth_and_register(self) -> None:
        frame = read(
            Encoder(1).refusal(
                "auth_response",
                ErrorCode.ALREADY_LOGGED_IN,
                "logged in elsewhere",
                re="a",
                details={"since": "2026-11-01T00:00:00.000+00:00"},
            )
        )
        assert (frame.type, frame.re, frame.priority) == ("auth_response", "a", 4)
        assert frame.data == {
            "success": False,
            "error": "logged in elsewhere",
            "code": "already_logged_in",
            "since": "2026-11-01T00:00:00.000+00:00",
        }
        limited = read(Encoder(2).refusal("register_response", ErrorCode.RATE_LIMITED, "slow", retry_after_s=2))
        assert (limited.data["retry_after_s"], limited.priority) == (2, 3)

    @pytest.mark.parametrize(
        ("version", "action", "shown"),
        [(2, "online", "online"), (2, "leave", "leave"), (1, "online", "join"), (1, "offline", "leave"),
         (1, "join", "join")],
    )  # fmt: skip
    def test_presence(self, version: int, action: str, shown: str) -> None:
        frame = read(Encoder(version).presence("r", action, username="bob"))
        assert (frame.type, frame.room_id, frame.priority) == ("user_list", "r", 1)
        assert frame.data == {"action": shown, "username": "bob"}

    def test_presence_of_a_crowd_is_a_count(self) -> None:
        assert read(Encoder(2).presence("r", "count", online=120)).data == {"action": "count", "online": 120}

    def test_what_would_not_fit_is_refused_here(self) -> None:
        with pytest.raises(ValueError, match="JSON frame"):
            Encoder(2).reply("success", {"a": "x" * limits.MAX_JSON_BYTES})


class TestMessages:
    def test_the_form_on_the_wire(self) -> None:
        (frame,) = messages_frames("room1234", "ab12", [message(1), message(2, file={"name": "a"})])
        assert frame[4:] == (
            b'{"type":"messages","room_id":"room1234","data":{"epoch":"ab12","messages":['
            b'{"seq":1,"username":"alice","text":"hi","ts":1700000000001},'
            b'{"seq":2,"username":"alice","text":"hi","ts":1700000000002,"file":{"name":"a"}}]}}'
        )

    @given(st.lists(st.integers(0, 16_000), min_size=1, max_size=30))
    def test_frames_are_split_below_the_limit_and_lose_nothing(self, sizes: list[int]) -> None:
        sent = [message(seq, "x" * size) for seq, size in enumerate(sizes, 1)]
        frames = messages_frames("room1234", "ab12", sent)
        assert all(len(frame) - 4 <= limits.MAX_JSON_BYTES for frame in frames)
        assert received(frames) == sent
        assert all(read(frame).data["epoch"] == "ab12" and read(frame).room_id == "room1234" for frame in frames)
        for first, second in pairwise(frames):  # no frame could have taken one more
            grown = received([first]) + received([second])[:1]
            assert len(messages_frames("room1234", "ab12", grown)) == 2

    @pytest.mark.parametrize("character", ["\U0001f600", '"', "\n", "ü"])
    def test_the_longest_text_always_fits(self, character: str) -> None:
        name = "\U0001f600" * 32
        one = Message(seq=2**62, username=name, text=character * limits.MAX_TEXT_CHARS, ts=253_402_300_799_999)
        assert received(messages_frames("a" * 16, "b" * 8, [one])) == [one]
        assert read(text_message_frame("a" * 16, one, number=2**62, now=NOW)).data["text"] == one.text
        frame = history_frame("a" * 16, "b" * 8, [one], first_seq=1, last_seq=2**62, more=False, keep_newest=True)
        assert received([frame]) == [one]

    def test_version_1_gets_one_message_in_its_own_form(self) -> None:
        frame = read(text_message_frame("room1234", message(5, "hello"), number=9, now=NOW))
        assert (frame.type, frame.id, frame.room_id, frame.priority) == ("text_message", 9, "room1234", 2)
        assert frame.data == {
            "username": "alice",
            "text": "hello",
            "timestamp": "2023-11-14T22:13:20.005+00:00",
            "seq": 5,
        }


class TestHistory:
    def ask(self, messages: list[Message], *, keep_newest: bool, more: bool = False) -> ServerEnvelope:
        frame = history_frame(
            "room1234", "ab12", messages, first_seq=1, last_seq=200, more=more, keep_newest=keep_newest, re="h"
        )
        return read(frame)

    @pytest.mark.parametrize("more", [True, False])
    def test_a_page_that_fits(self, more: bool) -> None:
        page = [message(seq) for seq in range(1, 201)]
        frame = self.ask(page, keep_newest=False, more=more)
        assert (frame.type, frame.re, frame.room_id, frame.priority) == ("messages", "h", "room1234", 1)
        assert [one["seq"] for one in frame.data["messages"]] == list(range(1, 201))
        assert {key: frame.data[key] for key in ("epoch", "first_seq", "last_seq", "more")} == {
            "epoch": "ab12",
            "first_seq": 1,
            "last_seq": 200,
            "more": more,
        }

    @pytest.mark.parametrize("keep_newest", [True, False])
    def test_a_page_that_does_not_fit_is_cut_at_its_open_end(self, keep_newest: bool) -> None:
        page = [message(seq, "x" * 4000) for seq in range(1, 201)]
        frame = self.ask(page, keep_newest=keep_newest)
        seqs = [one["seq"] for one in frame.data["messages"]]
        assert len(seqs) == 16
        assert seqs == (list(range(185, 201)) if keep_newest else list(range(1, 17)))
        assert frame.data["more"] is True

    def test_an_empty_room(self) -> None:
        frame = history_frame("room1234", "ab12", [], first_seq=0, last_seq=0, more=False, keep_newest=True)
        assert read(frame).data["messages"] == []


class TestStored:
    def test_the_answer_to_a_text(self) -> None:
        frame = text_stored_frame("room1234", "ab12", seq=5, ts=6, re="7")
        assert frame[4:] == b'{"type":"success","re":"7","room_id":"room1234","data":{"epoch":"ab12","seq":5,"ts":6}}'

    def test_a_duplicate_says_so(self) -> None:
        frame = read(text_stored_frame("room1234", "ab12", seq=5, ts=6, duplicate=True))
        assert frame.re is None
        assert frame.data == {"epoch": "ab12", "seq": 5, "ts": 6, "duplicate": True}


@given(st.integers(0, 4_000_000_000_000))
def test_times_are_iso_8601_with_offset_and_exact_to_the_millisecond(ts: int) -> None:
    written = iso_time(ts / 1000)
    parsed = datetime.fromisoformat(written)
    assert parsed.tzinfo == UTC
    assert round(parsed.timestamp() * 1000) == ts
