from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from parley.rooms.v1 import feed_pb2

from services.common.clock import FakeClock
from services.common.counters import Counter
from services.edge.decisions import Text, User
from services.edge.feed import Feed
from services.edge.hub import Hub, Subscriber
from services.edge.outbox import Outbox
from services.edge.publisher import Publisher
from services.edge.qos.classes import QosClass
from tests.helpers import columns

EPOCH = "e001"
AMY = User("u1", "amy", "s1", 0.0)


class FakeStream:
    """The feed's stream: what was written, and what is to be read."""

    def __init__(self) -> None:
        self.written: list[feed_pb2.AttachRequest] = []
        self.to_read: asyncio.Queue[Any] = asyncio.Queue()
        self.is_cancelled = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.write_failure: Exception | None = None

    async def write(self, request: feed_pb2.AttachRequest) -> None:
        await self.writable.wait()
        if self.write_failure is not None:
            raise self.write_failure
        self.written.append(request)

    async def read(self) -> Any:
        item = await self.to_read.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def cancel(self) -> bool:
        self.is_cancelled = True
        self.to_read.put_nowait(asyncio.CancelledError())
        return True


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="gone")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bell = asyncio.Event()
        self.order: list[str] = []
        self.hub = Hub(
            wake=lambda: None, wake_feed=self.bell.set, number=lambda: 1, delivered=Counter(), send_file=lambda *_: None
        )
        self.publisher = Publisher(
            boot_id="b007",
            texts_max=100,
            bytes_max=100_000,
            batches_max=2,
            timeout_s=10,
            wake_feed=self.bell.set,
            on_room=lambda: None,
            count_stored=lambda _, __: None,
        )
        self.streams: list[FakeStream] = []
        self.present: list[tuple[User, Iterable[str]]] = []
        self.removed: list[tuple[str, str, int]] = []
        self.lives: list[bool] = []
        self.feed = Feed(
            edge_name="edge-1",
            boot_id="b007",
            open_stream=self._open,
            bell=self.bell,
            publisher=self.publisher,
            hub=self.hub,
            present=lambda: self.present,
            on_removed=lambda *removal: self.removed.append(removal),
            clock=self.clock,
            on_live=self.lives.append,
        )
        self.subscriber = Subscriber(None, Outbox(None, lambda _: None), version=2, user=AMY)

    def _open(self) -> FakeStream:
        self.streams.append(FakeStream())
        return self.streams[-1]

    @property
    def stream(self) -> FakeStream:
        return self.streams[-1]

    def submit(self, text: str) -> None:
        item = Text("room0001", text, None, None, QosClass.NORMAL, "u1", "amy", self.clock.monotonic(), self)
        self.publisher.submit(item, self.clock.monotonic())

    def text_stored(self, text: Text, *_: object) -> None:
        self.order.append(f"stored {text.text}")

    def text_refused(self, text: Text, *_: object) -> None:
        self.order.append(f"refused {text.text}")

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def respond(self, **parts: Any) -> None:
        self.stream.to_read.put_nowait(feed_pb2.AttachResponse(**parts))
        await self.settle()


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.feed.run())
    await world.settle()
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def room_messages(*seqs: int) -> feed_pb2.RoomMessages:
    return columns.room_messages("room0001", EPOCH, [columns.MessageRow(seq, "amy", f"t{seq}", 1) for seq in seqs])


async def test_a_stream_begins_with_who_is_here_and_what_is_wanted() -> None:
    async with running() as world:
        (hello,) = world.stream.written
        assert (hello.hello.edge_name, hello.hello.boot_id) == ("edge-1", "b007")
        assert not world.feed.is_connected
        await world.respond()
        assert world.feed.is_connected


async def test_what_queues_up_during_a_write_goes_with_the_next() -> None:
    async with running() as world:
        world.stream.writable.clear()
        world.submit("a")
        await world.settle()  # "a" is being written
        world.submit("b")
        world.submit("c")
        world.hub.attach(world.subscriber, "room0001", epoch=EPOCH, last_seq=4)
        await world.settle()
        world.stream.writable.set()
        await world.settle()
        first, second = world.stream.written[1:]
        assert list(first.publishes.texts) == ["a"]
        assert list(second.publishes.texts) == ["b", "c"]
        assert [(one.room_id, one.epoch, one.after_seq) for one in second.follows] == [("room0001", EPOCH, 4)]
        world.hub.detach_all(world.subscriber)
        await world.settle()
        assert world.stream.written[-1].unfollow_room_ids == ["room0001"]


