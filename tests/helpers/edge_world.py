"""An edge in this process, over real TLS, with auth and rooms in memory: for tests of the edge alone.

    async with edge_world(tmp_path) as world:
        client = await world.connect()
        await client.login("alice")                     # every name exists; the password is `PASSWORD`

`world.rooms` and `world.auth` break what a test tells them to.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from parley.rooms.v1 import feed_pb2, rooms_pb2

from services.common.clock import Clock, SystemClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.events import Message, iso_time
from services.common.wire.requests import History
from services.edge.backends import GrpcTraces
from services.edge.client_tls import ClientTls
from services.edge.config import EdgeConfig
from services.edge.decisions import User
from services.edge.edge import Edge
from services.edge.ports import Assertion, Login, Member, Page, Revocation, Room, RoomSummary
from tests.helpers import certificates, columns
from tests.helpers.fake_files import FakeFiles
from tests.helpers.raw_client import RawClient

PASSWORD = "correct horse battery"
EPOCH = "e001"


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits for what happens in the edge or its fakes without being shown to a client."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.005)


class FakeAuth:
    """AuthBackend: every name has an account, and a session at most."""

    def __init__(self) -> None:
        self.sessions: dict[str, str] = {}  # session id -> username
        self.tokens: dict[str, str] = {}  # token -> username; they never end here
        self.ended: list[str] = []
        self.lease_s = 15.0
        self.renewals: list[list[str]] = []
        self.lost_sessions: list[str] = []  # what a renewal says is not alive
        self.failure: ParleyError | None = None
        self.gate = asyncio.Event()  # logins wait for it
        self.gate.set()
        self.logins_waiting = 0
        self._numbers = itertools.count(1)
        self._watchers: list[asyncio.Queue[list[Revocation]]] = []

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def register(self, username: str, password: str, *, address: str) -> str:
        self._check()
        if len(password) < 8:
            raise ParleyError(ErrorCode.WEAK_PASSWORD, "8 characters or more")
        if username == "taken":
            raise ParleyError(ErrorCode.USERNAME_TAKEN, "taken")
        return f"u-{username}"

    async def login(self, username: str, password: str, *, address: str, device: str, takeover: bool) -> Login:
        self.logins_waiting += 1
        await self.gate.wait()
        self.logins_waiting -= 1
        self._check()
        if password != PASSWORD:
            raise ParleyError(ErrorCode.INVALID_CREDENTIALS, "wrong name or password")
        if username in self.sessions.values() and not takeover:
            raise ParleyError(ErrorCode.ALREADY_LOGGED_IN, "logged in already", details={"since-ms": "1800000000000"})
        return self._open(username)

    async def resume(self, token: str, *, address: str) -> Login:
        self._check()
        if (username := self.tokens.get(token)) is None:
            raise ParleyError(ErrorCode.BAD_TOKEN, "log in")
        return self._open(username)

    def _open(self, username: str) -> Login:
        for old in [one for one, name in self.sessions.items() if name == username]:
            del self.sessions[old]
            self.revoke(old, "replaced")
        session_id = f"s{next(self._numbers)}"
        self.tokens[f"token-{session_id}"] = username
        self.sessions[session_id] = username
        return Login(
            user_id=f"u-{username}",
            username=username,
            session_id=session_id,
            token=f"token-{session_id}",
            token_expires_at_ms=1_800_000_600_000,
        )

    async def logout(self, session_id: str) -> None:
        self._check()
        self.sessions.pop(session_id, None)

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        self._check()
        for session_id in session_ids:
            self.sessions.pop(session_id, None)
            self.ended.append(session_id)

    async def renew_lease(self, session_ids: Sequence[str]) -> tuple[float, list[str]]:
        self._check()
        self.renewals.append(list(session_ids))
        return self.lease_s, [session_id for session_id in self.lost_sessions if session_id in session_ids]

    async def renew_assertions(self, assertions: Sequence[bytes]) -> list[Assertion]:
        return [Assertion(assertion) for assertion in assertions]

    async def watch_revocations(self) -> AsyncGenerator[list[Revocation], None]:
        self._check()
        queue: asyncio.Queue[list[Revocation]] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            yield []
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    def revoke(self, session_id: str, reason: str = "revoked") -> None:
        for queue in self._watchers:
            queue.put_nowait([Revocation(session_id, reason)])


class _MemoryRoom:
    def __init__(self, room_id: str, name: str, topic: str, *, private: bool) -> None:
        self.room_id = room_id
        self.name = name
        self.topic = topic
        self.private = private
        self.epoch = EPOCH
        self.log: list[Message] = []
        self.members: dict[str, tuple[str, str]] = {}  # user id -> name, role
        self.keys: dict[tuple[str, str], Message] = {}

    def seen_by(self, user: User) -> Room:
        role = self.members[user.user_id][1]
        return Room(self.room_id, self.name, self.topic, role, self.epoch, len(self.log))


class FakeRooms:
    """RoomsBackend, and the streams of the feed; events go to every stream that follows the room."""

    def __init__(self) -> None:
        self.rooms: dict[str, _MemoryRoom] = {}
        self.present: dict[str, User] = {}
        self.closed: list[str] = []
        self.failure: ParleyError | None = None  # of calls
        self.streams: list[FakeStream] = []
        self.refuse_streams = False
        self.refusals: dict[str, ErrorCode] = {}  # text -> code
        self.is_silent = False  # stores, and does not say so
        self._numbers = itertools.count(1)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def open_stream(self) -> FakeStream:
        stream = FakeStream(self)
        if self.refuse_streams:
            stream.break_off()
        else:
            self.streams.append(stream)
        return stream

    def make_room(self, name: str, *, topic: str = "", private: bool = False) -> _MemoryRoom:
        room = _MemoryRoom(f"room{next(self._numbers):06}", name, topic, private=private)
        self.rooms[room.room_id] = room
        return room

    def find(self, user: User, reference: str) -> _MemoryRoom:
        for room in self.rooms.values():
            if room.private and user.user_id not in room.members:
                continue
            if reference in (room.room_id, room.name) or (len(reference) >= 4 and room.room_id.startswith(reference)):
                return room
        raise ParleyError(ErrorCode.NO_SUCH_ROOM, "no such room")

    def member(self, user: User, reference: str) -> _MemoryRoom:
        room = self.find(user, reference)
        if user.user_id not in room.members:
            raise ParleyError(ErrorCode.NOT_A_MEMBER, "not a member")
        return room

    def store(self, room: _MemoryRoom, username: str, text: str) -> Message:
        message = Message(len(room.log) + 1, username, text, 1_800_000_000_000 + len(room.log))
        room.log.append(message)
        return message

    def post_file(self, room: _MemoryRoom, username: str, file: dict[str, Any]) -> Message:
        """A message that posts a file."""
        message = Message(len(room.log) + 1, username, "", 1_800_000_000_000 + len(room.log), file)
        room.log.append(message)
        for stream in self.streams:
            stream.show(room, [message])
        return message

    def say(self, room: _MemoryRoom, username: str, text: str) -> None:
        """A message from another edge."""
        message = self.store(room, username, text)
        for stream in self.streams:
            stream.show(room, [message])

    def announce(self, change: feed_pb2.PresenceChange) -> None:
        for stream in self.streams:
            stream.push(feed_pb2.AttachResponse(presence_changes=[change]))

    def remove(self, room: _MemoryRoom, user_id: str) -> None:
        """An operator removes a member."""
        username, _ = room.members.pop(user_id)
        leave = feed_pb2.PresenceChange(room_id=room.room_id, action=feed_pb2.PRESENCE_ACTION_LEAVE, username=username)
        ended = feed_pb2.MembershipChange(room_id=room.room_id, user_id=user_id, last_seq=len(room.log))
        for stream in self.streams:
            stream.push(feed_pb2.AttachResponse(presence_changes=[leave], membership_changes=[ended]))

    def break_streams(self) -> None:
        for stream in list(self.streams):
            stream.break_off()

    async def open_session(self, user: User, *, enter_rooms: bool) -> list[Room]:
        self._check()
        self.present[user.session_id] = user
        return [room.seen_by(user) for room in self.rooms.values() if user.user_id in room.members]

    async def close_sessions(self, session_ids: Sequence[str]) -> None:
        self._check()
        for session_id in session_ids:
            self.present.pop(session_id, None)
            self.closed.append(session_id)

    async def create_room(self, user: User, *, name: str, topic: str, private: bool, exclusive: bool) -> Room:
        self._check()
        if any(room.name == name for room in self.rooms.values()):
            raise ParleyError(ErrorCode.ROOM_EXISTS, "exists")
        room = self.make_room(name, topic=topic, private=private)
        room.members[user.user_id] = (user.username, "owner")
        return room.seen_by(user)

    async def join_room(self, user: User, room: str, *, exclusive: bool) -> Room:
        self._check()
        found = self.find(user, room)
        found.members.setdefault(user.user_id, (user.username, "member"))
        return found.seen_by(user)

    async def leave_room(self, user: User, room: str) -> str:
        self._check()
        found = self.member(user, room)
        del found.members[user.user_id]
        return found.room_id

    async def list_rooms(self, user: User, *, query: str, limit: int, cursor: str) -> tuple[list[RoomSummary], str]:
        self._check()
        found = [room for room in self.rooms.values() if query in room.name and room.room_id > cursor]
        page = found[:limit]
        summaries = [
            RoomSummary(
                room.room_id,
                room.name,
                room.topic,
                0,
                len(room.members),
                iso_time(1_800_000_000),
                user.user_id in room.members,
            )
            for room in page
        ]
        return summaries, page[-1].room_id if len(found) > limit else ""

    async def list_members(self, user: User, room: str) -> tuple[str, list[Member]]:
        self._check()
        found = self.member(user, room)
        online = {present.user_id for present in self.present.values()}
        return found.room_id, [Member(name, role, user_id in online) for user_id, (name, role) in found.members.items()]

    async def list_messages(self, user: User, request: History) -> Page:
        self._check()
        room = self.member(user, request.room_id)
        if request.after is not None:
            found = [message for message in room.log if message.seq > request.after]
            page = found[: request.limit]
        else:
            found = [message for message in room.log if request.before is None or message.seq < request.before]
            page = found[-request.limit :]
        more = len(found) > len(page)
        return Page(room.room_id, room.epoch, page, min(1, len(room.log)), len(room.log), more)


class FakeStream:
    """The server's side of the feed's stream, answering at once."""

    def __init__(self, rooms: FakeRooms) -> None:
        self.rooms = rooms
        self.requests: list[feed_pb2.AttachRequest] = []
        self.followed: dict[str, int] = {}
        self._responses: asyncio.Queue[feed_pb2.AttachResponse | None] = asyncio.Queue()
        self._is_broken = False

    async def write(self, request: feed_pb2.AttachRequest) -> None:
        if self._is_broken:
            raise asyncio.InvalidStateError("the stream is broken")
        self.requests.append(request)
        for room_id in request.unfollow_room_ids:
            self.followed.pop(room_id, None)
        response = feed_pb2.AttachResponse()
        for publish in columns.publish_rows(request.publishes):
            self._publish(publish, response)
        for follow in request.follows:
            self.followed[follow.room_id] = follow.after_seq
            if (room := self.rooms.rooms.get(follow.room_id)) is not None:
                self.show(room, room.log[follow.after_seq :])
        if (response.results or response.HasField("stored")) and not self.rooms.is_silent:
            self._responses.put_nowait(response)
        await asyncio.sleep(0)

    async def read(self) -> Any:
        response = await self._responses.get()
        return grpc.aio.EOF if response is None else response

    def cancel(self) -> bool:
        self.break_off()
        return True

    def break_off(self) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._responses.put_nowait(None)
            if self in self.rooms.streams:
                self.rooms.streams.remove(self)

    def push(self, response: feed_pb2.AttachResponse) -> None:
        self._responses.put_nowait(response)

    def show(self, room: _MemoryRoom, messages: Sequence[Message]) -> None:
        after = self.followed.get(room.room_id)
        fresh = [message for message in messages if after is not None and message.seq > after]
        if fresh:
            self.followed[room.room_id] = fresh[-1].seq
            self.push(feed_pb2.AttachResponse(rooms=[_room_messages(room, fresh)]))

    def _publish(self, publish: columns.PublishRow, response: feed_pb2.AttachResponse) -> None:
        rooms = self.rooms
        room = rooms.rooms.get(publish.room_id)
        code = rooms.refusals.get(publish.text)
        if room is None:
            code = ErrorCode.NO_SUCH_ROOM
        elif publish.user_id not in room.members:
            code = ErrorCode.NOT_A_MEMBER
        if code is not None or room is None:
            response.results.add(number=publish.number, error_code=code or "")
            return
        known = room.keys.get((publish.user_id, publish.key))
        if known is not None and known.text != publish.text:
            response.results.add(number=publish.number, error_code=ErrorCode.CONFLICT)
            return
        message = known or rooms.store(room, publish.username, publish.text)
        room.keys[(publish.user_id, publish.key)] = message
        if known is None:
            response.stored.numbers.append(publish.number)
            response.stored.epochs.append(room.epoch)
            response.stored.seqs.append(message.seq)
            response.stored.sent_at_ms.append(message.ts)
        else:
            response.results.add(
                number=publish.number, epoch=room.epoch, seq=message.seq, sent_at_ms=message.ts, duplicate=True
            )
        for stream in rooms.streams:
            after = stream.followed.get(room.room_id)
            if known is None and after is not None and message.seq > after:
                stream.followed[room.room_id] = message.seq
                target = response if stream is self else feed_pb2.AttachResponse()
                _append(target, room, message)
                if stream is not self:
                    stream.push(target)


def _append(response: feed_pb2.AttachResponse, room: _MemoryRoom, message: Message) -> None:
    for part in response.rooms:
        if part.room_id == room.room_id:
            columns.append(part, [_row(message)])
            return
    response.rooms.append(_room_messages(room, [message]))


def _room_messages(room: _MemoryRoom, messages: Sequence[Message]) -> feed_pb2.RoomMessages:
    return columns.room_messages(room.room_id, room.epoch, map(_row, messages))


def _row(message: Message) -> columns.MessageRow:
    file = None if message.file is None else rooms_pb2.File(**message.file)
    return columns.MessageRow(message.seq, message.username, message.text, message.ts, file)


class EdgeWorld:
    """One edge with its fakes."""

    def __init__(
        self,
        edge: Edge,
        auth: FakeAuth,
        rooms: FakeRooms,
        files: FakeFiles,
        counters: Counters,
        port: int,
        ca: Path,
    ) -> None:
        self.edge = edge
        self.auth = auth
        self.rooms = rooms
        self.files = files
        self.counters = counters
        self.port = port
        self.ca = ca
        self.clients: list[RawClient] = []

    async def connect(self, *, hello: bool = True) -> RawClient:
        client = await RawClient.connect("127.0.0.1", self.port, self.ca, hello=hello)
        self.clients.append(client)
        return client

    async def user(self, username: str, *, hello: bool = True) -> RawClient:
        """A client that is logged in."""
        client = await self.connect(hello=hello)
        await client.login(username)
        return client

    def value(self, name: str) -> float:
        """A counter's or gauge's value."""
        for family in self.counters.families():
            if family.name == name:
                return sum(member.value for member in family.members.values())  # type: ignore[union-attr]
        raise KeyError(name)


def edge_config(home: Path, **changes: Any) -> EdgeConfig:
    """A configuration for tests; nothing is dialled, so the targets need not exist."""
    material = certificates.shared()
    certificate, key = material.server
    return EdgeConfig(
        **{
            **material.settings("edge", home),
            "client_listen": "127.0.0.1:0",
            "client_certificate": certificate,
            "client_key": key,
            "auth_target": "127.0.0.1:1",
            "rooms_targets": ("127.0.0.1:1",),
            **changes,
        }
    )


@contextlib.asynccontextmanager
async def edge_world(home: Path, *, clock: Clock | None = None, **changes: Any) -> AsyncIterator[EdgeWorld]:
    """An edge that serves; `changes` are fields of EdgeConfig."""
    config = edge_config(home, **changes)
    auth, rooms, counters = FakeAuth(), FakeRooms(), Counters()
    files = FakeFiles(rooms)
    edge = Edge(
        config,
        auth=auth,
        rooms=rooms,
        files=files,
        traces=GrpcTraces(None, timeout_s=1.0),
        open_stream=lambda _: rooms.open_stream(),
        tls=ClientTls(config.client_certificate, config.client_key),
        counters=counters,
        clock=clock or SystemClock(),
        boot_id="b007",
    )
    working = asyncio.create_task(edge.run(), name="edge")
    world = EdgeWorld(edge, auth, rooms, files, counters, edge.start(), certificates.shared().client_ca)
    try:
        yield world
    finally:
        for client in world.clients:
            client.abort()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await edge.close()
