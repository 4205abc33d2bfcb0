"""What operators do with rooms, and what those who are in them notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.common.errors import ParleyError
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.rooms.bus import MembershipEnded
from services.rooms.operators.desk import LOOK_INTERVAL_S, Desk
from tests.helpers.rooms_world import RoomsWorld, rooms_world, until, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        made.attendance.attach("boot-1", "edge-1")
        yield made


@pytest.fixture
async def desk(world: RoomsWorld) -> Desk:
    return Desk(world.database, attendance=world.attendance, bus=world.bus, clock=world.clock, counts=world.counts)


async def refused(call: Any) -> ErrorCode:
    with pytest.raises(ParleyError) as caught:
        await call
    return caught.value.code


async def test_members_are_shown_with_who_is_online(world: RoomsWorld, desk: Desk) -> None:
    room = await world.create("alice", "lobby")
    await world.join("bob", room)
    page = await desk.members("lobby", after="", limit=1)
    assert ([member.username for member in page.members], page.next_name) == (["alice"], "alice")
    page = await desk.members("lobby", after="alice", limit=1)
    assert ([member.username for member in page.members], page.next_name) == (["bob"], "")
    assert page.online_ids == {user_id("alice"), user_id("bob")}


async def test_nobody_sends_to_a_closed_room_and_what_was_sent_is_not_denied(world: RoomsWorld, desk: Desk) -> None:
    room = await world.create("alice", "lobby")
    stored = await world.say("alice", room, "before", key="k1")
    assert (await desk.set_closed("lobby", is_closed=True)).is_closed
    assert (await world.say("alice", room, "now")).code is ErrorCode.FORBIDDEN
    again = await world.say("alice", room, "before", key="k1")
    assert (again.seq, again.is_duplicate) == (stored.seq, True)
    await desk.set_closed(room.room_id, is_closed=False)
    assert (await world.say("alice", room, "after")).seq == 2


async def test_who_is_in_a_deleted_room_is_told_that_it_ended(world: RoomsWorld, desk: Desk) -> None:
    room = await world.create("alice", "lobby")
    await world.join("bob", room)
    await world.say("alice", room, "hello")
    world.events.clear()
    details = await desk.delete("lobby")
    assert (details.room.member_count, details.room.last_seq) == (2, 1)
    assert (await world.say("alice", room, "anybody?")).code is ErrorCode.NO_SUCH_ROOM
    await desk.take_apart()
    ended = [event for event in world.events if isinstance(event, MembershipEnded)]
    assert {(one.user_id, one.room_id, one.last_seq) for one in ended} == {
        (user_id("alice"), room.room_id, 1),
        (user_id("bob"), room.room_id, 1),
    }
    assert world.counts.room_count == 0
    assert await refused(desk.show(room.room_id)) is ErrorCode.NO_SUCH_ROOM


async def test_what_another_instance_left_half_done_is_finished(world: RoomsWorld, desk: Desk) -> None:
    tasks = TaskSet()
    desk.start(tasks)
    try:
        await world.create("alice", "one")
        await world.create("alice", "two")
        await desk.delete("one")
        await until(lambda: world.counts.room_count == 1)
        other = Desk(world.database, attendance=world.attendance, bus=world.bus, clock=world.clock, counts=world.counts)
        await other.delete("two")  # and ends before it is taken apart
        world.clock.advance(LOOK_INTERVAL_S)
        await until(lambda: world.counts.room_count == 0)
    finally:
        await tasks.close()
