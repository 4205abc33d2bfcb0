"""A desk of the edge without an edge: a connection that writes down what it is told, and files in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.tasks import TaskSet
from services.common.wire.frames import Chunk, FrameDecoder
from services.edge.decisions import Reply, User
from services.edge.files.desk import FileRules, Places
from services.edge.files.pace import GiveWay
from services.edge.files.ports import Offer, Offered
from tests.helpers.edge_world import FakeRooms
from tests.helpers.fake_files import FakeFiles
from tests.helpers.file_client import sha256

AMY = User("u1", "amy", "s1", 0.0)
CHUNK = 65_536
WINDOW = 4 * CHUNK


class _Outbox:
    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.chunks: list[Chunk] = []

    def post(self, frame: Any) -> None:
        for one in self.decoder.feed(frame[0]):
            assert isinstance(one, Chunk)
            self.chunks.append(one)


class _Subscriber:
    def __init__(self) -> None:
        self.outbox = _Outbox()
        self.rooms: set[str] = set()


class FakeConnection:
    """What a desk knows of its connection. `is_full` holds up what waits for the client to have taken something."""

    def __init__(self) -> None:
        self.id = 1
        self.user: User | None = AMY
        self.session = type("Session", (), {"desk": None})()
        self.subscriber: Any = _Subscriber()
        self.replies: list[Reply] = []
        self.takes = asyncio.Event()
        self.takes.set()

    def reply(self, reply: Reply) -> None:
        self.replies.append(reply)

    def expect_much(self) -> None:
        pass

    async def drained(self) -> None:
        await self.takes.wait()

    @property
    def chunks(self) -> list[Chunk]:
        chunks: list[Chunk] = self.subscriber.outbox.chunks
        return chunks

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of all frames of a type."""
        return [reply.data for reply in self.replies if reply.type == kind]


class DeskWorld:
    """Files, a room with amy in it, and the rules of an edge."""

    def __init__(self, *, idle_s: float = 60.0, per_connection: int = 8, in_all: int = 64) -> None:
        self.rooms = FakeRooms()
        self.backend = FakeFiles(self.rooms)
        self.tasks = TaskSet()
        self.clock = FakeClock()
        self.texts = 0.0  # so many texts there were
        self.connection = FakeConnection()
        counters = Counters()
        self.rules = FileRules(
            backend=self.backend,
            tasks=self.tasks,
            clock=self.clock,
            window_bytes=WINDOW,
            idle_s=idle_s,
            uploads=Places(per_connection=per_connection, in_all=in_all),
            downloads=Places(per_connection=per_connection, in_all=in_all),
            give_way=GiveWay(lambda: self.texts, self.clock),
            bytes_in=counters.counter("in"),
            bytes_out=counters.counter("out"),
        )
        self.room_id = ""

    async def begin(self) -> None:
        room = await self.rooms.create_room(AMY, name="lobby", topic="", private=False, exclusive=False)
        self.room_id = room.room_id
        self.connection.subscriber.rooms.add(room.room_id)

    async def offer(self, data: bytes, name: str = "a") -> Offered:
        return await self.backend.offer(AMY, self.room_id, Offer(name=name, size=len(data), sha256=sha256(data)))

    async def posted(self, data: bytes, name: str = "a") -> str:
        """The id of a file that is there."""
        offered = await self.offer(data, name)
        upload = self.backend.open_upload(AMY, offered)
        await upload.write(0, data, is_last=False)
        return offered.file_id

    async def until(self, is_so: Callable[[], object]) -> None:
        for _ in range(2_000):
            if is_so():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"it never came: {self.connection.replies}")
