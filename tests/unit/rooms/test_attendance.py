"""Presence in time: what falls due is published when its moment has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.rooms.bus import PresenceChanged
from services.rooms.presence import Action, Change
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
    world.attendance.remove("u", "alice", "room")
    assert world.attendance.removal_count == before + 1
    assert world.attendance.online("room") == {}
