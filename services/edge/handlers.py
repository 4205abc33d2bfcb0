"""Handlers: one async function for each command, from the request to the answer.

A handler asks auth or rooms and then, without giving the event loop another turn, changes what the edge itself knows;
the caller may have gone while it waited, so it looks again before that. Whatever it raises as ParleyError is shown to
the client with its code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.events import history_frame
from services.common.wire.requests import (
    Authenticate,
    CreateRoom,
    History,
    JoinRoom,
    LeaveRoom,
    ListRooms,
    Logout,
    Register,
    Resume,
    UserList,
)
from services.edge.audience import is_replayable
from services.edge.decisions import Command, User
from services.edge.departures import Departures
from services.edge.ports import AuthBackend, Login, Member, ResumedRoom, Room, RoomsBackend, RoomSummary
from services.edge.replays import Replayed, Replays
from services.edge.vouchers import voucher

_DATA_BYTES_MAX: Final = limits.MAX_JSON_BYTES - 1_024
"""What the data of a reply may take, so that the envelope around it, version 1's too, still fits into the frame."""

_LOGIN_BYTES_MAX: Final = 2_048
"""What the rest of an `auth_response` takes at most."""

_RESUMED_BYTES: Final = 40
"""What a room in the answer to a resume takes more than in that to a login: two more keys."""

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """A reply's type, data and room; or, where it has a form of its own, the whole frame."""

    type: str
    data: dict[str, Any] = {}
    room_id: str | None = None
    frame: bytes | None = None


Table = dict[type, Callable[[Any, Any, Command], Awaitable[Answer]]]
"""Handlers, by the type of their request."""


class Caller(Replayed, Protocol):
    """The connection that a command came from."""

    @property
    def is_open(self) -> bool:
        """Whether anybody is still there."""
        ...

    @property
    def address(self) -> str:
        """The client's network address."""
        ...

    @property
    def version(self) -> int:
        """The protocol version."""
        ...

    def log_in(self, user: User) -> None:
        """The client is this user from now on."""
        ...

    def log_out(self) -> None:
        """The client is anonymous again."""
        ...

    def enter(self, room: Room, *, after: int | None = None) -> int:
        """The client sees a room from now on, or from `after` on; returns the seq behind which live messages begin."""
        ...


class Gone(Exception):  # noqa: N818 - not an error: nobody is there to be answered
    """The caller has gone, or is somebody else by now."""


