"""Several instances' buses on one carrier: in memory, which a test can break at will, or a real Redis.

async with memory_net() as net:
    here, there = net.bus(), net.bus()
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.common.clock import Clock, FakeClock, SystemClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.redis_client import RedisAccess
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.rooms.counts import BusCounts
from services.rooms.redis_bus import RedisTransport
from services.rooms.shared_bus import SharedBus, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from services.rooms.bus import Event

WAIT_S = 30.0


@dataclass
class MemoryTransport:
    """The twin of RedisTransport. `is_up` false: nothing is taken and nothing comes; `swallows`: as Redis does when
    nobody listens, it is taken and lost. `messages` is what it has carried."""

    others: list[MemoryTransport]
    is_up: bool = True
    swallows: bool = False
    messages: list[bytes] = field(default_factory=list)
    hear: Callable[[bytes], None] | None = None
    subscribed: Callable[[], None] | None = None
    blocked: asyncio.Event | None = None

    def start(self, tasks: TaskSet, *, on_message: Callable[[bytes], None], on_subscribed: Callable[[], None]) -> None:
        self.hear, self.subscribed = on_message, on_subscribed
        on_subscribed()

    async def publish(self, message: bytes) -> None:
        await asyncio.sleep(0)
        if self.blocked is not None:
            await self.blocked.wait()
        if not self.is_up:
            raise ParleyError(ErrorCode.UNAVAILABLE, "cut off")
        self.messages.append(message)
        if not self.swallows:
            for other in self.others:
                if other.is_up and other.hear is not None:
                    other.hear(message)

    async def close(self) -> None:
        self.hear = None


@dataclass
class Net:
    """What carries, and the buses on it. `heard` has each bus's events, in the order of the buses."""

    make: Callable[[], Transport]
    clock: Clock
    tasks: TaskSet = field(default_factory=TaskSet)
    buses: list[SharedBus] = field(default_factory=list)
    transports: list[Any] = field(default_factory=list)
    heard: list[list[Event]] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def bus(self) -> SharedBus:
        """Another instance's."""
        transport = self.make()
        bus = SharedBus(
            transport, sender_id=f"sender{next(self._numbers)}", clock=self.clock, counts=BusCounts(Counters())
        )
        events: list[Event] = []
        bus.subscribe(events.append)
        bus.start(self.tasks)
        self.buses.append(bus)
        self.transports.append(transport)
        self.heard.append(events)
        return bus

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for what nothing announces, and lets the time of a fake clock pass."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                if isinstance(self.clock, FakeClock):
                    await self.clock.advance(0.01)
                await asyncio.sleep(0.001)

    async def are_up(self) -> None:
        await self.until(lambda: all(bus.is_up for bus in self.buses))


@contextlib.asynccontextmanager
async def memory_net() -> AsyncIterator[Net]:
    """Buses in memory, with a clock that stands still."""
    others: list[MemoryTransport] = []

    def make() -> Transport:
        others.append(MemoryTransport(others))
        return others[-1]

    async with _closing(Net(make, FakeClock())) as net:
        yield net


@contextlib.asynccontextmanager
async def redis_net(url: str) -> AsyncIterator[Net]:
    """Buses over a real Redis."""
    clock = SystemClock()
    async with _closing(Net(lambda: RedisTransport(RedisAccess(url=url), clock=clock), clock)) as net:
        yield net


@contextlib.asynccontextmanager
async def _closing(net: Net) -> AsyncIterator[Net]:
    try:
        yield net
    finally:
        await net.tasks.close()
        for bus in net.buses:
            await bus.close()