async def test_a_response_is_results_then_messages() -> None:
    async with running() as world:
        world.hub.attach(world.subscriber, "room0001", epoch=EPOCH, last_seq=0)
        world.submit("a")
        await world.settle()
        stored = feed_pb2.Stored(numbers=[1], epochs=[EPOCH], seqs=[1], sent_at_ms=[1])
        await world.respond(stored=stored, rooms=[room_messages(1, 2)])
        assert world.order == ["stored a"]
        world.hub.deliver(0.0)
        assert world.hub.bookmarks(world.subscriber) == {"room0001": 0}
        assert b'"seq":1' in world.subscriber.outbox.take(1_000)[0]


async def test_presence_and_removals_are_passed_on() -> None:
    async with running() as world:
        world.hub.attach(world.subscriber, "room0001", epoch=EPOCH, last_seq=0)
        change = feed_pb2.PresenceChange
        await world.respond(
            presence_changes=[
                change(room_id="room0001", action=feed_pb2.PRESENCE_ACTION_ONLINE, username="ben"),
                change(room_id="room0001", action=99, username="ben"),
            ],
            membership_changes=[feed_pb2.MembershipChange(room_id="room0001", user_id="u9", last_seq=3)],
        )
        data, count = world.subscriber.outbox.take(1_000)
        assert (b'"online"' in data, count) == (True, 1)
        assert world.removed == [("room0001", "u9", 3)]


@pytest.mark.parametrize(
    "end",
    [
        grpc.aio.EOF,
        rpc_error(grpc.StatusCode.UNAVAILABLE),
        asyncio.InvalidStateError("over"),
        asyncio.CancelledError(),
    ],
)
async def test_a_lost_stream_is_opened_again_with_everything_unresolved(end: object) -> None:
    async with running() as world:
        world.hub.attach(world.subscriber, "room0001", epoch=EPOCH, last_seq=0)
        world.submit("a")
        await world.settle()
        await world.respond(rooms=[room_messages(1, 2)])
        world.present = [(AMY, ["room0001"])]
        lost = world.stream
        lost.to_read.put_nowait(end)
        await world.clock.wait_for_sleepers()
        assert lost.is_cancelled
        world.submit("b")
        await world.clock.advance(1)
        assert world.stream is not lost
        hello, again = world.stream.written
        assert list(again.publishes.texts) == ["a", "b"]
        assert [(one.room_id, one.after_seq) for one in hello.follows] == [("room0001", 2)]
        (session,) = hello.hello.sessions
        assert (session.session.session_id, session.session.edge_boot_id) == ("s1", "b007")
        assert session.room_ids == ["room0001"]


async def test_a_failing_write_ends_the_stream() -> None:
    async with running() as world:
        lost = world.stream
        lost.write_failure = rpc_error(grpc.StatusCode.UNAVAILABLE)
        world.submit("a")
        await world.clock.wait_for_sleepers()
        assert lost.is_cancelled
        await world.clock.advance(1)
        assert list(world.stream.written[1].publishes.texts) == ["a"]


async def test_while_rooms_is_away_it_is_tried_ever_more_slowly() -> None:
    world = World()

    def refuse() -> FakeStream:
        stream = world._open()
        stream.write_failure = rpc_error(grpc.StatusCode.UNAVAILABLE)
        return stream

    world.feed._open_stream = refuse
    task = asyncio.create_task(world.feed.run())
    for _ in range(20):
        await world.clock.wait_for_sleepers()
        await world.clock.advance(0.02)
    at_first = len(world.streams)
    for _ in range(20):
        await world.clock.wait_for_sleepers()
        await world.clock.advance(1.0)
    assert 2 <= at_first <= 10
    assert 20 <= len(world.streams) - at_first <= 21
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_stream_works_from_its_first_response_until_it_is_lost() -> None:
    async with running() as world:
        assert world.lives == []
        assert world.feed.heard_at is None
        await world.respond()
        await world.clock.advance(1)
        await world.respond()
        assert world.lives == [True]
        assert world.feed.heard_at == world.clock.monotonic()
        world.feed.cut()
        await world.settle()
        assert world.lives == [True, False]
        assert world.feed.heard_at is None
        await world.clock.advance(1)
        assert len(world.streams) == 2
