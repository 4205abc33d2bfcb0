from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire import limits
from services.common.wire import requests as r
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import Envelope, WireError, encode_request, parse
from services.common.wire.frames import FrameDecoder
from services.common.wire.requests import REQUESTS, Request, parse_request

HEX32 = "0123456789abcdef" * 2
HEX64 = HEX32 * 2

# For each type: data with every field, and the fields that may be left out.
FULL: dict[str, tuple[dict[str, Any], set[str]]] = {
    "hello": ({"protocol": 2, "client": "test/1"}, {"client"}),
    "register_request": ({"username": "alice", "password": "correct horse"}, set()),
    "auth_request": (
        {"username": "alice", "password": "correct horse", "takeover": True, "device": "desk"},
        {"takeover", "device"},
    ),
    "resume": ({"token": "t", "rooms": {"abcdefgh": {"epoch": "ab12", "seq": 3}}}, {"rooms"}),
    "logout": ({}, set()),
    "create_room": ({"name": "lobby", "topic": "all", "private": True}, {"topic", "private"}),
    "join_room": ({"room_id": "lobby"}, set()),
    "leave_room": ({"room_id": "lobby"}, {"room_id"}),
    "list_rooms": ({"query": "lo", "limit": 10, "cursor": "c"}, {"query", "limit", "cursor"}),
    "user_list": ({"room_id": "lobby"}, {"room_id"}),
    "text_message": (
        {"room_id": "abcdefgh", "text": "hi", "key": "k", "follows": True},
        {"room_id", "key", "follows"},
    ),
    "history": ({"room_id": "lobby", "after": 3, "limit": 10}, {"after", "limit"}),
    "heartbeat": ({}, set()),
    "file_offer": (
        {
            "room_id": "lobby",
            "name": "a.png",
            "size": 5,
            "sha256": HEX64,
            "mime": "image/png",
            "transfer_id": HEX32,
        },
        {"mime", "transfer_id"},
    ),
    "file_get": ({"file_id": HEX32, "offset": 7, "window": 65536}, {"offset", "window"}),
    "file_list": ({"room_id": "lobby", "before": 7, "limit": 10}, {"before", "limit"}),
    "file_cancel": ({"file_id": HEX32}, set()),
    "file_ack": ({"file_id": HEX32, "offset": 7, "window": 65536}, {"window"}),
    "file_transfer": (
        {
            "transfer_id": HEX32,
            "filename": "a.png",
            "chunk_num": 0,
            "total_chunks": 2,
            "data": "aGVsbG8=",
            "room_id": "lobby",
        },
        {"room_id"},
    ),
    "trace": ({"message_id": "lobby-e001-1"}, set()),
    "trace_report": (
        {"traceparent": "00-x", "sent_at_us": 1, "acknowledged_at_us": 2, "shown_at_us": 3},
        set(),
    ),
}
FIELDS = [(type_, field) for type_, (data, _) in FULL.items() for field in data]

STRING_WRONG = [None, 1, 1.5, True, [], {}]
INT_WRONG = [None, 1.5, "1", True, [], {}, -(2**63), 2**64 - 1]
BOOL_WRONG = [None, 1, 0, 1.5, "true", [], {}]
OBJECT_WRONG = [None, 1, 1.5, "x", True, []]


