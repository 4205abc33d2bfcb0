"""What no decent client would send: each gets a typed answer or a clean close, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.clock import FakeClock
from tests.helpers.edge_world import PASSWORD, EdgeWorld, edge_world, until
from tests.helpers.raw_client import ClosedError, RawClient, encode, pack, tls_context


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No traceback, whatever comes, neither from the edge nor from the event loop."""
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "Traceback" not in capsys.readouterr().out


@contextlib.asynccontextmanager
async def bystanders(world: EdgeWorld) -> AsyncIterator[None]:
    """Two people who talk before and after, and are not disturbed."""
    alice, bob = await world.user("alice"), await world.user("bob")
    room_id = (await alice.expect("create_room", {"name": "bystanders"}))["room_id"]
    await bob.expect("join_room", {"room_id": room_id})

    async def talk(text: str) -> None:
        await alice.say(room_id, text)
        for client in (alice, bob):
            (message,) = await client.messages(room_id, 1)
            assert message["text"] == text

    await talk("before")
    yield
    await talk("after")
    assert not [frame for client in (alice, bob) for frame in client.events if frame["type"] in ("error", "goodbye")]


async def last_words(client: RawClient) -> list[dict[str, Any]]:
    assert await client.is_closed()
    return list(client.events)


# Frames.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "frame_too_large"),
        (pack(b""), "bad_frame"),
        (pack(b"[]"), "bad_frame"),
        (b"\x00\x00\x00\x05\xff", "bad_frame"),
        (struct.pack(">I", 65_537) + b"{", "frame_too_large"),
        (struct.pack(">I", 0xFFFFFFFF), "frame_too_large"),
        (struct.pack(">IB", 10, 1) + bytes(9), "bad_frame"),
    ],
)
@pytest.mark.parametrize("hello", [True, False])
async def test_a_broken_frame_is_said_and_closed(tmp_path: Path, data: bytes, code: str, hello: bool) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.connect(hello=hello)
        await client.send_bytes(data)
        (error,) = await last_words(client)
        assert (error["type"], error["data"]["code"]) == ("error", code)
        assert ("id" in error) is not hello


async def test_frames_before_a_broken_one_are_answered(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        client = await world.connect()
        await client.send_bytes(encode({"type": "heartbeat", "id": 1}) + pack(b""))
        heartbeat, error = await last_words(client)
        assert (heartbeat["type"], error["data"]["code"]) == ("heartbeat", "bad_frame")


async def test_a_flood_behind_a_broken_frame_does_not_hide_the_answer(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        client = await world.connect()
        client.writer.write(pack(b"") + bytes(5_000_000))
        (error,) = await last_words(client)
        assert error["data"]["code"] == "bad_frame"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"heartbeat",}',
        b'{"type":"heartbeat"',
        b'{"type":"\xff\xfe"}',
        b'{"type":"heartbeat","data":{"x":"\\ud800"}}',
        b'{"type":"heartbeat","data":{"x":NaN}}',
        b'{"type":"heartbeat","data":{"x":1e999}}',
        b'{"type":"heartbeat","data":{"x":123456789012345678901234567890}}',
        b'{"type":"heartbeat","data":' + b'{"x":' * 40 + b"1" + b"}" * 40 + b"}",
        b'{"type":"heartbeat","data":{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
        b"{" * 60_000,
    ],
)
async def test_bad_json_is_said_and_forgiven(tmp_path: Path, payload: bytes) -> None:
    async with edge_world(tmp_path) as world:
        client = await world.connect()
        await client.send_bytes(pack(payload))
        error = await client.event("error")
        assert error["data"]["code"] == "bad_json"
        assert (await client.request("heartbeat"))["type"] == "heartbeat"


