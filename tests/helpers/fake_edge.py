"""A small server that speaks version 2 of the client protocol from memory: what the client is tested against.

It keeps the promises that the client relies on (order, keys, history, presence), and breaks what a test tells it to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from client.errors import ConnectError
from client.transport import MemoryTransport, Transport, memory_pair
from services.common.wire import requests
from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import WireError, parse
from services.common.wire.events import Encoder, Message, history_frame, messages_frames, text_stored_frame
from services.common.wire.frames import Chunk, FrameDecoder
from tests.helpers.fake_file_desk import FakeFileDesk

TS = 1_800_000_000_000


@dataclass
class FakeRoom:
    room_id: str
    name: str
    topic: str = ""
    epoch: str = "e001"
    first_seq: int = 1
    log: list[Message] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], Message] = field(default_factory=dict)

    @property
    def last_seq(self) -> int:
        return self.first_seq - 1 + len(self.log)

    def info(self, username: str) -> dict[str, Any]:
        return {
            "room_id": self.room_id,
            "name": self.name,
            "topic": self.topic,
            "role": self.members.get(username, "member"),
            "epoch": self.epoch,
            "last_seq": self.last_seq,
        }


@dataclass
class Refusal:
    kind: str
    code: ErrorCode
    retry_after_s: float | None = None


class FakeConnection:
    """The server's end of one connection."""

    def __init__(self, edge: FakeEdge, transport: Transport) -> None:
        self.edge = edge
        self.transport = transport
        self.username = ""
        self.decoder = FrameDecoder()

    def send(self, frame: bytes) -> None:
        self.transport.send(frame)

    def event(self, kind: str, data: dict[str, Any], room_id: str | None = None, *, re: Any = None) -> None:
        self.send(self.edge.encoder.reply(kind, data, re=re, room_id=room_id))

    def refuse(self, re: Any, code: ErrorCode) -> None:
        self.send(self.edge.encoder.error(code, f"refused: {code}", re=re))

    async def serve(self) -> None:
        while data := await self.transport.receive():
            for frame in self.decoder.feed(data):
                if isinstance(frame, Chunk):
                    self.edge.files.take(self, frame)
                else:
                    self.edge.handle(self, frame)
                self.edge.tell_change()


