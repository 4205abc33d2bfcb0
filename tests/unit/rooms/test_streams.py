"""Who follows what: events reach the streams that want them, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.rooms.bus import MembershipEnded, PresenceChanged
from services.rooms.messages import Message, Run
from services.rooms.presence import Action, Change
from tests.helpers.rooms_world import RoomsWorld, rooms_world, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        yield made


async def test_presence_goes_to_followers(world: RoomsWorld) -> None:
    one, two = world.stream(), world.stream(boot_id="boot-2")
    world.streams.follow(one, "r", "e", 0)
    world.streams.follow(two, "q", "e", 0)
    in_r, in_q = Change("r", Action.ONLINE, "a", 1), Change("q", Action.ONLINE, "b", 1)
    world.bus.deliver(PresenceChanged([in_r, in_q, Change("elsewhere", Action.ONLINE, "c", 1)]))
    for stream, change in ((one, in_r), (two, in_q)):
        parcel = stream.take()
        assert parcel is not None
        assert parcel.changes == [change]


async def test_the_end_of_a_membership_goes_to_everyone_else(world: RoomsWorld) -> None:
    one, two = world.stream(), world.stream(boot_id="boot-2")
    for event in (MembershipEnded("r", "u", 1, except_boot_id="boot-1"), MembershipEnded("r", "v", 2)):
        world.bus.deliver(event)
    parcels = [stream.take() for stream in (one, two)]
    assert [[ended.user_id for ended in parcel.ended] for parcel in parcels if parcel] == [["v"], ["u", "v"]]


async def test_a_run_is_encoded_once_and_only_when_wanted(world: RoomsWorld) -> None:
    encoded = []
    encode = world.streams._encode
    world.streams._encode = lambda run: encoded.append(run) or encode(run)  # type: ignore[func-returns-value]
    room = await world.create("alice", "lobby")
    await world.say("alice", room, "unheard")
    assert encoded == []
    streams = [world.stream(), world.stream(boot_id="boot-2")]
    for stream in streams:
        world.streams.follow(stream, room.room_id, room.epoch, 1)
    await until(lambda: all(stream.follows[room.room_id].is_live for stream in streams))
    await world.say("alice", room, "heard")
    assert len(encoded) == 1


async def test_a_known_head_saves_reading(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    first = world.stream()
    world.streams.follow(first, room.room_id, room.epoch, 0)
    await until(lambda: first.follows[room.room_id].is_live)
    await world.say("alice", room, "x")
    second = world.stream(boot_id="boot-2")
    world.streams.follow(second, room.room_id, room.epoch, 1)
    assert second.follows[room.room_id].is_live
    third = world.stream(boot_id="boot-3")
    world.streams.follow(third, room.room_id, room.epoch, 2)  # it knows more than the bus has said so far
    assert not third.follows[room.room_id].is_resolved
    for stream in (first, second, third):
        world.streams.discard(stream)
    assert len(world.streams) == 0
    assert world.streams._followers == {}
    assert world.streams._heads == {}


async def test_a_new_stream_of_a_boot_stops_the_one_before(world: RoomsWorld) -> None:
    old = world.stream()
    other = world.stream(boot_id="boot-2")
    new = world.stream()
    assert old.stopped.is_set()
    assert not other.stopped.is_set()
    world.streams.discard(old)
    newest = world.stream()
    assert new.stopped.is_set()
    assert not newest.stopped.is_set()
    for stream in (newest, new, other):  # the newer one may end first
        world.streams.discard(stream)
    assert len(world.streams) == 0


async def test_stopping_stops_all(world: RoomsWorld) -> None:
    streams = [world.stream(), world.stream(boot_id="boot-2")]
    assert not world.streams.is_stopping
    world.streams.stop()
    assert world.streams.is_stopping
    assert all(stream.stopped.is_set() for stream in streams)


async def test_a_run_of_a_room_that_nobody_follows_is_nothing(world: RoomsWorld) -> None:
    stream = world.stream()
    world.bus.publish(Run("r", "e", [Message(1, "u", "n", "t", 1)]))
    assert stream.take() is None
