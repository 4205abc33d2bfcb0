from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from parley.rooms.v1 import feed_pb2

from services.common.clock import FakeClock
from services.common.counters import Counter
from services.common.wire.events import Message
from services.edge.decisions import Text, User
from services.edge.hub import Hub, Subscriber
from services.edge.instances import Instances, Lane
from services.edge.outbox import Outbox
from services.edge.publisher import Publisher
from services.edge.qos.classes import QosClass
from services.edge.routes import Routes

EPOCH = "e001"
ROOM = "room0001"
AMY = User("u1", "amy", "s1", 0.0)


class World:
    """Two instances, both there; `owner` serves `ROOM`, `other` does not."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.hub = Hub(
            wake=lambda: None, wake_feed=self._wake, number=lambda: 1, delivered=Counter(), send_file=lambda *_: None
        )
        routes = Routes(("a:1", "b:1"))
        self.instances = Instances(
            routes,
            hub=self.hub,
            make_publisher=self._publisher,
            on_room=lambda: None,
            texts_max=3,
            bytes_max=100,
            clock=self.clock,
        )
        self._numbers = itertools.count(1)
        for lane in self.instances.lanes:
            self.open(lane)
        self.owner = next(lane for lane in self.instances.lanes if lane.target == routes.owner(ROOM))
        self.other = next(lane for lane in self.instances.lanes if lane is not self.owner)
        self.subscriber = Subscriber(None, Outbox(None, lambda _: None), version=2, user=AMY)
        self.hub.attach(self.subscriber, ROOM, epoch=EPOCH, last_seq=0)

    def _publisher(self, wake: Callable[[], object], on_room: Callable[[], object]) -> Publisher:
        return Publisher(
            boot_id="b007",
            texts_max=100,
            bytes_max=100_000,
            batches_max=2,
            timeout_s=10,
            wake_feed=wake,
            on_room=on_room,
            count_stored=lambda _, __: None,
            next_number=lambda: next(self._numbers),
        )

    def _wake(self) -> None:
        self.instances.wake()

    def open(self, lane: Lane) -> None:
        lane.follow_all()
        lane.publisher.connected()
        self.instances.set_live(lane, True)

    def lose(self, lane: Lane) -> None:
        lane.publisher.disconnected()
        self.instances.set_live(lane, False)

    def submit(self, body: str, room_id: str = ROOM) -> None:
        text = Text(room_id, body, f"k{body}", None, QosClass.NORMAL, "u1", "amy", self.clock.monotonic(), self)
        self.instances.submit(text, self.clock.monotonic())

    def text_stored(self, text: Text, *_: object) -> None:
        self.events.append(f"stored {text.text}")

    def text_refused(self, text: Text, code: str, *_: object) -> None:
        self.events.append(f"{code} {text.text}")

    def written(self, lane: Lane) -> feed_pb2.Publishes:
        request = feed_pb2.AttachRequest()
        lane.publisher.fill(request)
        return request.publishes

    def answer(self, lane: Lane, *numbers: int) -> None:
        results = [feed_pb2.PublishResult(number=one, epoch=EPOCH, seq=one, duplicate=True) for one in numbers]
        lane.publisher.resolve(feed_pb2.Stored(), results, self.clock.monotonic())

    def position(self) -> int:
        self.hub.deliver(0.0)
        follow = self.hub.follow_of(ROOM)
        assert follow is not None
        return follow[2]


def message(seq: int) -> list[Message]:
    return [Message(seq, "amy", f"t{seq}", 1)]


def test_a_room_is_followed_and_heard_at_its_instance_only() -> None:
    world = World()
    assert world.other.take_follows() == ([], [])
    assert world.owner.take_follows() == ([(ROOM, EPOCH, 0)], [])
    world.other.receive(ROOM, EPOCH, message(1), 0.0)
    assert world.position() == 0
    world.owner.receive(ROOM, EPOCH, message(1), 0.0)
    assert world.position() == 1


def test_texts_of_a_lost_instance_go_to_the_other_in_order_with_their_keys() -> None:
    world = World()
    world.submit("a")
    world.submit("b")
    assert list(world.written(world.owner).keys) == ["cka", "ckb"]
    world.submit("c")
    world.lose(world.owner)
    world.submit("d")
    moved = world.written(world.other)
    assert list(moved.keys) == ["cka", "ckb", "ckc", "ckd"]
    assert list(moved.numbers) == [1, 2, 3, 4]
    assert len(world.instances) == 4
    assert not len(world.owner.publisher)


def test_a_moved_room_is_followed_once_its_texts_are_answered() -> None:
    world = World()
    world.owner.take_follows()
    world.owner.receive(ROOM, EPOCH, message(1), 0.0)
    world.submit("a")
    world.written(world.owner)
    world.lose(world.owner)
    world.written(world.other)
    assert world.other.take_follows() == ([], [])
    world.other.receive(ROOM, EPOCH, message(2), 0.0)  # of an earlier follow
    assert world.position() == 1
    world.submit("new")  # only the new instance can have it: it is not waited for
    world.other.bell.clear()
    world.answer(world.other, 1)
    assert world.events == ["stored a"]
    assert world.other.bell.is_set()
    assert world.other.take_follows() == ([(ROOM, EPOCH, 1)], [])


def test_a_room_moves_back_and_what_the_substitute_still_says_is_not_taken() -> None:
    world = World()
    world.lose(world.owner)
    world.other.take_follows()
    world.submit("a")
    world.written(world.other)
    world.open(world.owner)
    assert list(world.written(world.owner).numbers) == [1]
    assert world.other.take_follows() == ([], [ROOM])
    world.answer(world.other, 1)  # it had stored it; the owner will say the same
    world.other.receive(ROOM, EPOCH, message(1), 0.0)
    assert world.events == []
    assert world.position() == 0
    world.answer(world.owner, 1)
    assert world.events == ["stored a"]
    assert world.owner.take_follows() == ([(ROOM, EPOCH, 0)], [])


def test_while_no_instance_is_there_texts_wait_and_go_to_the_first_that_comes() -> None:
    world = World()
    world.lose(world.other)
    world.lose(world.owner)
    world.submit("a")
    assert not world.written(world.owner).keys
    assert not world.written(world.other).keys
    world.open(world.other)
    assert list(world.written(world.other).keys) == ["cka"]


def test_a_stream_that_is_made_again_asks_about_its_texts_before_it_follows() -> None:
    world = World()
    world.lose(world.other)
    world.submit("a")
    world.written(world.owner)
    world.owner.follow_all()
    assert world.owner.take_follows() == ([], [])
    world.answer(world.owner, 1)
    assert world.owner.take_follows() == ([(ROOM, EPOCH, 0)], [])


def test_who_leaves_ends_the_follow_wherever_it_is() -> None:
    world = World()
    world.owner.take_follows()
    world.hub.detach(world.subscriber, ROOM)
    assert world.other.take_follows() == ([], [])
    assert world.owner.take_follows() == ([], [ROOM])


def test_the_bounds_are_for_all_instances_together() -> None:
    world = World()
    rooms = [f"room{number}" for number in range(3)]
    for room_id in rooms:
        assert world.instances.has_room
        world.submit("x", room_id)
    assert not world.instances.has_room


def test_texts_that_waited_too_long_are_given_up_after_a_move_too() -> None:
    world = World()
    world.submit("a")
    world.written(world.owner)
    world.lose(world.owner)
    assert world.instances.expire(world.clock.monotonic() + 10) == 1
    assert world.events == ["unknown_outcome a"]
    assert world.other.take_follows() == ([(ROOM, EPOCH, 0)], [])


async def test_a_stalled_instance_is_cut_off_where_another_could_work() -> None:
    world = World()
    heard: dict[str, float] = {lane.target: world.clock.monotonic() for lane in world.instances.lanes}
    cut: list[str] = []

    def cut_off(lane: Lane) -> Any:
        cut.append(lane.target)
        heard.pop(lane.target)
        world.lose(lane)

    task = asyncio.create_task(world.instances.watch(lambda lane: heard.get(lane.target), cut_off))
    await world.clock.wait_for_sleepers()
    for _ in range(20):  # silence is no fault while nothing is asked
        await world.clock.advance(0.25)
    assert not cut
    world.submit("a")
    world.written(world.owner)
    for _ in range(5):
        await world.clock.advance(0.25)
    assert cut == [world.owner.target]
    world.written(world.other)
    for _ in range(20):  # the last one is left in peace
        await world.clock.advance(0.25)
    assert cut == [world.owner.target]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