async def test_the_largest_frame_is_read(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        client = await world.connect()
        frame = b'{"type":"heartbeat","id":"big","data":{"x":"' + b"y" * 65_400
        await client.send_bytes(pack(frame + b" " * (65_536 - len(frame) - 3) + b'"}}'))
        assert (await client.event("heartbeat"))["re"] == "big"


async def test_too_many_faulty_frames_end_the_connection(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.connect()
        await client.send_bytes(encode({"type": "nonsense"}) * 1_000)
        frames = await last_words(client)
        assert [frame["type"] for frame in frames] == ["error"] * 21 + ["goodbye"]
        assert frames[-1]["data"]["reason"] == "protocol_error"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=60).map(lambda data: pack(b"{" + data)),
            st.sampled_from(["heartbeat", "auth_request", "text_message", "join_room", "hello", "resume"]).flatmap(
                lambda type_: st.dictionaries(
                    st.sampled_from(["username", "password", "room_id", "text", "token", "rooms", "protocol"]),
                    st.one_of(st.none(), st.integers(), st.text(max_size=9), st.lists(st.booleans(), max_size=2)),
                ).map(lambda data: encode({"type": type_, "data": data}))
            ),
        ),
        max_size=12,
    )
)
def test_anything_at_all(tmp_path: Path, pieces: list[bytes]) -> None:
    async def run() -> None:
        async with edge_world(tmp_path) as world:
            client = await world.connect(hello=False)
            for piece in pieces:
                with contextlib.suppress(OSError, ClosedError):
                    await client.send_bytes(piece)
            client.writer.close()
            await until(lambda: world.value("parley.edge.connections") == 0)
            other = await world.user("other")
            assert (await other.request("heartbeat"))["type"] == "heartbeat"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# Floods.


