"""A rooms service on a real port, over mutual TLS, in this process; and an edge's end of its streams.

async with serve_rooms(tmp_path) as served:
    edge = await served.edge()
    room = (await edge.rooms.CreateRoom(...)).room
    async with edge.attach() as feed:
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
from parley.rooms.v1 import feed_pb2, feed_pb2_grpc, rooms_pb2, rooms_pb2_grpc

from services.common.errors import ParleyError, from_rpc_error
from services.common.process import Stop
from services.common.rpc_client import open_channel
from services.rooms.__main__ import serve
from services.rooms.config import RoomsConfig
from tests.helpers import certificates, columns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

WAIT_S = 20.0
_keys = itertools.count(1)


def user_id(name: str) -> str:
    return f"id{name}"


async def refusal(call: Awaitable[Any]) -> str:
    """The Parley code with which a call is refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code.value
    raise AssertionError("the call was not refused")


class Feed:
    """One Attach stream. Notes what came, and fails where the promises of the stream are broken."""

    def __init__(self, call: Any, boot_id: str) -> None:
        self.call = call
        self.boot_id = boot_id
        self.results: dict[int, feed_pb2.PublishResult] = {}
        self.messages: dict[str, list[columns.MessageRow]] = {}
        self.presence: list[feed_pb2.PresenceChange] = []
        self.ended: list[feed_pb2.MembershipChange] = []
        self.error: ParleyError | None = None
        self.is_in_place = False
        self.largest = 0
        self._sent: dict[str, int] = {}  # text -> the number under which this stream sent it
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)

    def start_reading(self) -> None:
        self._reading = asyncio.create_task(self._read(), name="feed")

    async def _read(self) -> None:
        try:
            async for response in self.call:
                async with self._changed:
                    self._take(response)
                    self._changed.notify_all()
        except grpc.aio.AioRpcError as error:
            self.error = from_rpc_error(error)
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise
        async with self._changed:
            self._reading = None
            self._changed.notify_all()

    def _take(self, response: feed_pb2.AttachResponse) -> None:
        self.is_in_place = True
        self.largest = max(self.largest, response.ByteSize())
        for result in columns.results(response):
            assert result.number not in self.results, "a second result"
            self.results[result.number] = result
        for room in response.rooms:
            known = self.messages.setdefault(room.room_id, [])
            for message in columns.message_rows(room):
                assert not known or message.seq == known[-1].seq + 1, "a gap, a repeat or an inversion"
                known.append(message)
                number = self._sent.get(message.text)
                assert number is None or number in self.results, "an event before its result"
        self.presence += response.presence_changes
        self.ended += response.membership_changes

    @property
    def is_over(self) -> bool:
        return self._reading is None

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: condition() or self._reading is None)
        assert condition(), f"the stream ended: {self.error}"

    async def in_place(self) -> None:
        """Waits until the service knows of the stream, which it says first of all."""
        await self.until(lambda: self.is_in_place)

    async def send(self, **parts: Any) -> None:
        async with self._writing:  # gRPC takes one message at a time
            await self.call.write(feed_pb2.AttachRequest(**parts))

    async def publish(self, name: str, room_id: str, *texts: str, keys: Iterable[str] = ()) -> list[int]:
        """Sends messages in one request; returns their numbers."""
        numbers = [next(self._numbers) for _ in texts]
        self._sent |= dict(zip(texts, numbers, strict=True))
        chosen = list(keys) or [f"e{next(_keys)}" for _ in numbers]
        await self.send(
            publishes=columns.publishes(
                *(
                    columns.PublishRow(number, room_id, user_id(name), name, text, key)
                    for number, text, key in zip(numbers, texts, chosen, strict=True)
                )
            )
        )
        return numbers

    async def say(self, name: str, room_id: str, *texts: str, keys: Iterable[str] = ()) -> list[Any]:
        """Sends messages and returns their results."""
        numbers = await self.publish(name, room_id, *texts, keys=keys)
        await self.until(lambda: all(number in self.results for number in numbers))
        return [self.results[number] for number in numbers]

    async def follow(self, room: rooms_pb2.Room, after_seq: int | None = None, *, epoch: str | None = None) -> None:
        after = room.last_seq if after_seq is None else after_seq
        await self.send(follows=[feed_pb2.Follow(room_id=room.room_id, epoch=epoch or room.epoch, after_seq=after)])

    def seqs(self, room: rooms_pb2.Room) -> list[int]:
        return [message.seq for message in self.messages.get(room.room_id, [])]

    async def until_seq(self, room: rooms_pb2.Room, seq: int) -> None:
        await self.until(lambda: seq in self.seqs(room)[-1:])

    async def close(self) -> None:
        """Says that nothing more comes, and waits for the end."""
        await self.call.done_writing()
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: self._reading is None)

    async def end(self) -> None:
        self.call.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