def wrong_for(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return BOOL_WRONG
    return {str: STRING_WRONG, int: INT_WRONG, dict: OBJECT_WRONG}[type(value)]


def ask(type_: str, data: dict[str, Any], **keys: Any) -> Request:
    return parse_request(Envelope(type=type_, data=data, **keys))


def refused(type_: str, data: dict[str, Any], **keys: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        ask(type_, data, id="re-1", **keys)
    assert (caught.value.re, caught.value.type) == ("re-1", type_)
    return caught.value


def test_this_test_knows_every_request() -> None:
    assert set(FULL) == set(REQUESTS)
    for type_, (data, _) in FULL.items():
        known = set(REQUESTS[type_].__struct_fields__)
        assert set(data) == known - ({"before"} if type_ == "history" else set())


@pytest.mark.parametrize("type_", FULL)
def test_back_to_back(type_: str) -> None:
    data, _ = FULL[type_]
    (payload,) = FrameDecoder().feed(encode_request(type_, data, id=1))
    assert isinstance(payload, bytes)
    request = parse_request(parse(payload))
    assert type(request) is REQUESTS[type_]
    assert msgspec.to_builtins(request) == data | ({"before": None} if type_ == "history" else {})


@pytest.mark.parametrize(("type_", "field"), FIELDS)
def test_only_optional_fields_may_be_absent(type_: str, field: str) -> None:
    data, optional = FULL[type_]
    without = {key: value for key, value in data.items() if key != field}
    if field in optional:
        assert type(ask(type_, without)) is REQUESTS[type_]
    else:
        assert refused(type_, without).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(("type_", "field"), FIELDS)
def test_wrong_types_in_every_field(type_: str, field: str) -> None:
    data, optional = FULL[type_]
    for wrong in wrong_for(data[field]):
        if field == "room_id" and field in optional and wrong is None:
            continue  # a room_id may be null
        error = refused(type_, data | {field: wrong})
        assert error.code is ErrorCode.BAD_REQUEST, (field, wrong)
        assert field in error.message


@pytest.mark.parametrize("type_", FULL)
@given(data=st.data())
def test_any_values_in_data_raise_typed_faults_only(type_: str, data: st.DataObject) -> None:
    value = (
        st.none()
        | st.booleans()
        | st.integers(-5, 5)
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=70)
        | st.lists(st.integers(), max_size=2)
        | st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=2), max_size=2)
    )
    names = st.sampled_from([*FULL[type_][0], "before", "other"])
    drawn = FULL[type_][0] | data.draw(st.dictionaries(names, value, max_size=3))
    try:
        request = ask(type_, drawn)
    except WireError:
        return
    assert type(request) is REQUESTS[type_]


@pytest.mark.parametrize("type_", ["", "nope", "TEXT_MESSAGE", "text_message ", "success", "x" * 60_000])
def test_unknown_types(type_: str) -> None:
    error = refused(type_, {})
    assert error.code is ErrorCode.UNKNOWN_TYPE
    assert type_ == "" or type_ not in error.message


LENGTHS = [
    ("hello", "client", 64),
    ("auth_request", "username", 1024),
    ("auth_request", "password", 1024),
    ("auth_request", "device", 64),
    ("resume", "token", 256),
    ("create_room", "name", 1024),
    ("create_room", "topic", 1024),
    ("join_room", "room_id", 64),
    ("leave_room", "room_id", 64),
    ("list_rooms", "query", 64),
    ("list_rooms", "cursor", 256),
    ("user_list", "room_id", 64),
    ("text_message", "room_id", 64),
    ("text_message", "key", 64),
    ("history", "room_id", 64),
    ("file_offer", "name", 255),
    ("file_offer", "mime", 127),
    ("file_transfer", "filename", 255),
]


@pytest.mark.parametrize(("type_", "field", "longest"), LENGTHS)
def test_lengths_count_characters(type_: str, field: str, longest: int) -> None:
    data = FULL[type_][0]
    assert getattr(ask(type_, data | {field: "ü" * longest}), field) == "ü" * longest
    assert refused(type_, data | {field: "ü" * (longest + 1)}).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("type_", "field"),
    [("resume", "token"), ("join_room", "room_id"), ("text_message", "room_id"), ("text_message", "key"),
     ("history", "room_id"), ("file_offer", "name"), ("file_transfer", "filename")],
)  # fmt: skip
def test_what_names_something_is_not_empty(type_: str, field: str) -> None:
    assert refused(type_, FULL[type_][0] | {field: ""}).code is ErrorCode.BAD_REQUEST


RANGES = [
    ("list_rooms", "limit", 1, 200),
    ("history", "limit", 1, 200),
    ("history", "after", 0, 2**63 - 1),
    ("file_offer", "size", 0, 2**63 - 1),
    ("file_get", "offset", 0, 2**63 - 1),
    ("file_ack", "offset", 0, 2**63 - 1),
    ("file_transfer", "total_chunks", 1, limits.MAX_V1_CHUNKS),
    ("file_transfer", "chunk_num", 0, 1),
]


