"""Rights: what somebody may ask who is not logged in, not a member, or nobody at all."""

from __future__ import annotations

from typing import Any

from tests.security.attempt import Attempt, Check, demand, demand_code, fresh

_TEXT = "canary-Text-90af31"


def _requests(room_id: str) -> dict[str, dict[str, Any]]:
    return {
        "text_message": {"room_id": room_id, "text": _TEXT},
        "history": {"room_id": room_id},
        "user_list": {"room_id": room_id},
        "leave_room": {"room_id": room_id},
        "file_offer": {"room_id": room_id, "name": "a.txt", "size": 1, "sha256": "0" * 64},
    }


async def check_anonymous(attempt: Attempt) -> str:
    client = await attempt.connect()
    requests = _requests("abcdefgh") | {
        "logout": {},
        "create_room": {"name": fresh()},
        "join_room": {"room_id": "abcdefgh"},
        "list_rooms": {},
        "file_get": {"file_id": "0" * 32, "offset": 0},
        "file_cancel": {"file_id": "0" * 32},
    }
    for type_, data in requests.items():
        await demand_code(client, {"not_authenticated", "unknown_type"}, type_, data)
    return f"{len(requests)} requests refused"


async def check_outsider(attempt: Attempt) -> str:
    owner, outsider = await attempt.person(), await attempt.person()
    room_id = (await owner.expect("create_room", {"name": fresh()}))["room_id"]
    for type_, data in _requests(room_id).items():
        await demand_code(outsider, {"not_a_member", "unknown_type"}, type_, data)
    await owner.say(room_id, _TEXT)
    await owner.messages(room_id, 1)
    await outsider.request("heartbeat")
    demand(not [frame for frame in outsider.events if frame["type"] == "messages"], "an outsider was sent a message")
    return f"{len(_requests(room_id))} requests refused, nothing heard"


async def check_private_room_is_invisible(attempt: Attempt) -> str:
    owner, outsider = await attempt.person(), await attempt.person()
    name = fresh()
    room_id = (await owner.expect("create_room", {"name": name, "private": True}))["room_id"]
    codes = {"no_such_room", "unknown_type"}
    for type_, data in _requests(room_id).items():
        await demand_code(outsider, codes, type_, data)
    for reference in (room_id, room_id[:6], name, name.upper()):
        await demand_code(outsider, "no_such_room", "join_room", {"room_id": reference})
    rooms = (await outsider.expect("list_rooms", {"query": name}))["rooms"]
    demand(not rooms, "it is in the list of rooms")
    return "no such room, for every request"


async def check_nobody_speaks_for_another(attempt: Attempt) -> str:
    owner, other = await attempt.person(), await attempt.person()
    room_id = (await owner.expect("create_room", {"name": fresh()}))["room_id"]
    await other.expect("join_room", {"room_id": room_id})
    forged = {"username": owner.username, "user_id": "aaaaaaaa", "seq": 99, "ts": 1, "timestamp": "1970-01-01"}
    await other.say(room_id, _TEXT, **forged)
    [message] = await owner.messages(room_id, 1)
    demand(message["username"] == other.username, f"the message is by {message['username']}")
    demand(message["seq"] != forged["seq"] and message["ts"] != 1, "the client's seq or time was taken")
    return "the server names sender, number and time"


async def check_left_is_left(attempt: Attempt) -> str:
    owner, other = await attempt.person(), await attempt.person()
    room_id = (await owner.expect("create_room", {"name": fresh()}))["room_id"]
    await other.expect("join_room", {"room_id": room_id})
    await other.expect("leave_room", {"room_id": room_id})
    other.events.clear()
    await owner.say(room_id, _TEXT)
    await owner.messages(room_id, 1)
    await demand_code(other, "not_a_member", "history", {"room_id": room_id})
    demand(not [frame for frame in other.events if frame["type"] == "messages"], "who left still hears")
    return "hears nothing, reads nothing"


CHECKS: dict[str, Check] = {
    "nothing goes without a login": check_anonymous,
    "an outsider may do nothing in a room": check_outsider,
    "a private room does not exist for others": check_private_room_is_invisible,
    "nobody speaks for another": check_nobody_speaks_for_another,
    "who has left hears nothing": check_left_is_left,
}
