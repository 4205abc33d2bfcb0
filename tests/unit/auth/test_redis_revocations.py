"""Revocations between instances over a real Redis: heard by all, and asked for where one may have been missed."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import redis
from structlog.testing import capture_logs

from services.auth.redis_revocations import CHANNEL, LEASE_WHILE_ALONE_S, RedisRevocations
from services.auth.revocations import EdgeBoot, EndedSession, EndReason, Revocation
from services.common.clock import SystemClock
from services.common.redis_client import RedisAccess, RedisClient
from services.common.tasks import TaskSet
from tests.helpers.auth_world import until
from tests.helpers.redis_server import be_patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.helpers.redis_server import RedisServer

    Make = Callable[[], Awaitable[RedisRevocations]]

EDGE, OTHER = EdgeBoot("edge-1", "boot-a"), EdgeBoot("edge-2", "boot-b")
WAIT_S = 20.0


@pytest.fixture
async def instance(
    request: pytest.FixtureRequest, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """Makes instances that share one Redis and hear each other."""
    if "frozen" not in request.node.name:
        be_patient(monkeypatch)
    async with AsyncExitStack() as exits:

        async def make() -> RedisRevocations:
            access = RedisAccess(url=own_redis.url)
            client, tasks = RedisClient(access, clock=SystemClock()), TaskSet()
            exits.push_async_callback(client.close)
            exits.push_async_callback(tasks.close)
            made = RedisRevocations(client, access, clock=SystemClock())
            client.start(tasks)
            made.start(tasks)
            await until(lambda: made.lease_s_max == float("inf"))
            return made

        yield make


def ended(session_id: str, edge: EdgeBoot = EDGE) -> EndedSession:
    return EndedSession(session_id, edge)


async def test_the_edges_of_all_instances_hear_of_an_end(instance: Make) -> None:
    one, two = await instance(), await instance()
    here, there, other = one.subscribe(EDGE), two.subscribe(EDGE), two.subscribe(OTHER)
    one.publish([ended("s1")], EndReason.REVOKED)
    one.publish([ended("s2"), ended("s3", OTHER)], EndReason.REPLACED)
    expected = [Revocation("s1", EndReason.REVOKED), Revocation("s2", EndReason.REPLACED)]
    async with asyncio.timeout(WAIT_S):
        assert await here.read() == expected
        heard: list[Revocation] = []
        while len(heard) < 2:
            heard += await there.read()
        assert heard == expected
        assert await other.read() == [Revocation("s3", EndReason.REPLACED)]
        two.publish([ended("s4")], EndReason.REVOKED)
        assert await here.read() == [Revocation("s4", EndReason.REVOKED)]
        assert await there.read() == [Revocation("s4", EndReason.REVOKED)]  # once, and not its own echo
        two.publish([ended("s5")], EndReason.REVOKED)
        assert await there.read() == [Revocation("s5", EndReason.REVOKED)]


async def test_many_ends_go_in_bounded_messages(instance: Make) -> None:
    one, two = await instance(), await instance()
    there = two.subscribe(EDGE)
    one.publish([ended(f"s{number}") for number in range(2_500)], EndReason.REVOKED)
    heard: list[Revocation] = []
    async with asyncio.timeout(WAIT_S):
        while len(heard) < 2_500:
            heard += await there.read()
    assert [one.session_id for one in heard] == [f"s{number}" for number in range(2_500)]


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_when_redis_is_lost_edges_ask_and_go_on_asking_more_often(
    instance: Make, own_redis: RedisServer, fault: str
) -> None:
    one = await instance()
    stream = one.subscribe(EDGE)
    if fault == "killed":
        own_redis.kill()
    else:
        os.kill(own_redis.pid, signal.SIGSTOP)
    async with asyncio.timeout(WAIT_S):
        assert await stream.read() == []  # closed: the edge opens another, and asks
    assert one.lease_s_max == LEASE_WHILE_ALONE_S
    again = one.subscribe(EDGE)
    one.publish([ended("s1")], EndReason.REVOKED)
    async with asyncio.timeout(WAIT_S):
        assert await again.read() == [Revocation("s1", EndReason.REVOKED)]  # its own edges hear it at once
        if fault == "killed":
            own_redis.start()
        else:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert await again.read() == []  # once more, because the others may have said something meanwhile
    assert one.lease_s_max == float("inf")


async def test_nonsense_on_the_channel_is_ignored(instance: Make, own_redis: RedisServer) -> None:
    one, two = await instance(), await instance()
    there = two.subscribe(EDGE)
    client = redis.Redis(host=own_redis.host, port=own_redis.port)
    with capture_logs() as logs:
        for nonsense in (b"", b"{}", b"\xff", b"[" * 5_000, b'["x","revoked",[["a","b"]]]', b'["x","who knows",[]]'):
            client.publish(f"parley:0:{CHANNEL}", nonsense)
        one.publish([ended("s1")], EndReason.REVOKED)
        async with asyncio.timeout(WAIT_S):
            assert await there.read() == [Revocation("s1", EndReason.REVOKED)]
        await until(lambda: len(logs) >= 12)
    client.close()
    assert len([line for line in logs if "is not understood" in line["event"]]) == 12  # by both


async def test_what_waits_for_redis_is_bounded(instance: Make, own_redis: RedisServer) -> None:
    one = await instance()
    own_redis.kill()
    for number in range(1_500):
        one.publish([ended(f"s{number}")], EndReason.REVOKED)
    assert len(one._waiting) == 1_000
