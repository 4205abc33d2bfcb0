from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import Envelope, ServerEnvelope, WireError, encode_request, parse, parse_server
from services.common.wire.frames import FrameDecoder

ENVELOPE_KEYS = ("type", "id", "data", "priority", "room_id", "timestamp")

ids = st.one_of(
    st.text(min_size=1, max_size=64), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, width=64)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
datas = st.dictionaries(st.text(max_size=10), json_values, max_size=5)


def fields(envelope: Envelope) -> tuple[Any, ...]:
    return envelope.type, envelope.id, envelope.data, envelope.priority, envelope.room_id


def fault(payload: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        parse(payload)
    return caught.value


def is_finite(value: Any) -> bool:
    return "Infinity" not in json.dumps(value)


@given(
    type_=st.text(min_size=1, max_size=20),
    data=datas.filter(is_finite),
    id_=st.none() | ids.filter(is_finite),
    room_id=st.none() | st.text(min_size=1, max_size=20),
    priority=st.sampled_from([None, 1, 2, 3, 4]),
)
def test_what_a_client_encodes_the_server_reads(
    type_: str, data: dict[str, Any], id_: Any, room_id: str | None, priority: int | None
) -> None:
    frame = encode_request(type_, data, id=id_, room_id=room_id, priority=priority)
    (payload,) = FrameDecoder().feed(frame)
    assert isinstance(payload, bytes)
    assert fields(parse(payload)) == (type_, id_, data, priority, room_id)


@given(
    data=datas,
    extra=st.dictionaries(st.text(max_size=10).filter(lambda key: key not in ENVELOPE_KEYS), json_values, max_size=3),
)
def test_unknown_keys_change_nothing(data: dict[str, Any], extra: dict[str, Any]) -> None:
    plain = {"type": "x", "id": "1", "data": data}
    assume(is_finite([data, extra]))
    assert fields(parse(json.dumps({**extra, **plain}).encode())) == fields(parse(json.dumps(plain).encode()))


def judged(read: Callable[[bytes], Any], payload: bytes) -> Any:
    """What reading gives: the envelope, or the code of the typed fault; anything else that is raised is a failure."""
    try:
        return read(payload)
    except WireError as error:
        return error.code


@given(st.binary(max_size=200))
def test_garbage_raises_typed_faults_only(garbage: bytes) -> None:
    for read in (parse, parse_server):
        result = judged(read, b"{" + garbage)
        assert isinstance(result, Envelope | ServerEnvelope) or result in (ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST)


@given(st.dictionaries(st.sampled_from(ENVELOPE_KEYS), json_values))
def test_any_values_in_the_envelope_raise_typed_faults_only(frame: dict[str, Any]) -> None:
    result = judged(parse, json.dumps(frame).encode())
    if isinstance(result, Envelope):
        assert type(result.type) is str
        assert type(result.data) is dict
        assert result.priority in (None, 1, 2, 3, 4)
        assert result.room_id is None or type(result.room_id) is str
        assert result.id is None or type(result.id) in (str, int, float)
    else:
        assert result in (ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An envelope in which ``depth`` levels are open at the deepest point; itself and ``data`` are two of them."""
    inner = opening * (depth - 2) + b"1" + closing * (depth - 2)
    return b'{"type":"x","data":{"a":' + inner + b"}}"


HUGE = b"9" * 60_000

BAD_JSON = {
    "not an object": b"[]",
    "cut": b'{"type":"x"',
    "trailing bytes": b'{"type":"x"} {}',
    "trailing comma": b'{"type":"x",}',
    "a byte order mark": b'\xef\xbb\xbf{"type":"x"}',
    "a raw control character": b'{"type":"x","data":{"a":"\x00"}}',
    "single quotes": b"{'type':'x'}",
    "a leading zero": b'{"type":"x","data":{"a":01}}',
    "33 levels": nested(33),
    "33 levels of objects": nested(33, b'{"a":', b"}"),
    "a tower of arrays": b'{"type":"x","a":' + b"[" * 60_000,
    "a tower of objects": b'{"a":' * 12_000,
    "33 levels under an unknown key": b'{"type":"x","u":' + b"[" * 32 + b"]" * 32 + b"}",
}
for _where, _frame in {
    "in the envelope": b'{"type":"x","u":%s}',
    "as id": b'{"type":"x","id":%s}',
    "as priority": b'{"type":"x","priority":%s}',
    "in data": b'{"type":"x","data":{"a":%s}}',
    "deep in data": b'{"type":"x","data":{"a":[{"b":%s}]}}',
}.items():
    for _what, _value in {
        "NaN": b"NaN",
        "Infinity": b"Infinity",
        "-Infinity": b"-Infinity",
        "1e999": b"1e999",
        "-1e999": b"-1e999",
        "2**64": b"18446744073709551616",
        "-2**63-1": b"-9223372036854775809",
        "a number of 300 digits": b"1" + b"0" * 299,
        "a number of 60,000 digits": HUGE,
        "a lone high surrogate": b'"\\ud800"',
        "a lone low surrogate": b'"\\udc00 "',
        "two high surrogates": b'"\\ud83d\\ud83d"',
        "a raw surrogate": b'"\xed\xa0\x80"',
        "invalid UTF-8": b'"\xff"',
        "overlong UTF-8": b'"\xc0\xaf"',
        "cut UTF-8": b'"\xe2\x82"',
        "UTF-8 beyond Unicode": b'"\xf4\x90\x80\x80"',
    }.items():
        BAD_JSON[f"{_what} {_where}"] = _frame % _value


@pytest.mark.parametrize("payload", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json(payload: bytes) -> None:
    assert len(payload) <= limits.MAX_JSON_BYTES
    assert fault(payload).code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("key", [b"\\ud800", b"\xff", b"\xed\xa0\x80"])
def test_keys_are_text_too(key: bytes) -> None:
    assert fault(b'{"type":"x","' + key + b'":1}').code is ErrorCode.BAD_JSON
    assert fault(b'{"type":"x","data":{"' + key + b'":1}}').code is ErrorCode.BAD_JSON


def test_the_bounds_themselves_pass() -> None:
    assert parse(nested(32)).type == "x"
    assert parse(nested(32, b'{"a":', b"}")).type == "x"
    for number in (2**64 - 1, -(2**63), 1.7976931348623157e308):
        assert parse(json.dumps({"type": "x", "data": {"a": number}}).encode()).data == {"a": number}
    assert parse(b'{"type":"x","data":{"a":1e-999}}').data == {"a": 0.0}


def test_escaped_pairs_and_nul_pass_here() -> None:
    assert parse(b'{"type":"x","data":{"a":"\\ud83d\\ude00\\u0000"}}').data == {"a": "\U0001f600\0"}


@pytest.mark.parametrize("value", ['{"a":1}', "[1]"])
def test_of_duplicate_keys_the_last_wins(value: str) -> None:
    envelope = parse(f'{{"type":"a","id":{value},"id":7,"data":{{"k":{value},"k":"last"}},"type":"b"}}'.encode())
    assert fields(envelope) == ("b", 7, {"k": "last"}, None, None)
    assert fault(f'{{"type":"a","id":7,"id":{value}}}'.encode()).code is ErrorCode.BAD_REQUEST


WRONG = {
    "type": [None, 1, 1.5, True, [], {}],
    "id": [None, True, False, [], {}, "", "x" * 65],
    "data": [None, 1, 1.5, "x", True, []],
    "priority": [None, 0, 5, -1, 2.0, 1.5, "2", True, [], {}],
    "room_id": [1, 1.5, True, [], {}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
@pytest.mark.parametrize("extra", [{}, {"unknown": 1}, {"timestamp": 5}])
def test_wrong_types_in_the_envelope(key: str, value: Any, extra: dict[str, Any]) -> None:
    frame = {"type": "x", "id": "7", "data": {}, **extra, key: value}
    error = fault(json.dumps(frame).encode())
    assert error.code is ErrorCode.BAD_REQUEST
    assert error.message.startswith(key)
    assert error.re == (None if key == "id" else "7")
    assert error.type == (None if key == "type" else "x")


def test_a_frame_without_type_is_a_bad_request_that_names_the_id() -> None:
    error = fault(b'{"id":5}')
    assert (error.code, error.re) == (ErrorCode.BAD_REQUEST, 5)


@pytest.mark.parametrize("request_id", ["a", "x" * 64, "ü", 0, -1, 2**64 - 1, 1.5, -0.5])
def test_ids_come_back_as_they_were(request_id: Any) -> None:
    envelope = parse(json.dumps({"type": "x", "id": request_id}).encode())
    assert envelope.id == request_id
    assert type(envelope.id) is type(request_id)


@pytest.mark.parametrize("timestamp", ["2026-11-01T00:00:00Z", 5, None, [], {}])
def test_a_clients_timestamp_is_ignored(timestamp: Any) -> None:
    assert parse(json.dumps({"type": "x", "timestamp": timestamp}).encode()).type == "x"


def test_a_version_1_frame_with_everything() -> None:
    payload = b'{"id":"u-1","type":"text_message","priority":2,"timestamp":"now","room_id":null,"data":{"text":"hi"}}'
    assert fields(parse(payload)) == ("text_message", "u-1", {"text": "hi"}, 2, None)


def test_a_client_cannot_encode_what_would_be_refused() -> None:
    with pytest.raises(ValueError, match="JSON frame"):
        encode_request("x", {"a": "x" * limits.MAX_JSON_BYTES})
    with pytest.raises(ValueError, match="surrogates"):
        encode_request("x", {"a": "\ud800"})


def test_absent_keys_are_not_sent() -> None:
    assert encode_request("heartbeat")[4:] == b'{"type":"heartbeat"}'


def test_the_client_reads_both_versions_and_ignores_unknown_keys() -> None:
    first = parse_server(
        b'{"type":"success","id":3,"re":"a","data":{"x":1},"priority":2,"room_id":null,"timestamp":"t","new":[]}'
    )
    assert first == ServerEnvelope(type="success", id=3, re="a", data={"x": 1}, timestamp="t")
    second = parse_server(b'{"type":"heartbeat","priority":4,"data":{}}')
    assert (second.type, second.re, second.priority, second.room_id) == ("heartbeat", None, 4, None)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{}", ErrorCode.BAD_REQUEST),
        (b"[]", ErrorCode.BAD_REQUEST),
        (b'{"type":1}', ErrorCode.BAD_REQUEST),
        (b'{"type":"x","data":[]}', ErrorCode.BAD_REQUEST),
        (b'{"type":"\xff"}', ErrorCode.BAD_JSON),
        (b'{"type":NaN}', ErrorCode.BAD_JSON),
        (b'{"type":"x","data":' + b'{"a":' * 12_000, ErrorCode.BAD_JSON),
    ],
)
def test_a_broken_server_is_a_typed_fault_too(payload: bytes, code: ErrorCode) -> None:
    with pytest.raises(WireError) as caught:
        parse_server(payload)
    assert caught.value.code is code


def test_a_fault_says_what_it_is() -> None:
    assert str(WireError(ErrorCode.BAD_JSON, "why")) == "bad_json: why"