async def test_ten_thousand_pipelined_sends(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.user("flood")
        room_id = (await client.expect("create_room", {"name": "flood"}))["room_id"]
        frames = [
            encode({"type": "text_message", "id": number, "room_id": room_id, "data": {"text": f"t{number}"}})
            for number in range(10_000)
        ]
        writing = asyncio.create_task(client.send_bytes(b"".join(frames)))
        stored, refused = [], 0
        while len(stored) + refused < 10_000:
            reply = await client.wait_for(lambda frame: "re" in frame)
            if reply["type"] == "success":
                stored.append(reply["re"])
            else:
                assert reply["data"]["code"] == "rate_limited"
                refused += 1
        await writing
        assert 100 <= len(stored) < 1_000
        assert stored == sorted(stored)
        log = [message.text for message in world.rooms.rooms[room_id].log]
        assert log == [f"t{number}" for number in stored]


async def test_ten_thousand_pipelined_sends_without_a_rate_limit(tmp_path: Path) -> None:
    async with edge_world(tmp_path, text_rate=0.0) as world, bystanders(world):
        client = await world.user("flood")
        room_id = (await client.expect("create_room", {"name": "flood"}))["room_id"]
        frame = {"type": "text_message", "room_id": room_id, "data": {"text": "x"}}
        writing = asyncio.create_task(
            client.send_bytes(b"".join(encode({**frame, "id": number}) for number in range(10_000)))
        )
        answers: dict[int, str] = {}
        while len(answers) < 10_000:
            reply = await client.wait_for(lambda frame: "re" in frame)
            assert reply["re"] not in answers
            answers[reply["re"]] = reply["data"].get("code", "stored")
        await writing
        assert set(answers.values()) == {"stored"}  # what is ahead waits in the socket; nobody has to refuse it
        assert len(world.rooms.rooms[room_id].log) == 10_000


async def test_a_pipeline_behind_a_login_that_takes_its_time(tmp_path: Path) -> None:
    async with edge_world(tmp_path, text_rate=0.0, command_rate=0.0) as world:
        world.rooms.make_room("lobby")
        client = await world.connect()
        world.auth.gate.clear()
        await client.send("auth_request", {"username": "amy", "password": PASSWORD})
        await client.send("join_room", {"room_id": "lobby"})
        text = {"type": "text_message", "room_id": "room000001", "data": {"text": "x" * 100}}
        frames = b"".join(encode({**text, "id": number}) for number in range(20_000))
        writing = asyncio.create_task(client.send_bytes(frames))
        await until(lambda: world.auth.logins_waiting)
        (connection,) = world.edge._directory
        await until(lambda: connection._inbox is not None)
        assert connection.received_bytes < 1_000_000  # the rest is in the sockets, where the kernel has room for it
        world.auth.gate.set()
        for number in range(20_000):
            reply = await client.wait_for(lambda frame: isinstance(frame.get("re"), int) and frame["re"] >= 0)
            assert reply["type"] == "success", (number, reply)
        await writing


async def test_a_thousand_heartbeats(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.connect()
        await client.send_bytes(encode({"type": "heartbeat", "id": 1}) * 1_000)
        codes = [(await client.wait_for(lambda frame: "re" in frame))["data"].get("code") for _ in range(1_000)]
        assert codes.count(None) >= 200
        assert set(codes) == {None, "rate_limited"}


# Time.


async def advance(clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        await clock.advance(1)
        await asyncio.sleep(0.001)


async def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with edge_world(tmp_path, clock=clock) as world:
        client = await world.user("amy")
        await advance(clock, 58)
        await client.request("heartbeat")
        await advance(clock, 58)
        assert world.value("parley.edge.sessions") == 1
        await advance(clock, 3)
        assert (await last_words(client))[-1]["data"]["reason"] == "idle"
        assert world.auth.sessions == {}


async def test_who_does_not_log_in_goes_after_ten_minutes(tmp_path: Path) -> None:
    clock = FakeClock()
    async with edge_world(tmp_path, clock=clock) as world:
        client, user = await world.connect(), await world.user("amy")
        for _ in range(19):
            await advance(clock, 30)
            assert (await client.request("heartbeat"))["type"] == "heartbeat"
            await user.request("heartbeat")
        await advance(clock, 31)
        assert (await last_words(client))[-1]["data"]["reason"] == "idle"
        assert (await user.request("heartbeat"))["type"] == "heartbeat"


async def test_an_incomplete_frame_has_ten_seconds(tmp_path: Path) -> None:
    clock = FakeClock()
    async with edge_world(tmp_path, clock=clock) as world:
        client = await world.user("amy")
        frame = encode({"type": "heartbeat", "id": "slow"})
        for index in range(5):
            await client.send_bytes(frame[index : index + 1])
            await advance(clock, 1)
        await client.send_bytes(frame[5:])
        assert (await client.event("heartbeat"))["re"] == "slow"
        for index in range(12):
            with contextlib.suppress(OSError, ClosedError):
                await client.send_bytes(frame[index : index + 1])
            await advance(clock, 1)
        assert (await last_words(client))[-1]["data"]["reason"] == "protocol_error"


# Sockets.


async def raw_connection(world: EdgeWorld) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", world.port)


async def test_no_tls_is_no_connection(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        reader, writer = await raw_connection(world)
        writer.write(b"hello?\r\n" * 100)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await until(lambda: world.value("parley.edge.connections") == 2)


async def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        context = tls_context(world.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname="localhost")


@pytest.mark.parametrize("offered", [["parley/2"], ["h2", "http/1.1"], []])
async def test_alpn_is_offered_and_its_absence_is_fine(tmp_path: Path, offered: list[str]) -> None:
    async with edge_world(tmp_path) as world:
        context = tls_context(world.ca)
        if offered:
            context.set_alpn_protocols(offered)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=context, server_hostname="localhost"
        )
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert chosen == ("parley/2" if "parley/2" in offered else None)
        client = RawClient(reader, writer)
        assert (await client.request("heartbeat"))["type"] == "heartbeat"
        await client.close()


async def test_a_handshake_that_stalls_is_ended(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        world.edge._listener._handshake_s = 0.3  # from now on: the bystanders had time for theirs
        reader, writer = await raw_connection(world)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await until(lambda: world.value("parley.edge.connections") == 2)


async def test_two_thousand_that_never_speak(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        sockets = []
        try:
            for number in range(2_000):
                one = socket.socket()
                one.setblocking(False)
                sockets.append(one)
                await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", world.port))
                if number % 500 == 0:
                    await (await world.user(f"between{number}")).close()
            await until(lambda: world.value("parley.edge.connections.accepted") >= 2_000)
            assert world.value("parley.edge.connections") <= 64 + 2 + 4
            newcomer = await world.user("newcomer")
            assert (await newcomer.request("heartbeat"))["type"] == "heartbeat"
        finally:
            for one in sockets:
                one.close()


async def test_who_is_silent_after_the_handshake_makes_way_too(tmp_path: Path) -> None:
    async with edge_world(tmp_path, anonymous_per_address_max=5) as world:
        clients = [await world.connect() for _ in range(8)]
        for client in clients[:3]:
            assert (await last_words(client))[-1]["data"]["reason"] == "idle"
        for client in clients[3:]:
            assert (await client.request("heartbeat"))["type"] == "heartbeat"
        assert world.value("parley.edge.connections.refused") == 3


async def test_the_edge_is_full_of_people(tmp_path: Path) -> None:
    async with edge_world(tmp_path, connections_max=3) as world:
        people = [await world.user(f"user{number}") for number in range(3)]
        with pytest.raises((OSError, ssl.SSLError)):
            await world.connect()
        await people[0].close()
        await until(lambda: world.value("parley.edge.connections") == 2)
        await world.user("next")


async def test_a_half_closed_connection_ends(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.user("amy")
        with socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        await until(lambda: world.value("parley.edge.connections") == 2)
        await until(lambda: "amy" not in world.auth.sessions.values())


async def test_a_reset_in_the_middle_of_a_frame(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world, bystanders(world):
        client = await world.user("amy")
        raw = client.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.send_bytes(b"\x00\x00\x01\x00{")
        client.abort()
        await until(lambda: world.value("parley.edge.connections") == 2)


async def test_a_slow_reader_is_cut_off_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async with edge_world(tmp_path, outbox_bytes_max=200_000) as world, bystanders(world):
        talker, slow = await world.user("talker"), await world.user("slow")
        room = world.rooms.make_room("loud")
        for client in (talker, slow):
            await client.expect("join_room", {"room_id": "loud"})
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        total = 0
        while len(world.edge._directory) == 4 and total < 2_000:
            for _ in range(20):
                world.rooms.say(room, "zoe", "x" * 4_000)
            total += 20
            await talker.messages(room.room_id, 20)
        assert 100 < total < 2_000
        assert "slow" not in world.auth.sessions.values() or await _is_gone(world, "slow")
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await slow.is_closed()
        frames = list(slow.events)
        seqs = [one["seq"] for frame in frames if frame["type"] == "messages" for one in frame["data"]["messages"]]
        assert seqs == list(range(1, len(seqs) + 1))
        assert frames[-1]["type"] != "goodbye" or frames[-1]["data"]["reason"] == "slow_consumer"


async def _is_gone(world: EdgeWorld, name: str) -> bool:
    await until(lambda: name not in world.auth.sessions.values())
    return True


async def test_who_reads_nothing_for_ten_seconds_is_cut_off(tmp_path: Path) -> None:
    clock = FakeClock()
    async with edge_world(tmp_path, clock=clock) as world:
        slow = await world.user("slow")
        room = world.rooms.make_room("loud")
        await slow.expect("join_room", {"room_id": "loud"})
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = world.edge._directory
        while not connection._sender._is_paused:
            for _ in range(20):
                world.rooms.say(room, "zoe", "x" * 4_000)
            await asyncio.sleep(0.01)
        await advance(clock, 9)
        assert len(world.edge._directory) == 1
        await advance(clock, 3)
        assert len(world.edge._directory) == 0


async def test_an_urgent_frame_passes_what_a_slow_reader_has_waiting(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        slow = await world.user("slow")
        room = world.rooms.make_room("loud")
        await slow.expect("join_room", {"room_id": "loud"})
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = world.edge._directory
        while connection.waiting_bytes < 500_000:
            for _ in range(20):
                world.rooms.say(room, "zoe", "x" * 4_000)
            await asyncio.sleep(0.01)
        last_seq = len(room.log)
        await slow.send("heartbeat", id="urgent")
        await until(lambda: connection.waiting_bytes and connection._session._commands is not None)
        await asyncio.sleep(0.1)
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heartbeat = await slow.wait_for(lambda frame: frame.get("re") == "urgent")
        seen = [one["seq"] for frame in slow.events if frame["type"] == "messages" for one in frame["data"]["messages"]]
        (bookmark,) = heartbeat["data"]["rooms"].values()
        assert bookmark <= seen[-1] < last_seq - 50
