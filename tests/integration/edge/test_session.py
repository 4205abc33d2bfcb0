"""Sessions of version-2 clients over real TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parley.edge.v1 import edge_pb2
from parley.rooms.v1 import feed_pb2

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.edge_world import PASSWORD, EdgeWorld, edge_world, until
from tests.helpers.raw_client import RawClient, encode


async def lobby(world: EdgeWorld, *names: str) -> tuple[str, list[RawClient]]:
    """A room with these people in it."""
    clients = [await world.user(name) for name in names]
    room_id = (await clients[0].expect("create_room", {"name": "lobby"}))["room_id"]
    for client in clients[1:]:
        await client.expect("join_room", {"room_id": room_id})
    return room_id, clients


async def test_two_people_talk(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice, bob) = await lobby(world, "alice", "bob")
        stored = await alice.request("text_message", {"text": "hi"}, room_id=room_id)
        assert stored["type"] == "success"
        assert stored["room_id"] == room_id
        assert (stored["data"]["epoch"], stored["data"]["seq"]) == ("e001", 1)
        assert "duplicate" not in stored["data"]
        for client in (alice, bob):
            (message,) = await client.messages(room_id, 1)
            assert (message["seq"], message["username"], message["text"]) == (1, "alice", "hi")
            assert message["ts"] == stored["data"]["ts"]


async def test_an_operators_notice_is_shown(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        _, (alice,) = await lobby(world, "alice")
        context: Any = SimpleNamespace(auth_context=dict)
        await world.edge.servicer.SendNotice(edge_pb2.SendNoticeRequest(text="down at ten"), context)
        notice = await alice.event("notice")
        assert (notice["priority"], notice["data"]) == (4, {"text": "down at ten"})


async def test_what_the_server_is_is_said_to_hello(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        await until(lambda: world.edge._files._server_info["max_file_bytes"] == world.files.size_max)
        client = await world.connect(hello=False)
        info = (await client.request("hello", {"protocol": 2, "client": "x/1"}))["data"]
        assert info == {
            "protocol": 2,
            "server": "parley",
            "heartbeat_s": 30,
            "idle_timeout_s": 60,
            "max_text_chars": 4_000,
            "max_frame_bytes": 65_536,
            "chunk_bytes": 65_536,
            "file_window_bytes": 1_048_576,
            "max_file_bytes": world.files.size_max,
            "tracing": False,
        }


async def test_a_success_comes_before_the_own_message(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice,) = await lobby(world, "alice")
        for number in range(20):
            await alice.send("text_message", {"room_id": room_id, "text": f"t{number}"}, id=f"x{number}")
        acknowledged: set[int] = set()
        shown: list[int] = []
        while len(shown) < 20:
            frame = await alice.read()
            if frame["type"] == "success":
                acknowledged.add(frame["data"]["seq"])
            else:
                shown += [message["seq"] for message in frame["data"]["messages"]]
                assert set(shown) <= acknowledged
        assert shown == list(range(1, 21))


async def test_everything_in_one_write(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        world.rooms.make_room("lobby")
        client = await world.connect(hello=False)
        frames = [
            {"type": "hello", "data": {"protocol": 2}, "id": 1},
            {"type": "auth_request", "data": {"username": "amy", "password": PASSWORD}, "id": 2},
            {"type": "join_room", "data": {"room_id": "lobby"}, "id": 3},
            *[
                {"type": "text_message", "data": {"text": f"t{n}"}, "room_id": "room000001", "id": n}
                for n in range(10, 14)
            ],
            {"type": "leave_room", "room_id": "room000001", "id": 20},
            {"type": "logout", "id": 21},
            {"type": "list_rooms", "id": 22},
        ]
        await client.send_bytes(b"".join(encode(frame) for frame in frames))
        answers = {}
        while len(answers) < len(frames):
            frame = await client.read()
            if "re" in frame:
                answers[frame["re"]] = frame
        assert [answers[number]["data"]["seq"] for number in range(10, 14)] == [1, 2, 3, 4]
        assert [answers[number]["type"] for number in (1, 2, 3, 20, 21)] == [
            "server_info",
            "auth_response",
            "success",
            "success",
            "success",
        ]
        assert answers[22]["data"]["code"] == "not_authenticated"


async def test_a_login_sees_what_comes_after_it(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice, bob) = await lobby(world, "alice", "bob")
        await alice.say(room_id, "before")
        await bob.close()
        for number in range(3):
            await alice.say(room_id, f"while away {number}")
        await until(lambda: "bob" not in world.auth.sessions.values())
        bob = await world.connect()
        rooms = (await bob.login("bob"))["rooms"]
        assert [(room["room_id"], room["last_seq"]) for room in rooms] == [(room_id, 4)]
        await alice.say(room_id, "after")
        assert [message["seq"] for message in await bob.messages(room_id, 1)] == [5]
        page = await bob.expect("history", {"room_id": room_id, "after": 1, "limit": 2})
        assert [message["text"] for message in page["messages"]] == ["while away 0", "while away 1"]
        assert page["more"] is True


async def test_a_heartbeat_says_how_far_each_room_has_come(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        anonymous = await world.connect()
        assert (await anonymous.request("heartbeat"))["data"] == {"rooms": {}}
        room_id, (alice,) = await lobby(world, "alice")
        await alice.say(room_id, "one")
        await alice.say(room_id, "two")
        await alice.messages(room_id, 2)
        reply = await alice.request("heartbeat")
        assert (reply["type"], reply["data"]) == ("heartbeat", {"rooms": {room_id: 2}})


async def test_keys_make_repetitions_harmless(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice,) = await lobby(world, "alice")
        assert (await alice.say(room_id, "hi", key="k1"))["seq"] == 1
        again = await alice.say(room_id, "hi", key="k1")
        assert (again["seq"], again["duplicate"]) == (1, True)
        assert await alice.refused("text_message", {"text": "other", "key": "k1"}, room_id=room_id) == "conflict"
        assert (await alice.say(room_id, "hi"))["seq"] == 2


async def test_refusals_of_texts(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice,) = await lobby(world, "alice")
        ben = await world.user("ben")
        assert await ben.refused("text_message", {"text": "hi"}, room_id=room_id) == "not_a_member"
        assert await ben.refused("text_message", {"text": "hi"}, room_id="nowhere1") == "no_such_room"
        assert await ben.refused("text_message", {"text": ""}, room_id=room_id) == "bad_request"
        assert await ben.refused("text_message", {"text": "x" * 4_001}, room_id=room_id) == "too_large"
        world.rooms.refusals["later"] = ErrorCode.OVERLOADED
        assert await alice.refused("text_message", {"text": "later"}, room_id=room_id) == "overloaded"
        assert world.value("parley.edge.errors") == 5


async def test_one_session_per_account(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        await world.user("alice")
        second = await world.connect()
        reply = await second.request("auth_request", {"username": "alice", "password": PASSWORD})
        assert reply["type"] == "auth_response"
        assert (reply["data"]["success"], reply["data"]["code"]) == (False, "already_logged_in")
        assert reply["data"]["since"].startswith("2027-01-15T08:00:00")
        assert await second.refused("auth_request", {"username": "ben", "password": "wrong"}) == "invalid_credentials"
        assert (await second.login("ben"))["username"] == "ben"


async def test_logging_out_and_in_again_on_one_connection(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice, bob) = await lobby(world, "alice", "bob")
        assert await alice.expect("logout") == {}
        assert await alice.refused("list_rooms") == "not_authenticated"
        await bob.say(room_id, "is she gone?")
        await bob.messages(room_id, 1)
        assert (await alice.login("alice"))["rooms"][0]["last_seq"] == 1
        await bob.say(room_id, "no")
        assert [message["seq"] for message in await alice.messages(room_id, 1)] == [2]


async def test_who_hangs_up_is_logged_out_everywhere(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        _, (alice,) = await lobby(world, "alice")
        (session_id,) = world.auth.sessions
        alice.abort()
        await until(lambda: world.auth.ended == world.rooms.closed == [session_id])
        assert world.value("parley.edge.connections") == world.value("parley.edge.sessions") == 0


async def test_a_revoked_session_is_told_and_closed(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        alice = await world.user("alice")
        (session_id,) = world.auth.sessions
        await until(lambda: world.auth._watchers)
        world.auth.revoke(session_id)
        goodbye = await alice.event("goodbye")
        assert goodbye["data"]["reason"] == "revoked"
        assert await alice.is_closed()


async def test_a_removed_member_is_told_and_gets_nothing_more(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice, bob) = await lobby(world, "alice", "bob")
        room = world.rooms.rooms[room_id]
        await alice.say(room_id, "welcome")
        await bob.messages(room_id, 1)
        world.rooms.remove(room, "u-bob")
        assert (await bob.event("user_list"))["data"] == {"action": "leave", "username": "bob"}
        assert (await alice.event("user_list"))["data"] == {"action": "leave", "username": "bob"}
        await alice.say(room_id, "now we are alone")
        assert (await bob.request("heartbeat"))["data"] == {"rooms": {}}
        assert not [frame for frame in bob.events if frame["type"] == "messages"]


async def test_presence_reaches_the_room(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice,) = await lobby(world, "alice")
        world.rooms.announce(
            feed_pb2.PresenceChange(room_id=room_id, action=feed_pb2.PRESENCE_ACTION_ONLINE, username="bob")
        )
        event = await alice.event("user_list")
        assert (event["room_id"], event["data"]) == (room_id, {"action": "online", "username": "bob"})


async def test_a_lost_stream_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice, bob) = await lobby(world, "alice", "bob")
        await alice.say(room_id, "one")
        world.rooms.is_silent = True  # it stores, and the answer is lost with the stream
        await alice.send("text_message", {"text": "two"}, room_id=room_id, id="two")
        await until(lambda: len(world.rooms.rooms[room_id].log) == 2)
        world.rooms.break_streams()
        world.rooms.say(world.rooms.rooms[room_id], "zoe", "three")
        world.rooms.is_silent = False
        reply = await alice.wait_for(lambda frame: frame.get("re") == "two")
        assert (reply["type"], reply["data"]["seq"], reply["data"]["duplicate"]) == ("success", 2, True)
        for client in (alice, bob):
            assert [message["text"] for message in await client.messages(room_id, 3)] == ["one", "two", "three"]


@pytest.mark.parametrize("was_written", [True, False])
async def test_a_text_without_an_answer_is_given_up(tmp_path: Path, was_written: bool) -> None:
    clock = FakeClock()
    async with edge_world(tmp_path, clock=clock) as world:
        room_id, (alice,) = await lobby(world, "alice")
        if was_written:
            world.rooms.is_silent = True
        else:
            world.rooms.refuse_streams = True
            world.rooms.break_streams()
        await alice.send("text_message", {"text": "hi"}, room_id=room_id, id="hi")
        await until(lambda: world.rooms.rooms[room_id].log if was_written else len(world.edge._core.publisher))
        for _ in range(12):
            await clock.advance(1)
        refusal = await alice.wait_for(lambda frame: frame.get("re") == "hi")
        assert refusal["data"]["code"] == ("unknown_outcome" if was_written else "unavailable")


async def test_a_service_that_is_away_is_said_so(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        alice = await world.user("alice")
        world.rooms.failure = ParleyError(ErrorCode.UNAVAILABLE, "10.0.0.1", details={"status": "UNAVAILABLE"})
        reply = await alice.request("list_rooms")
        assert reply["data"]["code"] == "unavailable"
        assert "10.0" not in reply["data"]["error"]
        ben = await world.connect()
        assert await ben.refused("auth_request", {"username": "ben", "password": PASSWORD}) == "unavailable"
        world.rooms.failure = None
        await until(lambda: "ben" not in world.auth.sessions.values())
        await ben.login("ben")


async def test_texts_are_rate_limited(tmp_path: Path) -> None:
    async with edge_world(tmp_path, clock=FakeClock(), text_rate=5.0, text_burst=3) as world:
        room_id, (alice,) = await lobby(world, "alice")
        for number in range(3):
            await alice.say(room_id, f"t{number}")
        reply = await alice.request("text_message", {"text": "hi"}, room_id=room_id)
        assert reply["data"]["code"] == "rate_limited"
        assert 0 < reply["data"]["retry_after_s"] <= 0.201  # rounded up


async def test_a_token_that_nobody_gave_is_refused(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        assert await (await world.connect()).refused("resume", {"token": "t", "rooms": {}}) == "bad_token"


async def test_draining(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (alice,) = await lobby(world, "alice")
        await alice.send("text_message", {"text": "last words"}, room_id=room_id, id="last")
        await alice.wait_for(lambda frame: frame.get("re") == "last")
        old = await world.connect(hello=False)
        await old.request("heartbeat")
        draining = asyncio.create_task(world.edge.drain(5.0))
        goodbye = await alice.event("goodbye")
        assert goodbye["data"]["reason"] == "draining"
        assert 0 <= goodbye["data"]["reconnect_after_ms"] <= 2_000
        assert await alice.is_closed()
        assert (await old.event("error"))["data"]["code"] == "unavailable"
        await draining
        assert world.auth.sessions == {}
        with pytest.raises(ConnectionRefusedError):
            await world.connect()


async def test_an_answer_that_no_frame_holds_is_answered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_world(tmp_path) as world:
        alice = await world.user("alice")
        monkeypatch.setattr(world.edge._core.hub, "bookmarks", lambda _: {f"room{n:08}": n for n in range(5_000)})
        assert await alice.refused("heartbeat") == "internal"
        assert (await alice.request("list_rooms"))["type"] == "room_info"


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("priority", [1, 3])
async def test_a_rooms_messages_come_between_the_replies_to_join_and_leave(
    tmp_path: Path, turn: int, priority: int
) -> None:
    """Also to who reads slowly, whichever lane goes first then."""
    async with edge_world(tmp_path) as world:
        bob = await world.user("bob")
        room = world.rooms.make_room("tea")
        (connection,) = world.edge._directory
        outbox, seen = connection._sender.outbox, []

        async def ask(request: str) -> None:
            await bob.send(request, {"room_id": room.room_id}, id=request, priority=priority)

        async def say(text: str) -> None:
            world.rooms.say(room, "zoe", text)

        for acts in ((ask("join_room"), say("hello")), (say("bye"), ask("leave_room"))):
            connection._sender.pause(0.0)  # the client takes nothing
            for act in acts:
                before = outbox.waiting_bytes
                await act
                await until(lambda before=before: outbox.waiting_bytes > before)  # type: ignore[misc]
            outbox._takes = turn
            connection._sender.resume()
            seen += [(await bob.wait_for(lambda frame: frame["type"] in {"success", "messages"})) for _ in acts]
        assert [frame["type"] for frame in seen] == ["success", "messages", "messages", "success"]
