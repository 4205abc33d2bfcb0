"""Two served instances on one PostgreSQL and one Redis: whatever Redis does, what one stores the other's edges see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from parley.rooms.v1 import rooms_pb2
from structlog.testing import capture_logs

from tests.chaos.nemesis.proxy import Proxy
from tests.helpers.served_rooms import Edge, Feed, ServedRooms, serve_rooms, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.helpers.redis_server import RedisServer

ROUNDS = 5
# What Parley promises is 2 s; a machine that runs other tests may take its time now and then, but not as a rule.
LATE_S = 2.0


@dataclass
class Together:
    """An edge of each instance, both with an open stream, and the proxy through which the instances reach Redis."""

    redis: RedisServer
    proxy: Proxy
    instances: list[ServedRooms]
    edges: list[Edge]
    feeds: list[Feed]


@contextlib.asynccontextmanager
async def served_together(folder: Path, url: str, redis: RedisServer) -> AsyncIterator[Together]:
    async with contextlib.AsyncExitStack() as exits:
        proxy = await Proxy(lambda: ("127.0.0.1", redis.port)).start()
        exits.push_async_callback(proxy.close)
        together = Together(redis, proxy, [], [], [])
        for number in (1, 2):
            (home := folder / f"home{number}").mkdir()
            settings = {"database_url": url, "redis_url": f"redis://127.0.0.1:{proxy.port}/0"}
            served = await exits.enter_async_context(serve_rooms(home, **settings))
            edge = await served.edge(f"edge-{number}", f"boot{number}")
            together.instances.append(served)
            together.edges.append(edge)
            together.feeds.append(await exits.enter_async_context(edge.attach()))
        yield together


@pytest.fixture
async def together(tmp_path: Path, postgres_url: str, own_redis: RedisServer) -> AsyncIterator[Together]:
    with capture_logs() as logs:
        async with served_together(tmp_path, postgres_url, own_redis) as made:
            yield made
    assert not [line for line in logs if line["log_level"] in {"error", "critical"}]


async def shared_room(together: Together) -> rooms_pb2.Room:
    """A room of alice at the first edge and bob at the second, followed by both."""
    here, there = together.edges
    room = await here.create("alice", "lobby")
    await there.join("bob", "lobby")
    for feed in together.feeds:
        await feed.follow(room)
    return room


async def exchange(together: Together, room: rooms_pb2.Room, *, after: int = 0) -> tuple[list[float], list[float]]:
    """Texts from each side in turn: how long each took to be acknowledged, and to come to the other side."""
    acknowledged, arrived = [], []
    for number in range(ROUNDS):
        index = number % 2
        began = time.monotonic()
        [result] = await together.feeds[index].say(("alice", "bob")[index], room.room_id, f"text {after + number}")
        acknowledged.append(time.monotonic() - began)
        assert result.seq == after + number + 1
        await together.feeds[1 - index].until_seq(room, result.seq)
        arrived.append(time.monotonic() - began)
    return acknowledged, arrived


async def test_what_one_stores_the_other_shows_at_once(together: Together) -> None:
    room = await shared_room(together)
    await exchange(together, room)
    _, arrived = await exchange(together, room, after=ROUNDS)
    assert statistics.median(arrived) < 0.5  # woken, and not found by the look that is taken every second


@contextlib.contextmanager
def killed(together: Together) -> Iterator[None]:
    together.redis.kill()
    yield
    together.redis.start()


@contextlib.contextmanager
def frozen(together: Together) -> Iterator[None]:
    os.kill(together.redis.pid, signal.SIGSTOP)
    yield
    os.kill(together.redis.pid, signal.SIGCONT)


@contextlib.contextmanager
def partitioned(together: Together) -> Iterator[None]:
    together.proxy.swallow(on=True)
    yield
    together.proxy.swallow(on=False)


@contextlib.contextmanager
def reset(together: Together) -> Iterator[None]:
    together.proxy.is_refusing = True
    together.proxy.cut(reset=True)
    yield
    together.proxy.is_refusing = False


@contextlib.contextmanager
def flushed(together: Together) -> Iterator[None]:
    together.redis.flush()
    yield


@pytest.mark.parametrize("fault", [killed, frozen, partitioned, reset, flushed])
async def test_without_redis_it_is_slower_and_nothing_is_lost(
    together: Together, fault: Callable[[Together], contextlib.AbstractContextManager[None]]
) -> None:
    room = await shared_room(together)
    await exchange(together, room)
    with fault(together):
        acknowledged, arrived = await exchange(together, room, after=ROUNDS)
        assert statistics.median(acknowledged) < 0.5  # no writer waits for Redis
        assert statistics.median(arrived) < LATE_S
        print(f"Redis {fault.__name__}: at the other instance within {max(arrived):.2f} s")  # pytest -s
        # Who comes while nobody tells anybody is known to the others by what their edges say when asked.
        carol = together.edges[0].session("carol")
        await together.edges[0].join("carol", "lobby")
    await exchange(together, room, after=2 * ROUNDS)
    await until_online(together, {"alice", "bob", carol.username})
    _, arrived = await exchange(together, room, after=3 * ROUNDS)
    for feed in together.feeds:
        await feed.until_seq(room, 4 * ROUNDS)  # who has sent the last one is told of it before it is shown
        assert feed.seqs(room) == list(range(1, 4 * ROUNDS + 1))


async def until_online(together: Together, expected: set[str]) -> None:
    """Both instances know who is here."""
    async with asyncio.timeout(40):
        for edge in together.edges:
            while await online(edge) != expected:  # noqa: ASYNC110 - it is asked for
                await asyncio.sleep(0.1)


async def online(edge: Edge) -> set[str]:
    answer = await edge.rooms.ListMembers(rooms_pb2.ListMembersRequest(user_id=user_id("alice"), room="lobby"))
    return {member.username for member in answer.members if member.online}


async def test_both_know_who_is_here(together: Together) -> None:
    await shared_room(together)
    await until_online(together, {"alice", "bob"})