@pytest.mark.parametrize(("type_", "field", "lowest", "highest"), RANGES)
def test_ranges(type_: str, field: str, lowest: int, highest: int) -> None:
    data = FULL[type_][0]
    for value in (lowest, highest):
        assert getattr(ask(type_, data | {field: value}), field) == value
    for value in (lowest - 1, highest + 1):
        assert refused(type_, data | {field: value}).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("type_", "field"),
    [(t, f) for t, f, _ in LENGTHS if f not in ("username", "password", "name") and t != "resume"]
    + [("file_offer", "name")],
)
@pytest.mark.parametrize("character", ["\0", "\n", "\t", "\x1b", "\x7f", "\x85", "\x9b"])
def test_labels_hold_no_control_characters(type_: str, field: str, character: str) -> None:
    assert refused(type_, FULL[type_][0] | {field: f"a{character}b"}).code is ErrorCode.BAD_REQUEST


class TestHello:
    def test_a_later_version_may_ask(self) -> None:
        assert ask("hello", {"protocol": 3}) == r.Hello(protocol=3)

    @pytest.mark.parametrize("protocol", [1, 0, -1])
    def test_an_earlier_one_has_no_hello(self, protocol: int) -> None:
        assert refused("hello", {"protocol": protocol}).code is ErrorCode.BAD_REQUEST


class TestRegister:
    def test_sizes_beyond_bounds_have_the_codes_of_a_registration(self) -> None:
        good = {"username": "alice", "password": "correct horse"}
        long = "x" * 1025
        assert refused("register_request", good | {"username": long}).code is ErrorCode.BAD_USERNAME
        assert refused("register_request", good | {"password": long}).code is ErrorCode.WEAK_PASSWORD

    def test_the_rest_is_for_the_service_to_judge(self) -> None:
        odd = {"username": "\0", "password": " \n\0 "}
        assert ask("register_request", odd) == r.Register(**odd)


class TestTextMessage:
    def test_4000_characters_pass_and_4001_are_too_large(self) -> None:
        for character in ("x", "ü", "\U0001f600"):
            text = character * limits.MAX_TEXT_CHARS
            request = ask("text_message", {"text": text, "room_id": "r"})
            assert isinstance(request, r.TextMessage)
            assert request.text == text
            assert refused("text_message", {"text": text + character, "room_id": "r"}).code is ErrorCode.TOO_LARGE

    def test_an_empty_text_is_none(self) -> None:
        assert refused("text_message", {"text": "", "room_id": "r"}).code is ErrorCode.BAD_REQUEST

    @pytest.mark.parametrize("text", ["a\nb\tc", "\u202eabc", "سلام\u200cها", "👨‍👩‍👧", " ", "\u2028", "e\u0301"])
    def test_what_people_write_passes(self, text: str) -> None:
        assert ask("text_message", {"text": text}) == r.TextMessage(text=text)

    @pytest.mark.parametrize("character", ["\0", "\r", "\x0b", "\x1b", "\x7f", "\x80", "\x9f"])
    def test_control_characters_do_not(self, character: str) -> None:
        for room_id in (None, "r"):
            assert refused("text_message", {"text": f"a{character}"}, room_id=room_id).code is ErrorCode.BAD_REQUEST

    def test_the_senders_name_and_time_are_never_read(self) -> None:
        lies = {"username": "root", "user_id": "1", "seq": 5, "ts": 6, "timestamp": 7, "epoch": "x"}
        assert ask("text_message", {"text": "hi", **lies}) == r.TextMessage(text="hi")

    @given(
        data=st.fixed_dictionaries(
            {},
            optional={
                name: st.none() | st.integers() | st.sampled_from(["", "a", "x" * 64, "x" * 65, "\n", "\x7f", "\u200c"])
                for name in ("text", "room_id", "key")
            },
        ),
        room_id=st.sampled_from([None, "", "r", "x" * 65, "\n"]),
    )
    def test_the_short_way_agrees_with_the_exact_one(self, data: dict[str, Any], room_id: str | None) -> None:
        def result() -> Any:
            try:
                return ask("text_message", data, room_id=room_id)
            except WireError as error:
                return error.code, error.message

        short = result()
        with patch.object(r, "_ordinary_text", return_value=None) as bypassed:
            assert result() == short
        bypassed.assert_called_once()


