"""Presence in time: what falls due is published when its moment has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.common.clock import FakeClock
from services.common.tasks import TaskSet
from services.rooms.attendance import Attendance
from services.rooms.bus import LocalBus, MembershipEnded, PresenceChanged, PresenceTold
from services.rooms.presence import GRACE_S, Action, Change, Presence
from services.rooms.presence_news import LEASE_S, RENEW_S, Entered, Opened
from tests.helpers.rooms_world import RoomsWorld, rooms_world, session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path, crowd=2) as made:
        made.attendance.start(made.tasks)
        yield made


def changes(world: RoomsWorld) -> list[Change]:
    found = [change for event in world.events if isinstance(event, PresenceChanged) for change in event.changes]
    world.events.clear()
    return found


async def test_an_edge_that_does_not_come_back(world: RoomsWorld) -> None:
    world.attendance.attach("boot-1", "edge-1")
    world.attendance.open(session("alice"), ["room"])
    world.attendance.detach("boot-1")
    changes(world)
    for _ in range(19):
        await world.clock.wait_for_sleepers()
        await world.clock.advance(0.25)
    assert changes(world) == []
    await world.clock.wait_for_sleepers()
    await world.clock.advance(0.25)
    assert changes(world) == [Change("room", Action.OFFLINE, "alice", 0)]
    assert world.clock.sleeper_count == 0  # nothing is due, so nothing is looked at


async def test_an_edge_that_comes_back_in_time(world: RoomsWorld) -> None:
    world.attendance.attach("boot-1", "edge-1")
    world.attendance.open(session("alice"), ["room"])
    world.attendance.detach("boot-1")
    await world.clock.wait_for_sleepers()
    await world.clock.advance(4)
    world.attendance.attach("boot-1", "edge-1")
    changes(world)
    await world.clock.advance(60)
    assert changes(world) == []
    assert world.attendance.online_count("room") == 1


async def test_a_crowd_is_counted_once_a_second(world: RoomsWorld) -> None:
    world.attendance.attach("boot-1", "edge-1")
    for n in range(3):
        world.attendance.open(session(f"person{n}"), ["room"])
    await world.clock.advance(0)
    assert [change.action for change in changes(world)] == [Action.ONLINE, Action.ONLINE, Action.COUNT]
    world.attendance.close([session("person0").session_id])
    await world.clock.wait_for_sleepers()
    await world.clock.advance(0.5)
    assert changes(world) == []
    await world.clock.wait_for_sleepers()
    await world.clock.advance(0.5)
    assert changes(world) == [Change("room", Action.COUNT, "", 2)]


async def test_removals_are_counted(world: RoomsWorld) -> None:
    before = world.attendance.removal_count
    for _ in range(2):  # by the bus and from the database
        world.bus.publish(MembershipEnded("room", "u", 1, username="alice", number=7))
    assert world.attendance.removal_count == before + 1
    assert changes(world) == [Change("room", Action.LEAVE, "alice", 0)]
    assert world.attendance.online("room") == {}


class Linked(LocalBus):
    """A bus whose news another instance hears at once."""

    is_shared = True
    other: Linked

    def send(self, event: PresenceTold) -> None:
        self.other.deliver(event)


class Two:
    """Two instances of which each hears what edges say to the other one."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks = TaskSet()
        self.changes: list[list[tuple[str, str]]] = [[], []]
        buses = [Linked(), Linked()]
        self.instances = [Attendance(Presence(), bus=bus, clock=self.clock) for bus in buses]
        for number, bus in enumerate(buses):
            bus.other = buses[1 - number]
            bus.subscribe(lambda event, number=number: self.note(number, event))  # type: ignore[misc]
            self.instances[number].start(self.tasks)

    def note(self, number: int, event: object) -> None:
        if isinstance(event, PresenceChanged):
            self.changes[number] += [(change.action.value, change.username) for change in event.changes]

    def online(self, room_id: str = "room") -> list[list[str]]:
        return [sorted(instance.online(room_id).values()) for instance in self.instances]

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            await self.clock.advance(0.25)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    made = Two()
    yield made
    await made.tasks.close()


async def test_each_instance_knows_what_edges_tell_the_other(two: Two) -> None:
    first, second = two.instances
    first.attach("boot-1", "edge-1")
    first.open(session("alice"), ["room"])
    second.enter(session("bob"), "room", is_exclusive=False, is_newcomer=True)
    assert two.online() == [["alice", "bob"]] * 2
    second.close([session("alice").session_id])
    assert two.online() == [["bob"]] * 2
    assert two.changes == [[("online", "alice"), ("join", "bob"), ("offline", "alice")]] * 2


async def test_an_edge_is_here_as_long_as_one_instance_has_its_stream(two: Two) -> None:
    first, second = two.instances
    for instance in two.instances:
        instance.attach("boot-1", "edge-1")
    first.open(session("alice"), ["room"])
    second.detach("boot-1")
    await two.pass_time(30)
    assert two.online() == [["alice"]] * 2
    first.detach("boot-1")
    await two.pass_time(GRACE_S + LEASE_S + RENEW_S)
    assert two.online() == [[]] * 2


async def test_the_people_of_an_instance_that_died_go_when_its_leases_end(two: Two) -> None:
    first, second = two.instances
    first.attach("boot-1", "edge-1")
    first.open(session("alice"), ["room"])
    first._tell = lambda _news: None  # type: ignore[method-assign]
    await two.pass_time(LEASE_S + GRACE_S)
    assert second.online("room") == {}


async def test_old_news_does_not_open_a_session_again(two: Two) -> None:
    first, second = two.instances
    first.open(session("alice"), ["room"])
    first.close([session("alice").session_id])
    second._on_news(Opened(session("alice"), ["room"]))
    second._on_news(Entered(session("alice"), "room", False, False))
    assert two.online() == [[]] * 2


async def test_an_instance_that_starts_later_asks(two: Two) -> None:
    first, second = two.instances
    first.attach("boot-1", "edge-1")
    second.attach("boot-2", "edge-2")
    with_rooms = first._presence.open(session("alice"), ["room"], two.clock.monotonic())
    assert len(with_rooms) == 1
    assert two.online() == [["alice"], []]
    second.ask()
    assert two.online() == [["alice"]] * 2
