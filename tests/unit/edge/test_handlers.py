"""Commands against services in memory: what the client is told, and what the edge knows afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import (
    Authenticate,
    CreateRoom,
    History,
    JoinRoom,
    LeaveRoom,
    ListRooms,
    Logout,
    Position,
    Register,
    Request,
    Resume,
    UserList,
)
from services.edge.command_spans import CommandSpans
from services.edge.decisions import Command, Reply, User
from services.edge.departures import Departures
from services.edge.dispatch import Dispatcher
from services.edge.handlers import Handlers
from services.edge.ports import Room
from services.edge.qos.classes import class_of
from services.edge.sampling import Sampler
from tests.helpers.edge_world import PASSWORD, FakeAuth, FakeRooms


class Caller:
    """A connection as handlers see it."""

    def __init__(self, version: int = 2) -> None:
        self.id = 1
        self.is_open = True
        self.address = "192.0.2.1"
        self.version = version
        self.user: User | None = None
        self.rooms: dict[str, Room] = {}
        self.position_ahead = 0
        self.replies: list[Reply | bytes] = []
        self.read: dict[str, int | None] = {}  # room -> how far the client said it had read it
        self.subscriber = None

    def log_in(self, user: User) -> None:
        self.user = user

    def log_out(self) -> None:
        self.user = None
        self.rooms.clear()

    def enter(self, room: Room, *, after: int | None = None) -> int:
        self.rooms[room.room_id] = room
        self.read[room.room_id] = after
        return room.last_seq + self.position_ahead

    def leave(self, room_id: str) -> None:
        self.rooms.pop(room_id, None)

    def expect_much(self) -> None:
        pass

    async def drained(self) -> None:
        pass

    def close(self, reason: str, *, reconnect_after_ms: int = 0) -> None:
        self.is_open = False

    def complete(self, command: Command, reply: Reply | bytes) -> None:
        self.replies.append(reply)


class Started:
    """Replays that are only noted."""

    def __init__(self) -> None:
        self.room_ids: list[str] = []

    def start(self, connection: Caller, user: User, room_ids: list[str]) -> None:
        assert connection.user is user
        self.room_ids += room_ids


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.auth, self.rooms = FakeAuth(), FakeRooms()
        self.departures = Departures(self.auth, self.rooms, self.clock)
        self.tasks = TaskSet()
        self.replays = Started()
        self.handlers = Handlers(
            auth=self.auth,
            rooms=self.rooms,
            departures=self.departures,
            replays=self.replays,  # type: ignore[arg-type]
            clock=self.clock,
            files={},
        )
        sampler = Sampler(ratio=0.0, rate_max=1.0, uniform=lambda: 0.5)
        self.dispatcher = Dispatcher(self.handlers, self.tasks, CommandSpans(sampler, self.clock))
        self.done = 0
        self.is_done = asyncio.Event()

    def _done(self) -> None:
        self.done += 1
        self.is_done.set()

    async def ask(self, caller: Caller, request: Request, re: Any = "x") -> Any:
        """The reply as a client would see it."""
        self.start(caller, request, re)
        await self.is_done.wait()
        reply = caller.replies.pop()
        if isinstance(reply, bytes):
            return json.loads(reply[4:])
        assert reply.re == re
        return json.loads(
            json.dumps({"type": reply.type, "data": reply.data, "room_id": reply.room_id}, default=_plain)
        )

    def start(self, caller: Caller, request: Request, re: Any = "x") -> None:
        self.is_done.clear()
        command = Command(request, re, class_of(request.type), 0.0, caller)
        self.dispatcher.start(command, self._done)

    async def user(self, name: str, version: int = 2) -> Caller:
        caller = Caller(version)
        reply = await self.ask(caller, Authenticate(name, PASSWORD))
        assert reply["data"]["success"], reply
        return caller


def _plain(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__struct_fields__}


async def test_registering() -> None:
    world = World()
    reply = await world.ask(Caller(), Register("amy", PASSWORD))
    assert (reply["type"], reply["data"]) == ("register_response", {"success": True, "user_id": "u-amy"})
    reply = await world.ask(Caller(), Register("taken", PASSWORD))
    assert (reply["type"], reply["data"]["success"], reply["data"]["code"]) == (
        "register_response",
        False,
        "username_taken",
    )


async def test_a_login_enters_all_rooms_at_the_hubs_position() -> None:
    world = World()
    amy = await world.user("amy")
    room = (await world.ask(amy, CreateRoom("lobby", "about")))["data"]
    world.auth.sessions.clear()
    again = Caller()
    again.position_ahead = 3
    reply = await world.ask(again, Authenticate("amy", PASSWORD))
    assert reply["type"] == "auth_response"
    data = reply["data"]
    assert (data["success"], data["user_id"], data["username"]) == (True, "u-amy", "amy")
    assert data["token"] == "token-s2"
    assert data["token_expires_at"] == 1_800_000_600_000
    assert data["rooms"] == [
        {
            "room_id": room["room_id"],
            "name": "lobby",
            "topic": "about",
            "role": "owner",
            "epoch": "e001",
            "last_seq": 3,
        }
    ]
    assert list(again.rooms) == [room["room_id"]]


async def test_version_1_is_told_its_rooms_and_enters_none() -> None:
    world = World()
    amy = await world.user("amy")
    await world.ask(amy, CreateRoom("lobby"))
    world.auth.sessions.clear()
    old = Caller(version=1)
    reply = await world.ask(old, Authenticate("amy", PASSWORD))
    assert len(reply["data"]["rooms"]) == 1
    assert old.rooms == {}


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ParleyError(ErrorCode.INVALID_CREDENTIALS, "wrong"), {"code": "invalid_credentials", "error": "wrong"}),
        (
            ParleyError(ErrorCode.RATE_LIMITED, "later", retry_after_s=2.5),
            {"code": "rate_limited", "error": "later", "retry_after_s": 2.5},
        ),
        (
            ParleyError(ErrorCode.ALREADY_LOGGED_IN, "elsewhere", details={"since-ms": "1800000000000"}),
            {"code": "already_logged_in", "error": "elsewhere", "since": "2027-01-15T08:00:00.000+00:00"},
        ),
        (
            ParleyError(
                ErrorCode.UNAVAILABLE, "Connection refused [10.0.0.7:50051]", details={"status": "UNAVAILABLE"}
            ),
            {"code": "unavailable", "error": "a part of the server is not available; try again in a moment"},
        ),
        (
            ParleyError(ErrorCode.INTERNAL, "Traceback", details={"status": "UNKNOWN"}),
            {"code": "internal", "error": "something went wrong on the server"},
        ),
    ],
)
async def test_a_refused_login(failure: ParleyError, expected: dict[str, Any]) -> None:
    world = World()
    world.auth.failure = failure
    caller = Caller()
    reply = await world.ask(caller, Authenticate("amy", PASSWORD))
    assert (reply["type"], reply["data"]) == ("auth_response", {"success": False, **expected})
    assert caller.user is None


async def test_a_login_that_rooms_cannot_serve_is_taken_back() -> None:
    world = World()
    world.rooms.failure = ParleyError(ErrorCode.UNAVAILABLE, "down")
    reply = await world.ask(Caller(), Authenticate("amy", PASSWORD))
    assert reply["data"]["code"] == "unavailable"
    assert not world.departures.is_idle
    assert world.departures._auth._waiting.keys() == {"s1"}


async def test_a_login_of_somebody_who_has_gone_is_taken_back() -> None:
    world = World()
    world.auth.gate.clear()
    caller = Caller()
    world.start(caller, Authenticate("amy", PASSWORD))
    await asyncio.sleep(0)
    caller.is_open = False
    world.auth.gate.set()
    await world.is_done.wait()
    assert caller.user is None
    assert world.departures._auth._waiting.keys() == {"s1"}
    assert world.done == 1


async def test_a_logout_frees_the_session() -> None:
    world = World()
    amy = await world.user("amy")
    assert await world.ask(amy, Logout()) == {"type": "success", "data": {}, "room_id": None}
    assert amy.user is None
    assert world.auth.sessions == {}
    assert world.departures._rooms._waiting.keys() == {"s1"}
    assert world.departures._auth.is_idle


async def test_a_logout_that_auth_did_not_hear_is_no_logout() -> None:
    world = World()
    amy = await world.user("amy")
    world.auth.failure = ParleyError(ErrorCode.UNAVAILABLE, "down")
    reply = await world.ask(amy, Logout())
    assert reply["data"]["code"] == "unavailable"
    assert amy.user is not None


async def test_rooms_are_created_joined_and_left() -> None:
    world = World()
    amy, ben = await world.user("amy"), await world.user("ben")
    created = await world.ask(amy, CreateRoom("lobby", "about", private=False))
    room_id = created["data"]["room_id"]
    assert created == {
        "type": "success",
        "data": {"room_id": room_id, "name": "lobby", "role": "owner", "epoch": "e001", "last_seq": 0},
        "room_id": room_id,
    }
    assert (await world.ask(amy, CreateRoom("lobby")))["data"]["code"] == "room_exists"
    joined = await world.ask(ben, JoinRoom("lobby"))
    assert joined["data"] == {
        "room_id": room_id,
        "name": "lobby",
        "topic": "about",
        "role": "member",
        "epoch": "e001",
        "last_seq": 0,
    }
    assert list(ben.rooms) == [room_id]
    left = await world.ask(ben, LeaveRoom("lobby"))
    assert left == {"type": "success", "data": {"room_id": room_id}, "room_id": room_id}
    assert ben.rooms == {}
    assert (await world.ask(ben, LeaveRoom("lobby")))["data"]["code"] == "not_a_member"
    assert (await world.ask(ben, JoinRoom("nowhere")))["data"]["code"] == "no_such_room"


async def test_lists() -> None:
    world = World()
    amy = await world.user("amy")
    room_id = (await world.ask(amy, CreateRoom("lobby")))["data"]["room_id"]
    await world.ask(amy, CreateRoom("attic"))
    reply = await world.ask(amy, ListRooms(limit=1))
    assert reply["type"] == "room_info"
    (first,) = reply["data"]["rooms"]
    assert set(first) == {"id", "name", "topic", "user_count", "member_count", "created", "joined"}
    rest = await world.ask(amy, ListRooms(cursor=reply["data"]["next_cursor"]))
    assert [room["name"] for room in rest["data"]["rooms"]] == ["attic"]
    assert rest["data"]["next_cursor"] is None
    users = await world.ask(amy, UserList("lobby"))
    assert users == {
        "type": "user_list",
        "data": {"users": ["amy"], "members": [{"username": "amy", "role": "owner", "online": True}]},
        "room_id": room_id,
    }


async def test_a_page_of_rooms_that_no_frame_holds_becomes_a_smaller_one() -> None:
    world = World()
    amy = await world.user("amy")
    for number in range(200):
        world.rooms.make_room(f"{number:03}" + "\N{GRINNING FACE}" * 61, topic="\N{GRINNING FACE}" * 256)
    names: list[str] = []
    cursor = ""
    while True:
        reply = await world.ask(amy, ListRooms(limit=200, cursor=cursor))
        assert len(json.dumps(reply["data"], ensure_ascii=False).encode()) < 70_000
        names += [room["name"] for room in reply["data"]["rooms"]]
        cursor = reply["data"]["next_cursor"]
        if cursor is None:
            break
    assert len(set(names)) == len(names) == 200


async def test_a_list_of_members_that_no_frame_holds_keeps_those_who_are_here() -> None:
    world = World()
    amy = await world.user("amy")
    room_id = (await world.ask(amy, CreateRoom("lobby")))["data"]["room_id"]
    members = world.rooms.rooms[room_id].members
    del members["u-amy"]
    for number in range(1_000):
        members[f"u{number}"] = ("\N{GRINNING FACE}" * 20 + str(number), "member")
    members["u-amy"] = ("amy", "owner")
    reply = await world.ask(amy, UserList("lobby"))
    assert len(json.dumps(reply["data"], ensure_ascii=False).encode()) < 90_000
    assert reply["data"]["more"] is True
    assert reply["data"]["users"] == ["amy"]
    assert reply["data"]["members"][0]["username"] == "amy"


async def test_a_login_to_more_rooms_than_a_frame_holds() -> None:
    world = World()
    for number in range(300):
        room = world.rooms.make_room(f"{number:03}" + "\N{GRINNING FACE}" * 61, topic="\N{GRINNING FACE}" * 200)
        room.members["u-amy"] = ("amy", "member")
    amy = Caller()
    reply = await world.ask(amy, Authenticate("amy", PASSWORD))
    rooms = reply["data"]["rooms"]
    assert 100 < len(rooms) < 300
    assert rooms[0]["topic"] == ""
    assert len(amy.rooms) == 300


async def test_history() -> None:
    world = World()
    amy = await world.user("amy")
    room_id = (await world.ask(amy, CreateRoom("lobby")))["data"]["room_id"]
    for number in range(5):
        world.rooms.store(world.rooms.rooms[room_id], "amy", f"t{number}")
    reply = await world.ask(amy, History(room_id, after=1, limit=2), re=7)
    assert (reply["type"], reply["re"], reply["room_id"]) == ("messages", 7, room_id)
    data = reply["data"]
    assert [one["seq"] for one in data["messages"]] == [2, 3]
    assert (data["epoch"], data["first_seq"], data["last_seq"], data["more"]) == ("e001", 1, 5, True)
    newest = await world.ask(amy, History(room_id, limit=2))
    assert [one["seq"] for one in newest["data"]["messages"]] == [4, 5]


async def test_a_defect_is_internal_and_not_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    amy = await world.user("amy")

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    world.rooms.list_rooms = fail  # type: ignore[assignment,method-assign]
    reply = await world.ask(amy, ListRooms())
    assert reply["data"] == {"error": "something went wrong on the server", "code": "internal"}
    assert world.done == 2


async def test_a_command_that_starts_after_the_logout_is_refused() -> None:
    world = World()
    for request in (ListRooms(), UserList("lobby"), History("lobby"), JoinRoom("lobby"), Logout()):
        reply = await world.ask(Caller(), request)
        assert reply["data"]["code"] == "not_authenticated"


async def test_a_resume_says_of_each_room_whether_it_goes_on() -> None:
    world = World()
    amy = await world.user("amy")
    assert amy.user is not None
    token = f"token-{amy.user.session_id}"
    names = ("behind", "level", "far", "edge", "ahead", "restored", "unnamed")
    rooms = {name: world.rooms.make_room(name, topic="t") for name in names}
    for name, room in rooms.items():
        room.members["u-amy"] = ("amy", "member")
        for _ in range(1001 if name in ("far", "edge") else 10):
            world.rooms.store(room, "zoe", "hi")
    read = {"behind": 4, "level": 10, "far": 0, "edge": 1, "ahead": 11, "restored": 4}
    positions = {
        rooms[name].room_id: Position("old1" if name == "restored" else rooms[name].epoch, seq)
        for name, seq in read.items()
    }
    positions["notmyroom"] = Position("e001", 1)
    caller = Caller()
    data = (await world.ask(caller, Resume(token, positions)))["data"]
    assert (data["success"], data["resumed"], data["username"]) == (True, True, "amy")
    assert data["token"] != token
    told = {room["name"]: (room["recovered"], room["replay"]) for room in data["rooms"]}
    assert told == {
        "behind": (True, 6),
        "level": (True, 0),
        "far": (False, 0),
        "edge": (True, 1000),
        "ahead": (False, 0),
        "restored": (False, 0),
        "unnamed": (False, 0),
    }
    assert world.replays.room_ids == [rooms["behind"].room_id, rooms["edge"].room_id]
    assert caller.read[rooms["restored"].room_id] is None
    assert set(caller.rooms) == {room.room_id for room in rooms.values()}


async def test_a_resume_with_a_bad_token() -> None:
    world = World()
    reply = await world.ask(Caller(), Resume("garbage"))
    assert (reply["type"], reply["data"]["success"], reply["data"]["code"]) == ("auth_response", False, "bad_token")


async def test_a_resume_that_cannot_be_carried_out_ends_the_new_session_and_leaves_the_token() -> None:
    world = World()
    amy = await world.user("amy")
    assert amy.user is not None
    token = f"token-{amy.user.session_id}"
    world.rooms.failure = ParleyError(ErrorCode.UNAVAILABLE, "gone")
    caller = Caller()
    reply = await world.ask(caller, Resume(token))
    assert reply["data"]["code"] == "unavailable"
    assert caller.user is None
    assert not world.departures.is_idle
    world.rooms.failure = None
    assert (await world.ask(caller, Resume(token)))["data"]["success"]


async def test_rooms_that_do_not_fit_into_the_answer_are_not_replayed() -> None:
    world = World()
    amy = await world.user("amy")
    assert amy.user is not None
    positions = {}
    for n in range(900):
        room = world.rooms.make_room(f"room {n} " + "x" * 50)
        room.members["u-amy"] = ("amy", "member")
        world.rooms.store(room, "zoe", "hi")
        positions[room.room_id] = Position(room.epoch, 0)
    caller = Caller()
    data = (await world.ask(caller, Resume(f"token-{amy.user.session_id}", positions)))["data"]
    told = [room["room_id"] for room in data["rooms"]]
    assert 300 < len(told) < 900
    assert world.replays.room_ids == told
    assert len(caller.rooms) == 900
    assert all(caller.read[room_id] is None for room_id in set(caller.rooms) - set(told))


async def test_a_takeover_replaces_the_other_session() -> None:
    world = World()
    await world.user("amy")
    refused = await world.ask(Caller(), Authenticate("amy", PASSWORD))
    assert refused["data"]["code"] == "already_logged_in"
    assert (await world.ask(Caller(), Authenticate("amy", PASSWORD, takeover=True)))["data"]["success"]
    assert len(world.auth.sessions) == 1


async def test_what_is_under_way_when_the_edge_ends_is_told_to_be_unknown() -> None:
    world = World()
    amy = await world.user("amy")
    may_go_on = asyncio.Event()
    create_room = world.rooms.create_room

    async def hang(*arguments: Any, **named: Any) -> Any:
        await may_go_on.wait()
        return await create_room(*arguments, **named)

    world.rooms.create_room = hang  # type: ignore[method-assign]
    world.start(amy, CreateRoom("den", ""))
    await asyncio.sleep(0)
    assert amy.replies == []
    world.dispatcher.abandon()
    [reply] = amy.replies
    assert (reply.re, reply.data["code"]) == ("x", "unknown_outcome")
    may_go_on.set()
    await world.is_done.wait()
    world.dispatcher.abandon()  # nothing is under way any more