@dataclass
class Edge:
    """One boot of one edge."""

    name: str
    boot_id: str
    channel: grpc.aio.Channel

    @property
    def rooms(self) -> rooms_pb2_grpc.RoomsServiceAsyncStub:
        return rooms_pb2_grpc.RoomsServiceStub(self.channel)

    def session(self, name: str) -> rooms_pb2.Session:
        """A connection of that person at this edge; the same one each time."""
        return rooms_pb2.Session(
            session_id=f"{self.boot_id}/{name}", user_id=user_id(name), username=name, edge_boot_id=self.boot_id
        )

    async def open(self, name: str, *, enter_rooms: bool = True) -> list[rooms_pb2.Room]:
        request = rooms_pb2.OpenSessionRequest(session=self.session(name), enter_rooms=enter_rooms)
        return list((await self.rooms.OpenSession(request)).rooms)

    async def create(self, name: str, room: str, **options: Any) -> rooms_pb2.Room:
        request = rooms_pb2.CreateRoomRequest(session=self.session(name), name=room, **options)
        return (await self.rooms.CreateRoom(request)).room

    async def join(self, name: str, room: str, *, exclusive: bool = False) -> rooms_pb2.Room:
        request = rooms_pb2.JoinRoomRequest(session=self.session(name), room=room, exclusive=exclusive)
        return (await self.rooms.JoinRoom(request)).room

    async def leave(self, name: str, room: str) -> str:
        request = rooms_pb2.LeaveRoomRequest(session=self.session(name), room=room)
        return (await self.rooms.LeaveRoom(request)).room_id

    @contextlib.asynccontextmanager
    async def attach(
        self, *, sessions: Iterable[feed_pb2.SessionPresence] = (), reads: bool = True, **first: Any
    ) -> AsyncIterator[Feed]:
        """An open stream; with `reads` false nothing is taken from it."""
        stub: feed_pb2_grpc.RoomFeedServiceAsyncStub = feed_pb2_grpc.RoomFeedServiceStub(self.channel)
        feed = Feed(stub.Attach(), self.boot_id)
        hello = feed_pb2.EdgeHello(edge_name=self.name, boot_id=self.boot_id, sessions=sessions)
        await feed.send(hello=hello, **first)
        if reads:
            feed.start_reading()
        try:
            yield feed
        finally:
            await feed.end()


@dataclass
class ServedRooms:
    """A running service."""

    target: str
    folder: Path
    stop: Stop
    channels: contextlib.AsyncExitStack

    async def channel(self, identity: str) -> grpc.aio.Channel:
        config = certificates.shared().config(identity, self.folder)
        channel = open_channel(self.target, config=config, server="rooms")
        self.channels.push_async_callback(channel.close)
        return channel

    async def edge(self, name: str = "edge-1", boot_id: str = "boot1") -> Edge:
        return Edge(name, boot_id, await self.channel("edge"))

    async def admin(self) -> rooms_pb2_grpc.RoomsAdminServiceAsyncStub:
        return rooms_pb2_grpc.RoomsAdminServiceStub(await self.channel("admin/alice"))


@contextlib.asynccontextmanager
async def serve_rooms(folder: Path, **changes: Any) -> AsyncIterator[ServedRooms]:
    """`changes` go to the configuration."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    # What the edges of tests hold no assertions for is not what these tests are about; test_assertions is.
    settings = {"ready_file": ready, "stop_grace_s": 2.0, "check_assertions": False, **changes}
    config = certificates.shared().make(RoomsConfig, "rooms", folder, **settings)
    stop = Stop()
    serving = asyncio.create_task(serve(config, stop), name="rooms service")
    async with asyncio.timeout(WAIT_S):
        for _ in range(10_000):
            if ready.exists() or serving.done():
                break
            await asyncio.sleep(0.01)
    if serving.done():
        serving.result()
    async with contextlib.AsyncExitStack() as channels:
        served = ServedRooms(json.loads(ready.read_text())["grpc"], folder, stop, channels)
        try:
            yield served
        finally:
            stop.set()
            await asyncio.wait_for(serving, WAIT_S)
