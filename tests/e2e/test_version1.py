"""A client that never says hello works through all its commands and is shown nothing that it does not know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.helpers.people import fresh

if TYPE_CHECKING:
    from tests.helpers.people import People
    from tests.helpers.raw_client import Frame, RawClient

KNOWN = {
    "auth_response", "register_response", "room_info", "text_message", "file_chunk", "user_list", "heartbeat",
    "success", "error",
}  # fmt: skip


def check_envelope(frame: Frame) -> Frame:
    """Version 1 promises all keys, always."""
    assert frame["type"] in KNOWN, frame
    assert {"id", "data", "priority", "room_id", "timestamp"} <= set(frame), frame
    assert frame["priority"] in {1, 2, 3, 4}
    said = datetime.fromisoformat(frame["timestamp"])
    assert said.utcoffset() == timedelta(0)
    assert abs((datetime.now(UTC) - said).total_seconds()) < 60
    return frame


async def ask(client: RawClient, type_: str, data: Frame | None = None, **envelope: object) -> Frame:
    """As an old client does: no id, the next frame of a fitting type is the reply."""
    await client.send(type_, data, **envelope)
    expected = {
        "register_request": "register_response",
        "auth_request": "auth_response",
        "list_rooms": "room_info",
        "user_list": "user_list",
        "heartbeat": "heartbeat",
    }.get(type_, "success")
    reply = await client.wait_for(
        lambda f: f["type"] in {expected, "error"} and (type_ != "user_list" or "users" in f["data"])
    )
    return check_envelope(reply)


async def test_all_its_commands(people: People) -> None:
    client = await people.connect(hello=False)
    name, room = fresh(), fresh("Room ")
    secret = {"username": name, "password": "correct horse battery"}
    assert (await ask(client, "register_request", secret))["data"]["success"] is True
    entered = (await ask(client, "auth_request", secret))["data"]
    assert (entered["success"], entered["username"]) == (True, name)
    made = (await ask(client, "create_room", {"name": room}))["data"]
    other = (await ask(client, "create_room", {"name": fresh("Room ")}))["data"]
    joined = (await ask(client, "join_room", {"room_id": made["room_id"]}))["data"]
    assert joined["name"] == room
    listed = (await ask(client, "list_rooms"))["data"]["rooms"]
    counts = {r["id"]: r["user_count"] for r in listed}
    assert counts[made["room_id"]] == 1
    assert counts.get(other["room_id"]) == 0  # it sits in one room at a time
    users = (await ask(client, "user_list"))["data"]
    assert users["users"] == [name]
    assert "rooms" in (await ask(client, "heartbeat"))["data"]
    assert (await ask(client, "leave_room", {"room_id": made["room_id"]}))["type"] == "success"


async def test_it_talks_with_version_2_and_does_not_hear_itself(people: People) -> None:
    old, new = await people.old_timer(), await people.person()
    room_id = await people.room(new)
    await ask(old, "join_room", {"room_id": room_id})
    await old.send("text_message", {"text": "from the old one"})  # the current room
    [message] = await new.messages(room_id, 1)
    assert (message["username"], message["text"]) == (old.username, "from the old one")
    await new.say(room_id, "from the new one")
    frame = check_envelope(await old.wait_for(lambda f: f["type"] == "text_message"))
    assert frame["room_id"] == room_id
    assert frame["data"]["username"] == new.username
    assert frame["data"]["text"] == "from the new one"
    assert frame["data"]["seq"] == 2
    assert datetime.fromisoformat(frame["data"]["timestamp"]).utcoffset() == timedelta(0)
    await ask(old, "heartbeat")
    left = [check_envelope(f) for f in old.events]
    assert not [f for f in left if f["type"] in {"text_message", "success"}], left


async def test_a_text_that_fails_is_answered(people: People) -> None:
    old = await people.old_timer()
    await old.send("text_message", {"text": "to nobody"})
    reply = check_envelope(await old.wait_for(lambda f: f["type"] == "error"))
    assert reply["data"]["code"] in {"not_a_member", "no_such_room", "bad_request"}


async def test_it_hears_only_its_current_room(people: People) -> None:
    old, new = await people.old_timer(), await people.person()
    first, second = await people.room(new), await people.room(new)
    await ask(old, "join_room", {"room_id": first})
    await ask(old, "join_room", {"room_id": second})
    await new.say(first, "not for the old one")
    await new.say(second, "for the old one")
    frame = await old.wait_for(lambda f: f["type"] == "text_message")
    assert frame["data"]["text"] == "for the old one"


async def test_presence_comes_as_join_and_leave(people: People) -> None:
    old = await people.old_timer()
    name = fresh()
    new = await people.person(name)
    room_id = await people.room(new)
    await ask(old, "join_room", {"room_id": room_id})
    await new.close()
    check_envelope(await old.event("user_list", action="leave", username=name))
    again = await people.connect()
    await again.login(name)
    check_envelope(await old.event("user_list", action="join", username=name))


async def test_an_own_id_comes_back_in_re(people: People) -> None:
    old = await people.old_timer()
    reply = await old.request("list_rooms", id="mine")
    assert reply["re"] == "mine"
    check_envelope(reply)


async def test_what_only_version_2_knows_is_refused(people: People) -> None:
    old = await people.old_timer()
    assert await old.refused("history", {"room_id": "abcd1234"}) == "unknown_type"
    client = await people.connect(hello=False)
    await client.send("heartbeat")
    await client.wait_for(lambda f: f["type"] == "heartbeat")
    # hello must be the first frame.
    reply = await client.request("hello", {"protocol": 2, "client": "late/1"})
    assert reply["type"] == "error"
