"""Resume and takeover over a real stack of two edges, one of which is killed while everybody talks."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.people import People, fresh
from tests.helpers.stack import FAST_CONFIG, Stack, running_stack
from tests.helpers.talkers import PASSWORD, Talker, nothing_was_lost_or_doubled, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.helpers.raw_client import Frame, RawClient


@pytest.fixture(scope="module")
def two_edges() -> Iterator[Stack]:
    with running_stack(edges=2, config=f"{FAST_CONFIG}\n[edge]\ntext_rate = 0\n") as running:
        yield running


@pytest.fixture
async def crowd(two_edges: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(two_edges, exits)


async def resume(client: RawClient, token: str, room_id: str, epoch: str, seq: int) -> tuple[Frame, Frame]:
    """The whole answer, and what it says of the room."""
    answer = await client.expect("resume", {"token": token, "rooms": {room_id: {"epoch": epoch, "seq": seq}}})
    [room] = [room for room in answer["rooms"] if room["room_id"] == room_id]
    return answer, room


async def say_all(client: RawClient, room_id: str, count: int) -> None:
    for number in range(count):
        await client.send("text_message", {"text": f"text {number}"}, room_id=room_id, id=f"t{number}")
    for number in range(count):
        reply = await client.wait_for(lambda frame, own=f"t{number}": frame.get("re") == own)
        assert reply["type"] == "success", reply
    client.events.clear()


@pytest.mark.parametrize(("behind", "recovered"), [(1_000, True), (1_001, False)])
async def test_a_thousand_missed_messages_are_replayed_on_the_other_edge_and_no_more(
    crowd: People, behind: int, recovered: bool
) -> None:
    alice, name = await crowd.person(), fresh()
    bob = await crowd.connect()
    token = (await bob.enter(name))["token"]
    room_id = await crowd.room(alice, bob)
    epoch = (await alice.expect("history", {}, room_id=room_id))["epoch"]
    bob.abort()
    await say_all(alice, room_id, behind)
    back = await crowd.connect(edge=2)
    _, room = await resume(back, token, room_id, epoch, 0)
    assert (room["recovered"], room["replay"], room["last_seq"]) == (recovered, behind if recovered else 0, behind)
    await alice.say(room_id, "live")
    missed = await back.messages(room_id, behind + 1 if recovered else 1)
    assert [one["seq"] for one in missed] == list(range(1 if recovered else behind + 1, behind + 2))


async def test_the_old_token_is_good_until_the_new_one_is_used(crowd: People) -> None:
    name = fresh()
    first = await crowd.connect()
    token = (await first.enter(name))["token"]
    room = await first.expect("create_room", {"name": fresh("room")})
    position = (room["room_id"], room["epoch"], 0)
    second = await crowd.connect(edge=2)  # while the first connection lives, on another edge
    answer, _ = await resume(second, token, *position)
    assert (await first.event("goodbye"))["data"]["reason"] == "replaced"
    third = await crowd.connect()
    again, _ = await resume(third, token, *position)  # as if the answer before had been lost
    assert (await second.event("goodbye"))["data"]["reason"] == "replaced"
    fourth = await crowd.connect(edge=2)
    assert await fourth.refused("resume", {"token": answer["token"], "rooms": {}}) == "bad_token"
    newest, _ = await resume(fourth, again["token"], *position)
    fifth = await crowd.connect()
    assert await fifth.refused("resume", {"token": token, "rooms": {}}) == "bad_token"
    await fourth.expect("logout")
    assert await fifth.refused("resume", {"token": newest["token"], "rooms": {}}) == "bad_token"
    await fifth.login(name)


async def test_of_racing_resumes_one_connection_stays(crowd: People) -> None:
    name = fresh()
    first = await crowd.connect()
    token = (await first.enter(name))["token"]
    racers = [await crowd.connect(edge=1 + number % 2) for number in range(6)]
    replies = await asyncio.gather(*(racer.request("resume", {"token": token, "rooms": {}}) for racer in racers))
    assert all(reply["data"]["success"] or reply["data"]["code"] == "bad_token" for reply in replies)
    closed = await asyncio.gather(*(racer.is_closed(5.0) for racer in racers))
    assert sum(closed) == 5
    survivor = racers[closed.index(False)]
    await survivor.expect("create_room", {"name": fresh("room")})


async def test_a_takeover_ends_the_other_connection_at_once(crowd: People) -> None:
    name = fresh()
    first = await crowd.connect()
    token = (await first.enter(name))["token"]
    second = await crowd.connect(edge=2)
    credentials = {"username": name, "password": PASSWORD}
    assert await second.refused("auth_request", credentials) == "already_logged_in"
    await second.expect("auth_request", {**credentials, "takeover": True})
    assert (await first.event("goodbye", timeout_s=5.0))["data"]["reason"] == "replaced"
    assert await first.is_closed()
    third = await crowd.connect()
    assert await third.refused("resume", {"token": token, "rooms": {}}) == "bad_token"


async def test_killing_the_edge_under_load_loses_and_doubles_nothing(
    two_edges: Stack, crowd: People, tmp_path: Path
) -> None:
    talkers = [Talker(two_edges, tmp_path) for _ in range(5)]
    for talker in talkers:
        await talker.arrive()
    room_id = (await talkers[0].session.create_room(fresh("room"))).room_id
    for talker in talkers[1:]:
        await talker.session.join_room(room_id)
    stop = asyncio.Event()
    talks = [asyncio.create_task(talker.talk(room_id, stop)) for talker in talkers]
    for _ in range(2):
        await asyncio.sleep(0.5)  # of talk
        os.kill(two_edges.pids()["edge-1"], signal.SIGKILL)
        await until(lambda: all(talker.session.state != "live" for talker in talkers))
        await until(lambda: all(talker.session.state == "live" for talker in talkers))
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*talks)
    await nothing_was_lost_or_doubled(talkers, await crowd.person(edge=2), room_id)
    resumed = [event for event in two_edges.log_events() if event["event"] == "resumed"]
    assert len(resumed) >= 2 * len(talkers)


async def test_a_rolling_restart_under_load_shows_nobody_an_error(tmp_path: Path) -> None:
    config = f"{FAST_CONFIG}\n[edge]\ntext_rate = 0\n"
    with running_stack(edges=2, config=config) as stack:
        async with AsyncExitStack() as exits:
            talkers = [Talker(stack, tmp_path, ports=[stack.port, stack.port + 1]) for _ in range(4)]
            for talker in talkers:
                await talker.arrive()
            room_id = (await talkers[0].session.create_room(fresh("room"))).room_id
            for talker in talkers[1:]:
                await talker.session.join_room(room_id)
            stop = asyncio.Event()
            talks = [asyncio.create_task(talker.talk(room_id, stop)) for talker in talkers]
            before = stack.pids()
            assert stack.process is not None
            os.kill(stack.process.pid, signal.SIGUSR1)
            async with asyncio.timeout(120):
                while not any("all processes are restarted" in line for line in stack.output):
                    assert not any("given up" in line for line in stack.output)
                    await asyncio.sleep(0.05)
            assert not set(before.values()) & set(stack.pids().values())
            await until(lambda: all(talker.session.state == "live" for talker in talkers))
            stop.set()
            await asyncio.gather(*talks)
            other = await People(stack, exits).person(edge=2)
            await nothing_was_lost_or_doubled(talkers, other, room_id)
