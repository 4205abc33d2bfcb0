"""Rights: what somebody may ask who is not logged in, not a member, or nobody at all."""

from __future__ import annotations

from typing import Any

from services.common.wire.requests import REQUESTS
from tests.helpers.file_client import send_file
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


# What each request is answered to somebody who is not logged in, and to a stranger about a private room. A request that
# is missing here fails the check: whoever adds one decides who may ask it.
_ANYBODY = {"hello", "register_request", "auth_request", "resume", "heartbeat"}
_THEIR_OWN = {"logout", "create_room", "list_rooms", "trace", "trace_report"}
"""About nobody else's room: a stranger's `trace` of another's message is answered with an empty one."""

_ABOUT_A_ROOM = {"join_room", "leave_room", "user_list", "text_message", "history", "file_offer", "file_list"}
_ABOUT_A_FILE = {"file_get", "file_cancel"}
_WITHOUT_ANSWER = {"file_ack"}
_OF_VERSION_1 = {"file_transfer"}


async def check_every_request(attempt: Attempt) -> str:
    """Every request that the server knows, as somebody who is not logged in, as a stranger, and as a member."""
    known = _ANYBODY | _THEIR_OWN | _ABOUT_A_ROOM | _ABOUT_A_FILE | _WITHOUT_ANSWER | _OF_VERSION_1
    demand(set(REQUESTS) == known, f"nobody has decided who may ask {sorted(set(REQUESTS) ^ known)}")
    owner, member, stranger, nobody = [await attempt.person() for _ in range(3)] + [await attempt.connect()]
    made = await owner.expect("create_room", {"name": fresh()})
    public = str(made["room_id"])
    await member.expect("join_room", {"room_id": public})
    seq = (await owner.say(public, _TEXT))["seq"]
    private = str((await owner.expect("create_room", {"name": fresh(), "private": True}))["room_id"])
    file_id = await send_file(owner, private, b"of a private room")
    message_id = f"{public}-{made['epoch']}-{seq}"
    for type_ in sorted(set(REQUESTS) - _ANYBODY - _OF_VERSION_1):
        await demand_code(nobody, "not_authenticated", type_, _about(type_, private, file_id, message_id))
    for type_ in sorted(_ABOUT_A_ROOM):
        await demand_code(stranger, "no_such_room", type_, _about(type_, private, file_id, message_id))
    for type_ in sorted(_ABOUT_A_FILE):
        await demand_code(stranger, "no_such_file", type_, _about(type_, private, file_id, message_id))
    for who in (stranger, member):
        trace = (await who.request("trace", {"message_id": message_id}))["data"]
        demand(not trace.get("spans"), f"another's message is traced: {trace}")
    for type_ in sorted(_ABOUT_A_ROOM - {"leave_room"}):
        reply = await member.request(type_, _about(type_, public, file_id, message_id))
        demand(reply["type"] != "error", f"a member may not {type_}: {reply['data']}")
    await demand_code(member, "no_such_file", "file_get", {"file_id": file_id})
    return f"{len(REQUESTS)} kinds: before login, by a stranger, by a member"


def _about(type_: str, room_id: str, file_id: str, message_id: str) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "text_message": {"text": _TEXT},
        "file_offer": {"name": "a.txt", "size": 1, "sha256": "0" * 64},
        "create_room": {"name": fresh()},
        "trace": {"message_id": message_id},
        "trace_report": {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
        | dict.fromkeys(("sent_at_us", "acknowledged_at_us", "shown_at_us"), 1),
        "file_ack": {"file_id": file_id, "offset": 0},
        "file_get": {"file_id": file_id},
        "file_cancel": {"file_id": file_id},
    }
    return ({"room_id": room_id} if type_ in _ABOUT_A_ROOM else {}) | more.get(type_, {})


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
    "every request is for whom it is for": check_every_request,
    "nothing goes without a login": check_anonymous,
    "an outsider may do nothing in a room": check_outsider,
    "a private room does not exist for others": check_private_room_is_invisible,
    "nobody speaks for another": check_nobody_speaks_for_another,
    "who has left hears nothing": check_left_is_left,
}
