"""The real HAProxy, with the configuration that is shipped, in front of two edges."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.haproxy import HAProxy, haproxy_before
from tests.helpers.people import fresh
from tests.helpers.raw_client import ClosedError, RawClient
from tests.helpers.stack import FAST_CONFIG, Stack, eventually, parley, running_stack
from tests.helpers.talkers import Talker, nothing_was_lost_or_doubled, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CONFIG = f"""{FAST_CONFIG}
[edge]
proxy_networks = ["127.0.0.1"]
anonymous_per_address_max = 3
text_rate = 0
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=2, config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def haproxy(stack: Stack) -> Iterator[HAProxy]:
    with haproxy_before(stack) as running:
        yield running


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def come(haproxy: HAProxy, stack: Stack, exits: AsyncExitStack, source: str) -> RawClient:
    client = await RawClient.connect("127.0.0.1", haproxy.port, stack.ca, source=source)
    return await exits.enter_async_context(client)


async def admin(stack: Stack, *arguments: str) -> Any:
    def run() -> str:
        command = parley("admin", "--home", str(stack.home), "--json", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    return json.loads(await asyncio.to_thread(run))


async def test_people_talk_through_it_and_are_known_by_their_own_addresses(
    stack: Stack, haproxy: HAProxy, exits: AsyncExitStack
) -> None:
    people = [await come(haproxy, stack, exits, f"127.0.0.{20 + number}") for number in range(4)]
    names = [fresh() for _ in people]
    for person, name in zip(people, names, strict=True):
        await person.enter(name)
    room_id = (await people[0].expect("create_room", {"name": fresh("room")}))["room_id"]
    for person in people[1:]:
        await person.expect("join_room", room_id=room_id)
    seq = (await people[0].say(room_id, "hello"))["seq"]
    for person in people:
        assert (await person.messages(room_id, 1))[0]["seq"] == seq

    shown = {one["username"]: one for one in await admin(stack, "connections")}
    assert [shown[name]["address"] for name in names] == [f"127.0.0.{20 + number}" for number in range(4)]
    assert {shown[name]["edge"] for name in names} == {"edge-1", "edge-2"}  # the one with the fewest is next
    registered = [line["address"] for line in stack.log_events() if line["event"] == "account registered"]
    assert registered[-4:] == [f"127.0.0.{20 + number}" for number in range(4)]


async def test_limits_are_the_clients_own(stack: Stack, haproxy: HAProxy, exits: AsyncExitStack) -> None:
    """Three of an address may be at an edge without a login; the balancer's checks are not among them."""
    crowd = [await come(haproxy, stack, exits, f"127.0.0.{40 + number}") for number in range(10)]
    same = [await come(haproxy, stack, exits, "127.0.0.60") for _ in range(8)]
    for person in crowd:
        assert (await person.request("heartbeat"))["type"] == "heartbeat"
    reading = [asyncio.create_task(person.is_closed(60)) for person in same]
    await until(lambda: sum(task.done() for task in reading) >= 2)
    left = [person for person, task in zip(same, reading, strict=True) if not task.done()]
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    assert left
    for person in left:
        assert (await person.request("heartbeat"))["type"] == "heartbeat"


async def test_nobody_comes_past_it_from_its_address(stack: Stack, haproxy: HAProxy) -> None:
    assert haproxy.edges_up()
    with pytest.raises((OSError, ClosedError)):
        await RawClient.connect("127.0.0.1", stack.port, stack.ca)
    async with await RawClient.connect("127.0.0.1", stack.port, stack.ca, source="127.0.0.2") as client:
        assert (await client.request("heartbeat"))["type"] == "heartbeat"
    wanted = "from 127.0.0.1, which is in proxy_networks: there is no header"
    await until(lambda: wanted in stack.log_text())  # which is said at most every ten seconds


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_clients_of_an_edge_that_dies_or_freezes_come_back_on_the_other(
    stack: Stack, haproxy: HAProxy, exits: AsyncExitStack, tmp_path: Path, fault: signal.Signals
) -> None:
    # HAProxy takes a while to notice that an edge is dead, and an edge to come back: it must be there itself, too.
    await asyncio.to_thread(eventually, lambda: stack.serves("edge-1"), timeout_s=60, why="edge-1 does not serve")
    haproxy.wait_until_up("edge-1", "edge-2")
    talkers = [Talker(stack, tmp_path, ports=[haproxy.port]) for _ in range(4)]
    for talker in talkers:
        await talker.arrive()
    room_id = (await talkers[0].session.create_room(fresh("room"))).room_id
    for talker in talkers[1:]:
        await talker.session.join_room(room_id)
    stop = asyncio.Event()
    talks = [asyncio.create_task(talker.talk(room_id, stop)) for talker in talkers]
    before = {one["username"]: one["edge"] for one in await admin(stack, "connections")}
    theirs = [talker for talker in talkers if before[talker.name] == "edge-1"]
    assert 0 < len(theirs) < len(talkers)
    pid = stack.pids()["edge-1"]
    os.kill(pid, fault)
    try:
        # Each for itself: the first may be back before the last has noticed.
        await asyncio.gather(*(until(lambda one=one: one.session.state != "live") for one in theirs))
        await until(lambda: all(talker.session.state == "live" for talker in talkers))
        said = len(talkers[0].posted[room_id])
        await until(lambda: len(talkers[0].posted[room_id]) > said + 10)
        stop.set()
        await asyncio.gather(*talks)
        other = await exits.enter_async_context(await RawClient.connect("127.0.0.1", haproxy.port, stack.ca))
        await other.enter(fresh())
        await nothing_was_lost_or_doubled(talkers, other, room_id)
    finally:
        if fault == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
