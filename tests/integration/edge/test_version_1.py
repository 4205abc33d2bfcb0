"""A client that never says hello, through all its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.common.wire.events import VERSION_1_TYPES
from tests.helpers.edge_world import PASSWORD, edge_world
from tests.helpers.raw_client import RawClient


async def answer(client: RawClient, type_: str, data: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    reply = await client.request(type_, data, **envelope)
    assert reply["type"] in VERSION_1_TYPES
    assert isinstance(reply["id"], int)
    assert reply["timestamp"].endswith("+00:00")
    assert reply["priority"] in (1, 2, 3, 4)
    assert "room_id" in reply
    return reply


async def test_all_commands(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        old, new = await world.connect(hello=False), await world.user("new")
        credentials = {"username": "old", "password": PASSWORD}
        assert (await answer(old, "heartbeat", {}))["data"] == {"rooms": {}}
        assert (await answer(old, "register_request", credentials))["data"]["success"] is True
        login = await answer(old, "auth_request", credentials)
        assert (login["type"], login["data"]["success"]) == ("auth_response", True)
        assert (await answer(old, "text_message", {"text": "hi"}))["data"]["code"] == "not_a_member"

        created = await answer(old, "create_room", {"name": "lobby"})
        room_id = created["data"]["room_id"]
        await new.expect("join_room", {"room_id": "lobby"})
        assert (await answer(old, "list_rooms", {}))["data"]["rooms"][0]["id"] == room_id
        users = await answer(old, "user_list", {})
        assert users["data"]["users"] == ["old", "new"]
        assert users["room_id"] == room_id

        await old.send("text_message", {"text": "from old"}, priority=4)
        assert [message["text"] for message in await new.messages(room_id, 1)] == ["from old"]
        await new.say(room_id, "from new")
        event = await old.event("text_message")
        assert event["data"]["username"] == "new"
        assert event["data"]["text"] == "from new"
        assert event["data"]["seq"] == 2
        assert event["data"]["timestamp"].startswith("2027-01-15T08:00:00")
        assert event["room_id"] == room_id
        assert (await answer(old, "heartbeat", {}))["data"] == {"rooms": {room_id: 2}}
        assert not old.events  # neither an answer to the own text, nor the text

        assert (await answer(old, "leave_room", {"room_id": room_id}))["type"] == "success"
        assert (await answer(old, "user_list", {}))["data"]["code"] == "not_a_member"


async def test_it_sits_in_one_room_at_a_time(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        for name in ("one", "two"):
            world.rooms.make_room(name)
        old, new = await world.connect(hello=False), await world.user("new")
        await old.login("old")
        for name in ("one", "two"):
            await new.expect("join_room", {"room_id": name})
            await answer(old, "join_room", {"room_id": name})
        await new.say("room000001", "to the first")
        await new.say("room000002", "to the second")
        assert (await old.event("text_message"))["data"]["text"] == "to the second"
        await old.send("text_message", {"text": "hello"})
        assert [m["text"] for m in await new.messages("room000002", 2)] == ["to the second", "hello"]
        assert not old.events


async def test_it_is_pipelined_too(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        old = await world.connect(hello=False)
        await old.send("auth_request", {"username": "old", "password": PASSWORD})
        await old.send("create_room", {"name": "lobby"})
        for number in range(3):
            await old.send("text_message", {"text": f"t{number}"})
        await old.send("user_list", {}, id="last")
        await old.wait_for(lambda frame: frame.get("re") == "last")
        (room,) = world.rooms.rooms.values()
        assert [message.text for message in room.log] == ["t0", "t1", "t2"]


async def test_what_only_version_2_knows_is_unknown(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        old = await world.connect(hello=False)
        await old.login("old")
        for type_, data in (("history", {"room_id": "room0001"}), ("logout", {}), ("resume", {"token": "t"})):
            assert (await answer(old, type_, data))["data"]["code"] == "unknown_type"
        assert (await answer(old, "hello", {"protocol": 2}))["data"]["code"] == "bad_request"


async def test_both_versions_share_a_room(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room = world.rooms.make_room("lobby")
        clients = [await world.connect(hello=number % 2 == 0) for number in range(6)]
        for number, client in enumerate(clients):
            await client.login(f"user{number}")
            await client.expect("join_room", {"room_id": "lobby"})
        for number in range(20):
            world.rooms.say(room, "zoe", f"t{number}")
        for number, client in enumerate(clients):
            if number % 2 == 0:
                texts = [message["text"] for message in await client.messages(room.room_id, 20)]
            else:
                texts = [(await client.event("text_message"))["data"]["text"] for _ in range(20)]
            assert texts == [f"t{number}" for number in range(20)]
