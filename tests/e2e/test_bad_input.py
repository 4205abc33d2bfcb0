"""Every kind of bad input over the real stack gets a typed answer or a clean close, and disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.people import fresh
from tests.helpers.raw_client import ClosedError, Frame, NoAnswerError, RawClient, encode, pack
from tests.helpers.witness import CleanLogs, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.people import People
    from tests.helpers.stack import Stack

CODES = frozenset(
    """bad_frame frame_too_large bad_json bad_request unknown_type not_authenticated invalid_credentials username_taken
    bad_username weak_password already_logged_in bad_token no_such_room room_exists bad_room_name not_a_member forbidden
    conflict rate_limited overloaded too_large quota_exceeded hash_mismatch no_such_file unavailable unknown_outcome
    internal""".split()  # noqa: SIM905 -- as docs/protocol.md writes them
)
PASSWORD = "correct horse battery"
FAULTS_MAX = 15  # below the 20 faulty frames a minute after which the server hangs up


@pytest.fixture(autouse=True)
def clean_logs(stack: Stack) -> Iterator[None]:
    logs = CleanLogs(stack)
    yield
    logs.check()


def nested(depth: int) -> bytes:
    return b'{"type":"heartbeat","data":{"a":' + b"[" * depth + b"]" * depth + b"}}"


# What ends the connection, and why.
FATAL = {
    "an empty frame": (b"\0\0\0\0", "bad_frame"),
    "no JSON": (pack(b"hello"), "bad_frame"),
    "an array": (pack(b"[1]"), "bad_frame"),
    "space before the object": (pack(b' {"type":"heartbeat"}'), "bad_frame"),
    "an unknown first byte": (pack(b"\x02" * 40), "bad_frame"),
    "a chunk without a header": (pack(b"\x01short"), "bad_frame"),
    "one byte too much": (struct.pack(">I", 65_537) + b"{", "frame_too_large"),
    "four gigabytes announced": (b"\xff\xff\xff\xff", "frame_too_large"),
    "another protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "frame_too_large"),
}


@pytest.mark.parametrize("kind", FATAL)
async def test_broken_frames_close_the_connection_with_a_reason(people: People, kind: str) -> None:
    data, code = FATAL[kind]
    for hello in (True, False):
        client = await people.connect(hello=hello)
        await client.send_bytes(encode({"type": "heartbeat", "id": 1}) + data)
        assert await client.is_closed()
        first, *rest = client.events
        assert first["type"] == "heartbeat"
        errors = [frame for frame in rest if frame["type"] == "error"]
        assert [frame["data"]["code"] for frame in errors] == [code]


# What is answered and forgiven.
FORGIVEN = {
    "cut off": b'{"type":"heartbeat"',
    "only a brace": b"{",
    "two objects": b'{"type":"heartbeat"}{"type":"heartbeat"}',
    "no type": b"{}",
    "type is a number": b'{"type":5}',
    "unknown type": b'{"type":"make_coffee"}',
    "NaN": b'{"type":"heartbeat","data":{"a":NaN}}',
    "Infinity": b'{"type":"heartbeat","data":{"a":-Infinity}}',
    "a huge integer": b'{"type":"heartbeat","data":{"a":' + b"9" * 30 + b"}}",
    "an integer of 60,000 digits": b'{"type":"heartbeat","data":{"a":' + b"9" * 60_000 + b"}}",
    "a float out of range": b'{"type":"heartbeat","data":{"a":1e999}}',
    "bad UTF-8": b'{"type":"heartbeat","data":{"a":"\xff\xfe"}}',
    "overlong UTF-8": b'{"type":"heartbeat","data":{"a":"\xc0\x80"}}',
    "a surrogate in UTF-8": b'{"type":"heartbeat","data":{"a":"\xed\xa0\x80"}}',
    "a lone surrogate": b'{"type":"heartbeat","data":{"a":"\\ud800"}}',
    "33 levels": nested(33),
    "20,000 levels": nested(20_000),
    "32,000 open brackets": b'{"type":"heartbeat","data":{"a":' + b"[" * 32_000,
    "a raw newline in a string": b'{"type":"heartbeat","data":{"a":"\n"}}',
    "a NUL": b'{"type":"heartbeat\0"}',
}


@pytest.mark.parametrize("kind", FORGIVEN)
async def test_broken_json_is_answered_and_the_connection_goes_on(people: People, kind: str) -> None:
    for hello in (True, False):
        client = await people.connect(hello=hello)
        await client.send_bytes(pack(FORGIVEN[kind]))
        reply = await client.read()
        assert reply["type"] == "error"
        assert reply["data"]["code"] in {"bad_json", "bad_request", "unknown_type"}
        assert isinstance(reply["data"]["error"], str)
        assert (await client.request("heartbeat"))["type"] == "heartbeat"


async def test_what_is_odd_but_right_is_accepted(people: People) -> None:
    client = await people.connect()
    for payload in (
        b'{"type":"nonsense","type":"heartbeat","id":1}',  # the last of equal keys counts
        b'{"type":"heartbeat","id":1,"unknown":{"x":[1,2,3]},"timestamp":{}}',
        b'{ "type" :\n"heart\\u0062eat" , "id":1}',
        nested(30)[:-1] + b',"id":1}',
        b'{"type":"heartbeat","id":1,"data":{' + b",".join(b'"k%d":0' % k for k in range(5000)) + b"}}",
    ):
        await client.send_bytes(pack(payload))
        reply = await client.read()
        assert (reply["type"], reply["re"]) == ("heartbeat", 1)


async def test_more_than_20_faulty_frames_close_the_connection(people: People) -> None:
    client = await people.connect()
    with contextlib.suppress(ClosedError):
        for _ in range(40):
            await client.send_bytes(pack(b'{"type":'))
    assert await client.is_closed()
    faults = [frame for frame in client.events if frame["type"] == "error"]
    assert 20 <= len(faults) <= 21
    assert client.events[-1]["type"] == "goodbye"
    assert client.events[-1]["data"]["reason"] == "protocol_error"


async def test_frames_and_writes_need_not_line_up(people: People) -> None:
    client = await people.connect()
    stream = b"".join(encode({"type": "heartbeat", "id": number}) for number in range(50))
    chance = random.Random(7)
    while stream:
        size = chance.randrange(1, 60)
        await client.send_bytes(stream[:size])
        stream = stream[size:]
    for number in range(50):
        assert (await client.read())["re"] == number


async def test_garbage_after_the_handshake_and_instead_of_it(people: People, stack: Stack) -> None:
    chance = random.Random(11)
    async with undisturbed(people):
        for _ in range(20):
            client = await people.connect(hello=False)
            with contextlib.suppress(ClosedError, OSError):
                await client.send_bytes(chance.randbytes(chance.randrange(1, 5000)))
                client.writer.write_eof() if client.writer.can_write_eof() else client.abort()
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(chance.randbytes(chance.randrange(1, 5000)))
            with contextlib.suppress(OSError):
                await asyncio.wait_for(reader.read(), 20)  # the server hangs up
            writer.close()


async def test_half_a_frame_and_then_nothing(people: People) -> None:
    async with undisturbed(people):
        for cut in (1, 3, 4, 5, 20):
            client = await people.connect()
            await client.send_bytes(encode({"type": "heartbeat", "data": {"a": "b" * 100}})[:cut])
            client.abort()


async def test_dawdlers_are_hung_up_on(people: People, stack: Stack) -> None:
    """A handshake may take 5 s, a frame 10 s; how many bytes come in between does not matter."""

    async def no_handshake() -> float:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        with contextlib.suppress(OSError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        return time.monotonic() - started

    async def trickle(client: RawClient) -> float:
        started = time.monotonic()
        closing = asyncio.create_task(client.is_closed(30))
        with contextlib.suppress(ClosedError):
            for byte in encode({"type": "heartbeat", "data": {"a": "b" * 1000}}):
                await client.send_bytes(bytes([byte]))
                await asyncio.wait({closing}, timeout=0.25)
                if closing.done():
                    break
        assert await closing
        return time.monotonic() - started

    async with undisturbed(people):
        first, second = await people.connect(), await people.person()
        handshake_s, frame_s, frame_of_a_person_s = await asyncio.gather(
            no_handshake(), trickle(first), trickle(second)
        )
    assert 4 < handshake_s < 10
    assert 9 < frame_s < 16
    assert 9 < frame_of_a_person_s < 16


# Every request with every field that protocol.md names, filled in rightly. The first word is the type. ROOM stands for
# a room of the sender.
ROOM = "(room)"
REQUESTS: dict[str, Frame] = {
    "hello": {"protocol": 2, "client": "raw/1"},
    "register_request": {"username": "somebody", "password": PASSWORD},
    "auth_request": {"username": "somebody", "password": PASSWORD, "takeover": False, "device": "x"},
    "resume": {"token": "x" * 43, "rooms": {"abcdefgh": {"epoch": "abcd", "seq": 1}}},
    "logout": {},
    "create_room": {"name": "some room", "topic": "x", "private": False},
    "join_room": {"room_id": ROOM},
    "leave_room": {"room_id": ROOM},
    "list_rooms": {"query": "x", "limit": 10, "cursor": ""},
    "user_list": {"room_id": ROOM},
    "text_message": {"room_id": ROOM, "text": "hi", "key": "k"},
    "history": {"room_id": ROOM, "after": 1, "limit": 10},
    "history before": {"room_id": ROOM, "before": 5},
    "file_offer": {"room_id": ROOM, "name": "x", "size": 1, "sha256": "0" * 64, "mime": "text/plain"},
    "file_get": {"file_id": "0" * 32, "offset": 0},
    "file_cancel": {"file_id": "0" * 32},
    "file_ack": {"file_id": "0" * 32, "offset": 0},
    "file_transfer": {"transfer_id": "0" * 32, "filename": "x", "chunk_num": 0, "total_chunks": 1, "data": "aGk="},
    "heartbeat": {},
    "notice": {"text": "x"},
    "messages": {"messages": []},
}
BEFORE_LOGIN = {"hello", "register_request", "auth_request", "resume", "heartbeat"}
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 2**63 - 1, -(2**63), "", "\0", "a\u202eb", "x" * 5000, "x" * 60_000, [], {}, [[]],
    {"a": {}}, [1, "a"],
]  # fmt: skip


def is_typed(reply: Frame) -> bool:
    """An answer that a program can act on."""
    if reply["type"] == "error" or reply["data"].get("success") is False:
        return reply["data"]["code"] in CODES - {"internal"} and isinstance(reply["data"]["error"], str)
    return True


class Prober:
    """Sends one odd frame after the other, on a fresh connection where the old one has had enough."""

    def __init__(self, people: People, *, logged_in: bool) -> None:
        self._people = people
        self._logged_in = logged_in
        self._client: RawClient | None = None
        self._room_id = "abcdefgh"
        self._faults = 0
        self._sent = 0

    async def probe(self, frame: Frame) -> None:
        client = await self._connection()
        self._sent += 1
        own = f"probe {self._sent}"
        await client.send_bytes(encode(json.loads(json.dumps({"id": own, **frame}).replace(ROOM, self._room_id))))
        answers = []
        if "id" not in frame and frame["type"] != "file_ack":
            answers.append(await client.wait_for(lambda f: f.get("re") == own))
        # Whatever the frame brought, it left the connection in order.
        await client.send_bytes(encode({"type": "heartbeat", "id": "behind"}))
        await client.wait_for(lambda f: f.get("re") == "behind")
        answers += client.events
        client.events.clear()
        for reply in answers:
            assert is_typed(reply), (frame, reply)
            self._faults += reply["type"] == "error" or reply["data"].get("success") is False
        replies = [reply for reply in answers if reply.get("re") == own]
        assert len(replies) <= 1, (frame, answers)
        if frame["type"] in {"logout", "auth_request", "leave_room"}:
            self._client = None  # somebody else now, or nobody

    async def _connection(self) -> RawClient:
        if self._client is None or self._faults >= FAULTS_MAX:
            self._faults = 0
            if self._logged_in:
                self._client = await self._people.person()
                self._room_id = await self._people.room(self._client)
                await self._client.say(self._room_id, "one")
            else:
                self._client = await self._people.connect()
            self._client.events.clear()
        return self._client


@pytest.mark.parametrize("logged_in", [False, True], ids=["before login", "logged in"])
@pytest.mark.parametrize("request_", REQUESTS)
async def test_wrong_values_in_every_field(people: People, request_: str, *, logged_in: bool) -> None:
    prober = Prober(people, logged_in=logged_in)
    right, type_ = REQUESTS[request_], request_.partition(" ")[0]
    for field in right:
        for wrong in WRONG:
            data = {**right, field: wrong}
            if type_ == "register_request" and field != "username":
                data["username"] = fresh()
            await prober.probe({"type": type_, "data": data})
        await prober.probe({"type": type_, "data": {key: value for key, value in right.items() if key != field}})
    for wrong in (None, True, 5, "x", [], [{}]):
        await prober.probe({"type": type_, "data": wrong})


@pytest.mark.parametrize("logged_in", [False, True], ids=["before login", "logged in"])
async def test_wrong_values_in_the_envelope(people: People, *, logged_in: bool) -> None:
    prober = Prober(people, logged_in=logged_in)
    async with undisturbed(people):
        for field in ("id", "priority", "room_id", "timestamp"):
            for wrong in WRONG:
                for type_ in ("heartbeat", "text_message", "list_rooms"):
                    data = {key: value for key, value in REQUESTS[type_].items() if key != field}
                    await prober.probe({"type": type_, "data": data, field: wrong})


@pytest.mark.parametrize(
    "state", ["new", "greeted", "logged in", "in a room", "logged out", "version 1", "version 1 in"]
)
async def test_every_request_in_every_state(people: People, state: str) -> None:
    for request_, template in REQUESTS.items():
        type_ = request_.partition(" ")[0]
        client = await people.connect(hello=not (state == "new" or state.startswith("version 1")))
        room_id = "abcdefgh"
        if state in {"logged in", "in a room", "logged out", "version 1 in"}:
            await client.enter(fresh())
        if state in {"in a room", "version 1 in"}:
            room_id = (await client.expect("create_room", {"name": fresh("room")}))["room_id"]
        if state == "logged out":
            await client.expect("logout")
        client.events.clear()
        data = {key: room_id if value == ROOM else value for key, value in template.items()}
        is_greeting = type_ == "hello" and state == "new"
        await client.send(type_, data, id="probe")
        if not ((type_ == "text_message" and state == "version 1 in") or type_ == "file_ack"):
            client.events.append(await client.wait_for(lambda f: f.get("re") == "probe"))
        await client.send("heartbeat", id="behind")
        await client.wait_for(lambda f: f.get("re") == "behind")
        replies = [reply for reply in client.events if reply.get("re") == "probe"]
        assert all(map(is_typed, replies)), (state, type_, replies)
        if state in {"new", "greeted", "logged out"} and type_ not in BEFORE_LOGIN:
            assert replies[0]["data"]["code"] in {"not_authenticated", "unknown_type"}, (state, type_, replies)
        if is_greeting:
            assert replies[0]["type"] == "server_info"
        await client.close()


async def test_texts_at_their_limits(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    for text in ("x", "x" * 4000, "ي" * 4000, "🦜" * 4000, "a\n\tb", "a\u202eb", '"\\/\u2028'):
        seq = (await alice.say(room_id, text))["seq"]
        [message] = await alice.messages(room_id, 1)
        assert (message["text"], message["seq"]) == (text, seq)
    for text, code in [
        ("", "bad_request"), ("x" * 4001, "too_large"), ("a\0b", "bad_request"), ("a\rb", "bad_request"),
        ("\x1b[31mred", "bad_request"), ("a\x7fb", "bad_request"), ("a\x85b", "bad_request"),
    ]:  # fmt: skip
        assert await alice.refused("text_message", {"text": text}, room_id=room_id) == code, text[:10]
    for key in ("", "k" * 65):
        assert await alice.refused("text_message", {"text": "x", "key": key}, room_id=room_id) == "bad_request"


async def test_a_frame_of_full_size_is_accepted(people: People) -> None:
    client = await people.connect()
    frame = {"type": "heartbeat", "id": 1, "data": {"a": ""}}
    frame["data"]["a"] = "x" * (65_536 + 4 - len(encode(frame)))  # type: ignore[index]
    assert len(encode(frame)) == 65_540
    await client.send_bytes(encode(frame))
    assert (await client.read())["re"] == 1


async def test_hanging_up_at_any_moment_disturbs_nobody(people: People) -> None:
    chance = random.Random(3)
    async with undisturbed(people):
        for _ in range(15):
            client = await people.person()
            room_id = await people.room(client)
            for number in range(chance.randrange(20)):
                await client.send("text_message", {"text": f"{number}"}, room_id=room_id)
            with contextlib.suppress(NoAnswerError, ClosedError):
                await client.read(chance.random() / 100)
            client.abort()