class FakeEdge:
    """Accounts, rooms and connections; attributes are the levers of the tests."""

    def __init__(self) -> None:
        self.encoder = Encoder(2)
        self.accounts: dict[str, str] = {}
        self.rooms: dict[str, FakeRoom] = {}
        self.connections: list[FakeConnection] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.refusals: deque[Refusal] = deque()
        self.server_info: dict[str, Any] = {"protocol": 2, "server": "fake/1", "heartbeat_s": 30}
        self.files = FakeFileDesk(self)
        self.is_down = False
        self.attempts = 0
        self.silent_types: set[str] = set()
        self.lost_events = 0
        self.before_answer: Callable[[FakeConnection, str], None] | None = None
        self.has_old_session = False
        self.tokens: dict[str, str] = {}  # those that are good, with whose they are
        self.keeps_tokens = False
        self.replay_max = 1000
        self.gives_replays = True
        self._watchers: set[asyncio.Future[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()

    # What tests do.

    def add_room(self, name: str, *members: str, room_id: str = "") -> FakeRoom:
        room = FakeRoom(room_id or f"room{len(self.rooms):04d}", name, members=dict.fromkeys(members, "member"))
        self.rooms[room.room_id] = room
        return room

    def say(
        self, room: FakeRoom, username: str, text: str, key: str | None = None, *, file: dict[str, Any] | None = None
    ) -> Message:
        message = Message(room.last_seq + 1, username, text, TS + room.last_seq, file)
        room.log.append(message)
        if key is not None:
            room.keys[(username, key)] = message
        if self.lost_events > 0:
            self.lost_events -= 1
        else:
            self.to_room(room, messages_frames(room.room_id, room.epoch, [message]))
        return message

    def to_room(self, room: FakeRoom, frames: list[bytes]) -> None:
        for connection in self.connections:
            if connection.username in room.members:
                for frame in frames:
                    connection.send(frame)

    def refuse(self, kind: str, code: ErrorCode, *, retry_after_s: float | None = None, times: int = 1) -> None:
        self.refusals.extend([Refusal(kind, code, retry_after_s)] * times)

    def cut(self) -> None:
        """Every connection is lost."""
        for connection in list(self.connections):
            assert isinstance(connection.transport, MemoryTransport)
            connection.transport.cut()

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """The data of all requests of a type."""
        return [data for sent_kind, data in self.requests if sent_kind == kind]

    async def changed(self) -> None:
        """Waits until a request was handled or a connection ended."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        try:
            await watcher
        finally:
            self._watchers.discard(watcher)

    def tell_change(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    # The port of the client, and the loop over its connections.

    async def connect(self) -> Transport:
        self.attempts += 1
        if self.is_down:
            raise ConnectError("the server is down")
        ours, theirs = memory_pair()
        task = asyncio.create_task(self.serve(ours))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return theirs

    async def serve(self, transport: Transport) -> None:
        connection = FakeConnection(self, transport)
        self.connections.append(connection)
        try:
            await connection.serve()
        finally:
            self.connections.remove(connection)
            self.tell_change()
            self._presence(connection, "offline")
            await transport.close()

    # Requests.

    def handle(self, connection: FakeConnection, frame: bytes) -> None:
        envelope = parse(frame)
        try:
            request = requests.parse_request(envelope)
        except WireError as error:
            connection.send(self.encoder.error(error.code, error.message, re=envelope.id))
            return
        self.requests.append((envelope.type, {**envelope.data, "room_id": getattr(request, "room_id", None)}))
        for refusal in self.refusals:
            if refusal.kind == envelope.type:
                self.refusals.remove(refusal)
                self._refuse(connection, envelope.type, envelope.id, refusal.code, refusal.retry_after_s)
                return
        if self.before_answer is not None:
            self.before_answer(connection, envelope.type)
        if envelope.type in self.silent_types:
            return
        getattr(self, f"_{envelope.type}")(connection, request, envelope.id)

    def _refuse(
        self,
        connection: FakeConnection,
        kind: str,
        re: Any,
        code: ErrorCode,
        retry_after_s: float | None = None,
        **details: Any,
    ) -> None:
        if kind in ("auth_request", "register_request", "resume"):
            answer = "auth_response" if kind == "resume" else kind.replace("request", "response")
            text = f"refused: {code}"
            connection.send(
                self.encoder.refusal(answer, code, text, re=re, retry_after_s=retry_after_s, details=details)
            )
        else:
            connection.send(self.encoder.error(code, f"refused: {code}", re=re, retry_after_s=retry_after_s))

    def _reply(self, connection: FakeConnection, re: Any, data: Any, kind: str = "success", **more: Any) -> None:
        connection.send(self.encoder.reply(kind, data, re=re, **more))

    def _file_offer(self, connection: FakeConnection, request: requests.FileOffer, re: Any) -> None:
        self.files.offer(connection, request, re)

    def _file_get(self, connection: FakeConnection, request: requests.FileGet, re: Any) -> None:
        self.files.get(connection, request, re)

    def _file_ack(self, connection: FakeConnection, request: requests.FileAck, re: Any) -> None:
        self.files.acknowledge(connection, request)

    def _file_cancel(self, connection: FakeConnection, request: requests.FileCancel, re: Any) -> None:
        self.files.cancel(connection, request, re)

    def _file_list(self, connection: FakeConnection, request: requests.FileList, re: Any) -> None:
        self.files.list(connection, request, re)

    def _hello(self, connection: FakeConnection, request: requests.Hello, re: Any) -> None:
        self._reply(connection, re, self.server_info, "server_info")

    def _heartbeat(self, connection: FakeConnection, request: requests.Heartbeat, re: Any) -> None:
        mine = {room.room_id: room.last_seq for room in self.rooms.values() if connection.username in room.members}
        self._reply(connection, re, {"rooms": mine}, "heartbeat")

    def _register_request(self, connection: FakeConnection, request: requests.Register, re: Any) -> None:
        if request.username in self.accounts:
            self._refuse(connection, "register_request", re, ErrorCode.USERNAME_TAKEN)
            return
        self.accounts[request.username] = request.password
        self._reply(connection, re, {"success": True, "user_id": "u0000001"}, "register_response")

    def _auth_request(self, connection: FakeConnection, request: requests.Authenticate, re: Any) -> None:
        if self.accounts.get(request.username) != request.password:
            self._refuse(connection, "auth_request", re, ErrorCode.INVALID_CREDENTIALS)
            return
        if self.has_old_session or any(one.username == request.username for one in self.connections):
            self._refuse(connection, "auth_request", re, ErrorCode.ALREADY_LOGGED_IN, since=TS)
            return
        mine = [room.info(request.username) for room in self.rooms.values() if request.username in room.members]
        self._welcome(connection, request.username, re, {"rooms": mine})

    def _welcome(self, connection: FakeConnection, username: str, re: Any, data: dict[str, Any]) -> None:
        connection.username = username
        token = f"t{len(self.tokens)}"
        if self.keeps_tokens:
            self.tokens[token] = username
        data = {"success": True, "user_id": "u0000001", "username": username, "token": token, **data}
        self._reply(connection, re, {**data, "token_expires_at": TS}, "auth_response")
        self._presence(connection, "online")

    def _resume(self, connection: FakeConnection, request: requests.Resume, re: Any) -> None:
        username = self.tokens.get(request.token)
        if username is None:
            self._refuse(connection, "resume", re, ErrorCode.BAD_TOKEN)
            return
        self.has_old_session = False
        for old in self.connections:
            if old.username == username:
                old.username = ""
                old.event("goodbye", {"reason": "replaced", "reconnect_after_ms": 0})
        told, replays = [], []
        for room in self.rooms.values():
            if username not in room.members:
                continue
            read = request.rooms.get(room.room_id)
            missed = room.last_seq - read.seq if read is not None and read.epoch == room.epoch else -1
            recovered = 0 <= missed <= self.replay_max
            told.append({**room.info(username), "recovered": recovered, "replay": missed if recovered else 0})
            if recovered and missed and self.gives_replays:
                replays += messages_frames(room.room_id, room.epoch, room.log[-missed:])
        self._welcome(connection, username, re, {"resumed": True, "rooms": told})
        for frame in replays:
            connection.send(frame)

    def _logout(self, connection: FakeConnection, request: requests.Logout, re: Any) -> None:
        connection.username = ""
        self._reply(connection, re, {})

    def _find(self, connection: FakeConnection, kind: str, reference: str, re: Any) -> FakeRoom | None:
        for room in self.rooms.values():
            if reference == room.room_id or reference.casefold() == room.name.casefold():
                return room
        by_prefix = [room for room in self.rooms.values() if room.room_id.startswith(reference)]
        if len(by_prefix) == 1 and len(reference) >= 4:
            return by_prefix[0]
        self._refuse(connection, kind, re, ErrorCode.NO_SUCH_ROOM)
        return None

    def _create_room(self, connection: FakeConnection, request: requests.CreateRoom, re: Any) -> None:
        if any(room.name.casefold() == request.name.casefold() for room in self.rooms.values()):
            self._refuse(connection, "create_room", re, ErrorCode.ROOM_EXISTS)
            return
        room = self.add_room(request.name)
        room.topic = request.topic
        room.members[connection.username] = "owner"
        self._reply(connection, re, room.info(connection.username))

    def _join_room(self, connection: FakeConnection, request: requests.JoinRoom, re: Any) -> None:
        if room := self._find(connection, "join_room", request.room_id, re):
            is_new = connection.username not in room.members
            room.members.setdefault(connection.username, "member")
            self._reply(connection, re, room.info(connection.username))
            if is_new:
                self._presence(connection, "join", room)

    def _leave_room(self, connection: FakeConnection, request: requests.LeaveRoom, re: Any) -> None:
        if room := self._find(connection, "leave_room", request.room_id or "", re):
            room.members.pop(connection.username, None)
            self._reply(connection, re, {"room_id": room.room_id})
            self._presence(connection, "leave", room)

    def _list_rooms(self, connection: FakeConnection, request: requests.ListRooms, re: Any) -> None:
        found = [room for room in self.rooms.values() if request.query.casefold() in room.name.casefold()]
        start = int(request.cursor or 0)
        page = found[start : start + request.limit]
        rooms = [
            {
                "id": room.room_id,
                "name": room.name,
                "topic": room.topic,
                "user_count": len(self._online(room)),
                "member_count": len(room.members),
                "created": TS,
                "joined": connection.username in room.members,
            }
            for room in page
        ]
        following = str(start + request.limit) if start + request.limit < len(found) else None
        self._reply(connection, re, {"rooms": rooms, "next_cursor": following}, "room_info")

    def _user_list(self, connection: FakeConnection, request: requests.UserList, re: Any) -> None:
        if room := self._find(connection, "user_list", request.room_id or "", re):
            online = self._online(room)
            members = [
                {"username": name, "role": role, "online": name in online} for name, role in room.members.items()
            ]
            self._reply(connection, re, {"users": online, "members": members}, "user_list", room_id=room.room_id)

    def _text_message(self, connection: FakeConnection, request: requests.TextMessage, re: Any) -> None:
        room = self.rooms.get(request.room_id or "")
        if room is None or connection.username not in room.members:
            self._refuse(connection, "text_message", re, ErrorCode.NOT_A_MEMBER)
            return
        known = room.keys.get((connection.username, request.key or ""))
        seq, ts = (known.seq, known.ts) if known else (room.last_seq + 1, TS + room.last_seq)
        connection.send(text_stored_frame(room.room_id, room.epoch, seq=seq, ts=ts, duplicate=known is not None, re=re))
        if known is None:
            self.say(room, connection.username, request.text, request.key)

    def _history(self, connection: FakeConnection, request: requests.History, re: Any) -> None:
        if room := self._find(connection, "history", request.room_id, re):
            if request.after is not None:
                found = [message for message in room.log if message.seq > request.after]
                page = found[: request.limit]
            else:
                found = [message for message in room.log if message.seq < (request.before or 2**62)]
                page = found[-request.limit :]
            connection.send(
                history_frame(
                    room.room_id,
                    room.epoch,
                    page,
                    first_seq=room.first_seq if room.log else 0,
                    last_seq=room.last_seq,
                    more=len(page) < len(found),
                    keep_newest=request.after is None,
                    re=re,
                )
            )

    def _online(self, room: FakeRoom) -> list[str]:
        return sorted({one.username for one in self.connections if one.username in room.members})

    def _presence(self, subject: FakeConnection, action: str, room: FakeRoom | None = None) -> None:
        for one in [room] if room else list(self.rooms.values()):
            if subject.username and (subject.username in one.members or action == "leave"):
                for connection in self.connections:
                    if connection is not subject and connection.username in one.members:
                        connection.send(self.encoder.presence(one.room_id, action, username=subject.username))
