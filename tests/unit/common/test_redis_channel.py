"""A channel of Redis says when it is in place, each time, and notices every way in which it can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Connection
from structlog.testing import capture_logs

from services.common import redis_channel
from services.common.clock import SystemClock
from services.common.redis_channel import SILENCE_S, RedisChannel
from services.common.redis_client import RedisAccess, RedisClient
from services.common.tasks import TaskSet
from tests.helpers.auth_world import until
from tests.helpers.redis_server import PATIENCE_S, be_patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.redis_server import RedisServer


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


class Ear:
    """Listens to the channel `news`, and remembers."""

    def __init__(self, server: RedisServer) -> None:
        access = RedisAccess(url=server.url)
        self.heard: list[bytes] = []
        self.subscribed_count = 0
        self.client = RedisClient(access, clock=SystemClock())
        self.channel = RedisChannel(
            access, "news", clock=SystemClock(), on_message=self._hear, on_subscribed=self._count
        )

    def _hear(self, message: bytes) -> None:
        self.heard.append(message)
        if message == b"poison":
            raise AssertionError("a listener's defect")

    def _count(self) -> None:
        self.subscribed_count += 1

    async def is_subscribed(self, times: int) -> None:
        await until(lambda: self.subscribed_count >= times and self.channel.is_up)

    async def say(self, *messages: bytes) -> None:
        await self.client.execute_all([("PUBLISH", "news", message) for message in messages])
        await until(lambda: messages[-1] in self.heard)


@contextlib.asynccontextmanager
async def listening(server: RedisServer) -> AsyncIterator[Ear]:
    tasks, ear = TaskSet(), Ear(server)
    with capture_logs():
        ear.channel.start(tasks)
        yield ear
        await tasks.close()
        await ear.client.close()


async def test_messages_are_heard_in_order(own_redis: RedisServer) -> None:
    async with listening(own_redis) as ear:
        await ear.is_subscribed(1)
        messages = [b"%d" % number for number in range(500)] + [b"\x00" * 300_000, b"last"]
        await ear.say(*messages)
        assert ear.heard == messages
        assert ear.subscribed_count == 1


async def test_a_server_that_is_not_there_yet_is_waited_for(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with listening(own_redis) as ear:
        await asyncio.sleep(0.05)
        assert not ear.channel.is_up
        own_redis.start()
        await ear.is_subscribed(1)
        await ear.say(b"hello")


@pytest.mark.parametrize("how", ["killed", "stopped", "cut"])
async def test_a_channel_that_was_lost_says_so_when_it_is_back(own_redis: RedisServer, how: str) -> None:
    async with listening(own_redis) as ear:
        await ear.is_subscribed(1)
        if how == "cut":
            await ear.client.execute("CLIENT", "KILL", "TYPE", "pubsub")
        else:
            own_redis.kill() if how == "killed" else own_redis.stop()
            await until(lambda: not ear.channel.is_up)
            own_redis.start()
        await ear.is_subscribed(2)
        await until(lambda: ear.client.is_up)
        await ear.say(b"after")
        assert ear.heard == [b"after"]


async def test_a_frozen_server_is_noticed_without_traffic(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_channel, "SILENCE_S", SILENCE_S)
    async with listening(own_redis) as ear:
        await ear.is_subscribed(1)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            await until(lambda: not ear.channel.is_up)
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        monkeypatch.setattr(redis_channel, "SILENCE_S", PATIENCE_S)
        await ear.is_subscribed(2)
        await ear.say(b"after")


async def test_a_quiet_server_is_left_alone(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking(Connection):
        """Asks soon, and gives the server time for its answer."""

        async def send_command(self, *command: Any, **options: Any) -> None:
            if command == ("PING",):
                monkeypatch.setattr(redis_channel, "SILENCE_S", PATIENCE_S)
            await super().send_command(*command, **options)

    monkeypatch.setattr(RedisAccess, "connection_class", Asking)
    monkeypatch.setattr(redis_channel, "SILENCE_S", SILENCE_S)
    async with listening(own_redis) as ear:
        await ear.is_subscribed(1)
        async with asyncio.timeout(30):
            while b" cmd=ping " not in await ear.client.execute("CLIENT", "LIST", "TYPE", "pubsub"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # there is nothing to be told by
        await ear.say(b"still")
        assert ear.subscribed_count == 1


async def test_a_defect_of_the_listener_does_not_end_the_listening(own_redis: RedisServer) -> None:
    async with listening(own_redis) as ear:
        await ear.is_subscribed(1)
        await ear.say(b"poison", b"after")
        assert ear.heard == [b"poison", b"after"]
