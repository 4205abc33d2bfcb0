"""What the bus loses comes from the database: positions, ended memberships; and edges are asked who is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.rooms.bus import Lost, MembershipEnded
from services.rooms.presence import ANNOUNCE_RACE_S
from services.rooms.repair import ASK_INTERVAL_S, CHECK_INTERVAL_S
from tests.helpers.rooms_world import RoomsWorld, rooms_world, session, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from services.rooms.stream import Stream


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        yield made


@pytest.fixture
async def there(here: RoomsWorld, tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    """Another instance on the same database, of which `here` hears nothing."""
    async with rooms_world(tmp_path) as made:
        yield made


def shown(stream: Stream) -> list[int]:
    parcel = stream.take()
    return [seq for piece in parcel.pieces for seq in piece.seqs] if parcel else []  # type: ignore[attr-defined]


async def test_what_another_instance_stored_last_is_found(here: RoomsWorld, there: RoomsWorld) -> None:
    room = await here.create("alice", "lobby")
    stream = here.stream()
    here.streams.follow(stream, room.room_id, room.epoch, 0)
    await until(lambda: stream.follows[room.room_id].is_live)
    await there.say("alice", room, "unheard")
    here.repair().start(here.tasks, is_shared=True)
    await until(lambda: stream.waiting_bytes)
    assert shown(stream) == [1]
    await there.say("alice", room, "again")
    await here.say("alice", room, "joined on")  # a jump: the one before it is read
    await until(lambda: stream.follows[room.room_id].position == 3)
    assert shown(stream) == [2, 3]
    await there.say("alice", room, "last")
    await here.clock.wait_for_sleepers(2)
    await here.clock.advance(CHECK_INTERVAL_S)
    await until(lambda: stream.waiting_bytes)
    assert shown(stream) == [4]


async def test_a_removal_that_nobody_told_is_found_once(here: RoomsWorld, there: RoomsWorld) -> None:
    room = await here.create("alice", "lobby")
    for name in ("bob", "carol", "dave"):
        await here.join(name, room)
    await there.directory.remove_member("lobby", "bob")  # before the first look: edges know by their own list
    repair = here.repair()
    await repair.check()
    here.events.clear()
    await there.directory.remove_member("lobby", "carol")
    await there.directory.leave_room(session("dave", boot_id="boot-2"), room.room_id)
    await there.join("dave", room)  # who is back is not removed
    for _ in range(2):
        await repair.check()
    ended = [event for event in here.events if isinstance(event, MembershipEnded)]
    assert [(event.user_id, event.username) for event in ended] == [("idcarol", "carol")]
    assert "idcarol" not in here.attendance.online(room.room_id)


async def test_own_removals_are_not_told_again(here: RoomsWorld) -> None:
    await here.create("alice", "lobby")
    repair = here.repair()
    await repair.check()
    here.events.clear()
    await here.directory.remove_member("lobby", "alice")
    await repair.check()
    assert len([event for event in here.events if isinstance(event, MembershipEnded)]) == 1


async def test_after_a_loss_edges_say_who_is_here_twice(here: RoomsWorld) -> None:
    stream, repair = here.stream(), here.repair()
    asked = []
    for wait_s in (0.0, ASK_INTERVAL_S, ANNOUNCE_RACE_S, ASK_INTERVAL_S):
        await here.clock.advance(wait_s)
        if wait_s == 0.0:
            here.bus.deliver(Lost())
        await repair.check()
        parcel = stream.take()
        asked.append(parcel is not None and parcel.asks_who_is_here)
    assert asked == [True, False, True, False]


async def test_rooms_that_others_made_are_counted(here: RoomsWorld, there: RoomsWorld) -> None:
    repair = here.repair()
    await here.create("alice", "lobby")
    await there.create("bob", "den")
    await repair.check()
    assert here.counts.room_count == 1
    await here.clock.advance(10.0)
    await repair.check()
    assert here.counts.room_count == 2


async def test_while_the_bus_is_down_edges_are_asked_again_and_again(
    here: RoomsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, repair = here.stream(), here.repair()
    asked = []
    for is_up in (True, False, False, False, True):
        monkeypatch.setattr(here.bus, "is_up", is_up, raising=False)
        await repair.check()
        parcel = stream.take()
        asked.append(parcel is not None and parcel.asks_who_is_here)
        await here.clock.advance(ASK_INTERVAL_S / 2)
    assert asked == [False, True, False, True, False]


async def test_old_endings_are_forgotten_but_for_the_newest(here: RoomsWorld) -> None:
    room = await here.create("alice", "lobby")
    for name in ("bob", "carol"):
        await here.join(name, room)
        await here.leave(name, room)
    here.repair().start(here.tasks, is_shared=False)
    await here.clock.wait_for_sleepers()
    await here.clock.advance(24 * 3_600.0)
    await until(lambda: here.database is not None)
    await here.database.write(lambda _connection: None)
    rows = await here.database.read(lambda c: c.exec_driver_sql("SELECT username FROM endings").all())
    assert [row[0] for row in rows] == ["carol"]
