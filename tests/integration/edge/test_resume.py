"""Resume and takeover over real TLS, with auth and rooms in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.edge_world import EPOCH, EdgeWorld, edge_world
from tests.helpers.raw_client import RawClient


def fill(world: EdgeWorld, name: str, count: int, text: str = "hi", user: str = "amy") -> str:
    """A room of the user with so many messages."""
    room = world.rooms.make_room(name)
    room.members[f"u-{user}"] = (user, "member")
    for _ in range(count):
        world.rooms.store(room, "zoe", text)
    return str(room.room_id)


async def leave_token(world: EdgeWorld, user: str = "amy") -> str:
    """The token of a session whose connection has been lost."""
    client = await world.connect()
    answer = await client.login(user)
    client.abort()
    return str(answer["token"])


async def resume(client: RawClient, token: str, read: dict[str, int]) -> dict[str, Any]:
    rooms = {room_id: {"epoch": EPOCH, "seq": seq} for room_id, seq in read.items()}
    return await client.expect("resume", {"token": token, "rooms": rooms})


def told(answer: dict[str, Any]) -> list[tuple[bool, int, int]]:
    return [(room["recovered"], room["replay"], room["last_seq"]) for room in answer["rooms"]]


async def test_what_was_missed_comes_in_order_and_then_what_is_new(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id = fill(world, "lobby", 1000)
        token = await leave_token(world)
        client = await world.connect()
        answer = await resume(client, token, {room_id: 0})
        assert answer["resumed"] is True
        assert told(answer) == [(True, 1000, 1000)]
        for n in range(50):  # while the replay is under way
            world.rooms.say(world.rooms.rooms[room_id], "zoe", f"live {n}")
        stored = await client.say(room_id, "mine")
        seqs = [message["seq"] for message in await client.messages(room_id, stored["seq"])]
        assert seqs == list(range(1, 1052))
        beat = await client.expect("heartbeat")
        assert beat == {"rooms": {room_id: 1051}}


async def test_too_much_is_not_replayed_and_live_messages_come(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id = fill(world, "lobby", 1001)
        client = await world.connect()
        answer = await resume(client, await leave_token(world), {room_id: 0})
        assert told(answer) == [(False, 0, 1001)]
        world.rooms.say(world.rooms.rooms[room_id], "zoe", "live")
        assert [message["seq"] for message in await client.messages(room_id, 1)] == [1002]


async def test_many_rooms_of_large_texts_cut_nobody_off_who_reads_slowly(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_ids = [fill(world, f"room {n}", 250, "x" * 4000) for n in range(8)]  # 8 MB in all
        client = await world.connect()
        token = await leave_token(world)
        await resume(client, token, dict.fromkeys(room_ids, 0))
        largest = 0
        last = dict.fromkeys(room_ids, 0)
        frames = 0
        while any(seq < 250 for seq in last.values()):
            frame = await client.wait_for(lambda frame: frame["type"] in {"messages", "goodbye"})
            assert frame["type"] == "messages", frame
            for message in frame["data"]["messages"]:
                assert message["seq"] == last[frame["room_id"]] + 1
                last[frame["room_id"]] += 1
            frames += 1
            if frames % 10 == 0:
                beat = await client.expect("heartbeat")  # not behind megabytes, and never ahead of what has come
                arrived = dict(last)
                for waiting in client.events:
                    if waiting["type"] == "messages":
                        arrived[waiting["room_id"]] = waiting["data"]["messages"][-1]["seq"]
                assert all(seq <= arrived[room_id] for room_id, seq in beat["rooms"].items())
            largest = max(largest, *(connection.waiting_bytes for connection in world.edge._directory))
        assert largest < 400_000


async def test_the_old_connection_is_told_that_it_was_replaced(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        old = await world.connect()
        token = (await old.login("amy"))["token"]
        new = await world.connect()
        await resume(new, token, {})
        goodbye = await old.event("goodbye")
        assert goodbye["data"]["reason"] == "replaced"
        assert await old.is_closed()
        third = await world.connect()
        await third.expect("auth_request", {"username": "amy", "password": "correct horse battery", "takeover": True})
        assert (await new.event("goodbye"))["data"]["reason"] == "replaced"
        assert await new.is_closed()


async def test_a_bad_token_leaves_the_connection_for_a_login(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        client = await world.connect()
        assert await client.refused("resume", {"token": "garbage", "rooms": {}}) == "bad_token"
        await client.login("amy")
        assert await client.refused("resume", {"token": "garbage", "rooms": {}}) == "already_logged_in"


async def test_texts_may_be_sent_behind_a_resume(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id = fill(world, "lobby", 300)
        token = await leave_token(world)
        client = await world.connect()
        await client.send("resume", {"token": token, "rooms": {room_id: {"epoch": EPOCH, "seq": 100}}}, id="r")
        for n in range(5):
            await client.send("text_message", {"text": f"t{n}"}, room_id=room_id, id=f"t{n}")
        acknowledged: list[int] = []
        seqs: list[int] = []
        while len(seqs) < 205:
            frame = await client.read()
            if frame.get("re", "").startswith("t"):
                acknowledged.append(frame["data"]["seq"])
            elif frame["type"] == "messages":
                for message in frame["data"]["messages"]:
                    assert message["username"] == "zoe" or message["seq"] in acknowledged
                    seqs.append(message["seq"])
        assert seqs == list(range(101, 306))
        assert acknowledged == list(range(301, 306))


@pytest.mark.parametrize("code", [ErrorCode.NOT_A_MEMBER, ErrorCode.INTERNAL])
async def test_a_replay_that_cannot_go_on(tmp_path: Path, code: ErrorCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.edge.replays._GIVE_UP_S", 0.2)
    async with edge_world(tmp_path) as world:
        room_id = fill(world, "lobby", 10)
        token = await leave_token(world)
        client = await world.connect()

        async def fail(*_: object) -> None:
            raise ParleyError(code, "no")

        monkeypatch.setattr(world.rooms, "list_messages", fail)
        await resume(client, token, {room_id: 0})
        if code is ErrorCode.NOT_A_MEMBER:  # it was removed meanwhile: the room is gone, the connection stays
            async with asyncio.timeout(10):
                while (await client.expect("heartbeat"))["rooms"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # the server says nothing of its own accord
        else:
            assert (await client.event("goodbye"))["data"]["reason"] == "draining"
            assert await client.is_closed()


async def test_a_page_that_fails_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge_world(tmp_path) as world:
        room_id = fill(world, "lobby", 10)
        token = await leave_token(world)
        client = await world.connect()
        real, calls = world.rooms.list_messages, 0

        async def fail_once(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ParleyError(ErrorCode.UNAVAILABLE, "in a moment")
            return await real(*arguments)

        monkeypatch.setattr(world.rooms, "list_messages", fail_once)
        await resume(client, token, {room_id: 3})
        assert [message["seq"] for message in await client.messages(room_id, 7)] == list(range(4, 11))