class Handlers:
    """All commands, by the type of their request; those about `files` and `traces` are elsewhere."""

    def __init__(
        self,
        *,
        auth: AuthBackend,
        rooms: RoomsBackend,
        departures: Departures,
        replays: Replays,
        clock: Clock,
        files: Table,
        traces: Table | None = None,
    ) -> None:
        self._auth = auth
        self._rooms = rooms
        self._replays = replays
        self._departures = departures
        self._clock = clock
        self._table: Table = {
            **files,
            **(traces or {}),
            Register: self._register,
            Authenticate: self._authenticate,
            Resume: self._resume,
            Logout: self._logout,
            CreateRoom: self._create_room,
            JoinRoom: self._join_room,
            LeaveRoom: self._leave_room,
            ListRooms: self._list_rooms,
            UserList: self._list_users,
            History: self._read_history,
        }

    async def handle(self, caller: Caller, command: Command) -> Answer:
        """Do what a command asks. Raises ParleyError where it is refused, Gone where nobody waits for the answer."""
        return await self._table[type(command.request)](caller, command.request, command)

    async def _register(self, caller: Caller, request: Register, _: Command) -> Answer:
        user_id = await self._auth.register(request.username, request.password, address=caller.address)
        return Answer("register_response", {"success": True, "user_id": user_id})

    async def _authenticate(self, caller: Caller, request: Authenticate, _: Command) -> Answer:
        login = await self._auth.login(
            request.username,
            request.password,
            address=caller.address,
            device=request.device,
            takeover=request.takeover,
        )
        user, rooms = await self._arrive(caller, login)
        # No await below: what the client is told and what it gets from now on must agree.
        caller.log_in(user)
        if caller.version != 1:
            rooms = [msgspec.structs.replace(room, last_seq=caller.enter(room)) for room in rooms]
        return Answer("auth_response", {**_arrival(login), "rooms": _fitting_rooms(rooms)})

    async def _resume(self, caller: Caller, request: Resume, _: Command) -> Answer:
        login = await self._auth.resume(request.token, address=caller.address)
        user, rooms = await self._arrive(caller, login)
        # No await below: what the client is told and what it gets from now on must agree.
        caller.log_in(user)
        told = _fitting_rooms(rooms, spare_bytes=_RESUMED_BYTES)
        resumed = [_resumed(caller, room, request) for room in told]
        for room in rooms[len(told) :]:  # what it is not told of it is not replayed
            caller.enter(room)
        self._replays.start(caller, user, [room.room_id for room in resumed if room.replay])
        return Answer("auth_response", {**_arrival(login), "resumed": True, "rooms": resumed})

    async def _arrive(self, caller: Caller, login: Login) -> tuple[User, list[Room]]:
        """Tell rooms that somebody is here; where that fails, or nobody waits any more, the session ends."""
        word = voucher(login.assertion, self._clock.monotonic())
        user = User(login.user_id, login.username, login.session_id, self._clock.now(), word)
        try:
            if not caller.is_open:
                raise Gone
            rooms = await self._rooms.open_session(user, enter_rooms=caller.version != 1)
            if not caller.is_open:
                raise Gone
        except BaseException:
            self._departures.ended(login.session_id)
            raise
        return user, rooms

    async def _logout(self, caller: Caller, _: Logout, __: Command) -> Answer:
        user = user_of(caller)
        await self._auth.logout(user.session_id)
        if caller.user is not user:
            raise Gone
        caller.log_out()
        self._departures.logged_out(user.session_id)
        return Answer("success")

    async def _create_room(self, caller: Caller, request: CreateRoom, _: Command) -> Answer:
        user = user_of(caller)
        room = await self._rooms.create_room(
            user,
            name=request.name,
            topic=request.topic,
            private=request.private,
            exclusive=caller.version == 1,
        )
        data = _entered(caller, user, room)
        del data["topic"]
        return Answer("success", data, room.room_id)

    async def _join_room(self, caller: Caller, request: JoinRoom, _: Command) -> Answer:
        user = user_of(caller)
        room = await self._rooms.join_room(user, request.room_id, exclusive=caller.version == 1)
        return Answer("success", _entered(caller, user, room), room.room_id)

    async def _leave_room(self, caller: Caller, request: LeaveRoom, _: Command) -> Answer:
        assert request.room_id is not None  # the session has put in version 1's current room
        user = user_of(caller)
        room_id = await self._rooms.leave_room(user, request.room_id)
        if caller.user is not user:
            raise Gone
        caller.leave(room_id)
        return Answer("success", {"room_id": room_id}, room_id)

    async def _list_rooms(self, caller: Caller, request: ListRooms, _: Command) -> Answer:
        user = user_of(caller)
        limit = request.limit
        while True:
            rooms, cursor = await self._rooms.list_rooms(user, query=request.query, limit=limit, cursor=request.cursor)
            data = {"rooms": rooms, "next_cursor": cursor or None}
            if len(_encode(data)) <= _DATA_BYTES_MAX:
                return Answer("room_info", data)
            limit = _fitting(rooms)

    async def _list_users(self, caller: Caller, request: UserList, _: Command) -> Answer:
        assert request.room_id is not None  # the session has put in version 1's current room
        room_id, members = await self._rooms.list_members(user_of(caller), request.room_id)
        data = _user_list(members)
        if len(_encode(data)) > _DATA_BYTES_MAX:  # who is here goes before who is not
            members = sorted(members, key=lambda member: not member.online)
            while len(_encode(data)) > _DATA_BYTES_MAX:
                members = members[: len(members) * 7 // 8]
                data = {**_user_list(members), "more": True}
        return Answer("user_list", data, room_id)

    async def _read_history(self, caller: Caller, request: History, command: Command) -> Answer:
        page = await self._rooms.list_messages(user_of(caller), request)
        frame = history_frame(
            page.room_id,
            page.epoch,
            page.messages,
            first_seq=page.first_seq,
            last_seq=page.last_seq,
            more=page.more,
            keep_newest=request.after is None,
            re=command.re,
        )
        return Answer("messages", frame=frame)


def user_of(caller: Caller) -> User:
    """Who the caller is; a command may start after the logout that was sent behind it."""
    if caller.user is None:
        raise ParleyError(ErrorCode.NOT_AUTHENTICATED, "you have logged out")
    return caller.user


def _entered(caller: Caller, user: User, room: Room) -> dict[str, Any]:
    """Let the caller see a room, and give the room as its reply shows it."""
    if caller.user is not user:
        raise Gone
    return {
        "room_id": room.room_id,
        "name": room.name,
        "topic": room.topic,
        "role": room.role,
        "epoch": room.epoch,
        "last_seq": caller.enter(room),
    }


def _arrival(login: Login) -> dict[str, Any]:
    """What the answers to a login and to a resume have in common."""
    return {
        "success": True,
        "user_id": login.user_id,
        "username": login.username,
        "token": login.token,
        "token_expires_at": login.token_expires_at_ms,
    }


def _resumed(caller: Caller, room: Room, request: Resume) -> ResumedRoom:
    """Let the caller see a room from where it has read it, where that can be, and give it as the reply shows it."""
    read = request.rooms.get(room.room_id)
    after = read.seq if read is not None and read.epoch == room.epoch else None
    start = caller.enter(room, after=after)
    is_recovered = after is not None and is_replayable(after, start)
    replay = start - after if is_recovered and after is not None else 0
    return ResumedRoom(room.room_id, room.name, room.topic, room.role, room.epoch, start, is_recovered, replay)


def _fitting_rooms(rooms: list[Room], *, spare_bytes: int = 0) -> list[Room]:
    """A member's rooms as far as one frame holds them, each with so many bytes to spare.

    First the topics go, then the last rooms.
    """

    def is_too_large() -> bool:
        return len(_encode(rooms)) + spare_bytes * len(rooms) > _DATA_BYTES_MAX - _LOGIN_BYTES_MAX

    if is_too_large():
        rooms = [msgspec.structs.replace(room, topic="") for room in rooms]
    while is_too_large():
        rooms = rooms[: len(rooms) * 7 // 8]
    return rooms


def _user_list(members: list[Member]) -> dict[str, Any]:
    return {"users": [member.username for member in members if member.online], "members": members}


def _fitting(rooms: list[RoomSummary]) -> int:
    """How many rooms of a page that is too large make one that is not."""
    if len(rooms) <= 1:
        raise ParleyError(ErrorCode.INTERNAL, "a room's description is too large to be shown")
    return max(1, len(rooms) * _DATA_BYTES_MAX // (len(_encode(rooms)) + 1) * 7 // 8)
