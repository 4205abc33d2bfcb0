"""Two edges and two rooms instances on one PostgreSQL and one Redis: one place to chat, whatever of it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.many_stack import Many, running_many
from tests.helpers.people import AGAIN_S, People, fresh
from tests.helpers.stack import FAST_CONFIG
from tests.helpers.talkers import Talker, everything_of, nothing_was_lost_or_doubled, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.helpers.raw_client import Frame, RawClient

# With so many, each instance has some of them: that one of two gets none happens once in 2,000 runs.
ROOM_COUNT = 12
# Presence that nobody tells: the grace period of an edge or a lease, a look at what is due, and a busy machine.
NOTICED_S = 25.0
# Parley promises 5 s; on a machine that is busy with tests a process alone may take longer to start.
ACKNOWLEDGED_S = 30.0


@pytest.fixture(scope="module")
def many() -> Iterator[Many]:
    with running_many(f"{FAST_CONFIG}\n[edge]\ntext_rate = 0\n") as running:
        yield running


@pytest.fixture
async def crowd(many: Many) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        people = People(many.stack, exits)
        await people.heal(NOTICED_S)
        yield people


async def online(client: RawClient, room_id: str) -> set[str]:
    members = (await client.expect("user_list", room_id=room_id))["members"]
    return {member["username"] for member in members if member["online"]}


async def until_online(client: RawClient, room_id: str, expected: set[str]) -> None:
    async with asyncio.timeout(NOTICED_S):
        while await online(client, room_id) != expected:  # noqa: ASYNC110 - it is asked for
            await asyncio.sleep(AGAIN_S)


async def test_people_of_different_edges_and_instances_are_in_one_place(many: Many, crowd: People) -> None:
    names = sorted(process for process in many.stack.processes() if process.startswith("rooms"))
    assert names == ["rooms-1", "rooms-2"]
    alice, bob = await crowd.person(edge=1), await crowd.person(edge=2)
    rooms = [await crowd.room(alice, bob) for _ in range(ROOM_COUNT)]
    for number in range(5):
        for room_id in rooms:
            speaker = (alice, bob)[number % 2]
            assert (await speaker.say(room_id, f"text {number}"))["seq"] == number + 1
    for person in (alice, bob):
        for room_id in rooms:
            found = await person.messages(room_id, 5)
            assert [(one["seq"], one["text"]) for one in found] == [(n + 1, f"text {n}") for n in range(5)]
            assert [one["text"] for one in await everything_of(person, room_id)] == [f"text {n}" for n in range(5)]
            await until_online(person, room_id, {alice.username, bob.username})
    used = {event["instance"] for event in many.stack.log_events() if event["event"] == "rooms moved"}
    assert len(used) == 2


async def test_who_comes_and_goes_is_seen_on_every_edge(many: Many, crowd: People) -> None:
    alice, bob = await crowd.person(edge=1), await crowd.person(edge=2)
    rooms = [await crowd.room(alice, bob) for _ in range(ROOM_COUNT)]
    name, everyone = fresh(), {alice.username, bob.username}
    for edge in (1, 2):
        carol = await crowd.connect(edge=edge)
        await carol.enter(name) if edge == 1 else await carol.login(name)
        for room_id in rooms:
            await carol.expect("join_room", room_id=room_id)
        for person in (alice, bob):
            for room_id in rooms:
                await until_online(person, room_id, everyone | {name})
        carol.abort()
        for person in (alice, bob):
            for room_id in rooms:
                await until_online(person, room_id, everyone)


async def test_the_people_of_a_killed_edge_are_gone_and_others_are_not(many: Many, crowd: People) -> None:
    alice = await crowd.person(edge=1)
    bob = await crowd.person(edge=2)
    rooms = [await crowd.room(alice, bob) for _ in range(ROOM_COUNT)]
    for room_id in rooms:
        await until_online(alice, room_id, {alice.username, bob.username})
    await asyncio.to_thread(many.stack.kill, "edge-2")
    for room_id in rooms:
        await until_online(alice, room_id, {alice.username})


async def test_presence_is_right_again_after_redis_was_away(many: Many, crowd: People) -> None:
    alice, bob = await crowd.person(edge=1), await crowd.person(edge=2)
    rooms = [await crowd.room(alice, bob) for _ in range(ROOM_COUNT)]
    many.redis.kill()
    try:
        carol = await crowd.person(edge=2)  # of whom one instance hears from the edge, and the other from nobody
        for room_id in rooms:
            await carol.expect("join_room", room_id=room_id)
        bob.abort()
    finally:
        many.redis.start()
    for room_id in rooms:
        await until_online(alice, room_id, {alice.username, carol.username})
        await until_online(carol, room_id, {alice.username, carol.username})


async def kill_rooms(many: Many) -> None:
    for name in ("rooms-1", "rooms-2"):
        await asyncio.to_thread(many.stack.kill, name)


async def kill_all_rooms(many: Many) -> None:
    pids = many.stack.pids()
    for name in ("rooms-1", "rooms-2"):
        os.kill(pids[name], signal.SIGKILL)
    await until(lambda: all(many.stack.pids()[name] != pids[name] for name in ("rooms-1", "rooms-2")))


async def restart_redis(many: Many) -> None:
    many.redis.kill()
    await asyncio.sleep(1.0)  # of talk
    many.redis.start()


async def freeze_redis(many: Many) -> None:
    os.kill(many.redis.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(3.0)  # of talk, which is longer than it takes to notice
    finally:
        os.kill(many.redis.pid, signal.SIGCONT)


async def flush_redis(many: Many) -> None:
    many.redis.flush()


async def restart_postgres(many: Many) -> None:
    await asyncio.to_thread(many.postgres.kill)
    await asyncio.sleep(0.5)  # of talk
    await asyncio.to_thread(many.postgres.start)


@pytest.mark.parametrize(
    "fault", [kill_rooms, kill_all_rooms, restart_redis, freeze_redis, flush_redis, restart_postgres]
)
async def test_whatever_dies_under_load_nothing_is_lost_or_out_of_order(
    many: Many, crowd: People, tmp_path: Path, fault: Callable[[Many], Awaitable[None]]
) -> None:
    talkers = [Talker(many.stack, tmp_path, ports=[many.stack.port + number % 2]) for number in range(4)]
    for talker in talkers:
        await talker.arrive()
    rooms = [(await talkers[0].session.create_room(fresh("room"))).room_id for _ in range(4)]
    for talker in talkers[1:]:
        for room_id in rooms:
            await talker.session.join_room(room_id)
    alice, bob = await crowd.person(edge=1), await crowd.person(edge=2)
    probed = [await crowd.room(alice, bob) for _ in range(ROOM_COUNT)]
    stop = asyncio.Event()
    talks = [asyncio.create_task(talker.talk(room_id, stop, pause_s=0.1)) for talker in talkers for room_id in rooms]
    await asyncio.sleep(0.5)  # of talk
    await fault(many)
    for room_id in probed:
        await acknowledged_again(alice, room_id)
    await asyncio.sleep(0.5)  # of talk
    stop.set()
    await asyncio.gather(*talks)
    await nothing_was_lost_or_doubled(talkers, bob, *rooms)
    defects = {"task failed", "listener of the bus failed", "listener of a redis channel failed", "rpc failed"}
    assert not [event for event in many.stack.log_events() if event["event"] in defects]


async def acknowledged_again(person: RawClient, room_id: str) -> Frame:
    """Sends until it is acknowledged, which must not take long."""
    key = fresh("key")
    async with asyncio.timeout(ACKNOWLEDGED_S):
        while True:
            reply = await person.request("text_message", {"text": "probe", "key": key}, room_id=room_id)
            if reply["type"] == "success":
                return reply
            assert reply["data"]["code"] in {"unavailable", "overloaded", "unknown_outcome"}, reply
            await asyncio.sleep(AGAIN_S)