class TestRoomId:
    @pytest.mark.parametrize("type_", ["join_room", "leave_room", "user_list", "text_message", "history"])
    def test_it_counts_in_the_envelope_and_in_data(self, type_: str) -> None:
        data = {key: value for key, value in FULL[type_][0].items() if key != "room_id"}
        assert ask(type_, data, room_id="here") == ask(type_, data | {"room_id": "here"})
        assert ask(type_, data | {"room_id": None}, room_id="here") == ask(type_, data, room_id="here")

    def test_what_the_request_itself_says_goes_before_its_context(self) -> None:
        assert ask("join_room", {"room_id": "other"}, room_id="current") == r.JoinRoom(room_id="other")

    def test_the_clients_data_is_left_alone(self) -> None:
        data: dict[str, Any] = {}
        ask("leave_room", data, room_id="here")
        assert data == {}


class TestHistory:
    def test_after_and_before_exclude_each_other(self) -> None:
        assert refused("history", {"room_id": "r", "after": 1, "before": 2}).code is ErrorCode.BAD_REQUEST

    def test_neither_is_the_newest(self) -> None:
        assert ask("history", {"room_id": "r"}) == r.History(room_id="r", after=None, before=None, limit=50)


class TestResume:
    @pytest.mark.parametrize(
        "rooms",
        [
            {"": {"epoch": "e", "seq": 1}},
            {"r": {"epoch": "", "seq": 1}},
            {"r": {"epoch": "e", "seq": -1}},
            {"r": {"epoch": "e"}},
            {"r": {"seq": 1}},
            {"r": {"epoch": 1, "seq": 1}},
            {"r": 5},
            {"r\n": {"epoch": "e", "seq": 1}},
            {"r": {"epoch": "\0", "seq": 1}},
            {f"r{number}": {"epoch": "e", "seq": 1} for number in range(limits.MAX_RESUME_ROOMS + 1)},
        ],
    )
    def test_bad_positions(self, rooms: dict[str, Any]) -> None:
        assert refused("resume", {"token": "t", "rooms": rooms}).code is ErrorCode.BAD_REQUEST

    def test_as_many_rooms_as_allowed_fit_into_a_frame(self) -> None:
        rooms = {f"{number:016d}": {"epoch": "abcdefgh", "seq": 10**9} for number in range(limits.MAX_RESUME_ROOMS)}
        (payload,) = FrameDecoder().feed(encode_request("resume", {"token": "t" * 43, "rooms": rooms}))
        assert isinstance(payload, bytes)
        request = parse_request(parse(payload))
        assert isinstance(request, r.Resume)
        assert request.rooms["0" * 16] == r.Position(epoch="abcdefgh", seq=10**9)


class TestFiles:
    @pytest.mark.parametrize("value", ["", HEX32[:-1], HEX32 + "0", HEX32[:-1] + "g", HEX32 + "\n", HEX32.upper()])
    def test_file_ids_are_32_hex_digits(self, value: str) -> None:
        assert refused("file_cancel", {"file_id": value}).code is ErrorCode.BAD_REQUEST

    def test_a_hash_is_64_hex_digits_of_either_case(self) -> None:
        offer = FULL["file_offer"][0]
        assert ask("file_offer", offer | {"sha256": HEX64.upper()}) == ask("file_offer", offer)
        for value in ("", HEX64[:-1], HEX64 + "0", HEX64[:-1] + "x", HEX64 + "\n"):
            assert refused("file_offer", offer | {"sha256": value}).code is ErrorCode.BAD_REQUEST

    def test_a_version_1_piece_is_decoded(self) -> None:
        request = ask("file_transfer", FULL["file_transfer"][0])
        assert isinstance(request, r.FileTransfer)
        assert request.content() == b"hello"

    @pytest.mark.parametrize("data", ["a", "a===", "aGVsbG8", "aGVs bG8=", "é", "====", "aGVsbG8=x"])
    def test_a_version_1_piece_is_base64(self, data: str) -> None:
        assert refused("file_transfer", FULL["file_transfer"][0] | {"data": data}).code is ErrorCode.BAD_REQUEST

    def test_a_piece_is_one_of_its_file(self) -> None:
        assert refused("file_transfer", FULL["file_transfer"][0] | {"chunk_num": 2}).code is ErrorCode.BAD_REQUEST


def test_refusals_do_not_repeat_what_was_sent() -> None:
    secret = "correct horse"
    for data in ({"username": 5, "password": secret}, {"username": "x" * 2000, "password": secret}):
        assert secret not in refused("auth_request", data).message
    assert secret not in json.dumps(refused("text_message", {"text": secret, "key": 5}).message)
