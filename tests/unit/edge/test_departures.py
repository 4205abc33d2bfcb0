from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.departures import Departures


class Service:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def _tell(self, session_ids: Sequence[str]) -> None:
        self.calls.append(list(session_ids))
        await self.gate.wait()
        if self.is_down:
            raise ParleyError(ErrorCode.UNAVAILABLE, "down")

    end_sessions = close_sessions = _tell


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.auth, self.rooms = Service(), Service()
        self.departures = Departures(cast("Any", self.auth), cast("Any", self.rooms), self.clock)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.departures.run())
    await settle()
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_both_are_told_at_once() -> None:
    async with running() as world:
        assert world.departures.is_idle
        world.departures.ended("s1")
        assert not world.departures.is_idle
        await settle()
        assert world.auth.calls == world.rooms.calls == [["s1"]]
        assert world.departures.is_idle


async def test_after_a_logout_only_rooms_is_told() -> None:
    async with running() as world:
        world.departures.logged_out("s1")
        await settle()
        assert (world.auth.calls, world.rooms.calls) == ([], [["s1"]])


async def test_what_ends_during_a_call_goes_together() -> None:
    async with running() as world:
        world.auth.gate.clear()
        for number in range(4):
            world.departures.ended(f"s{number}")
            await settle()
        world.auth.gate.set()
        await settle()
        assert world.auth.calls == [["s0"], ["s1", "s2", "s3"]]


async def test_a_call_is_repeated_until_it_is_heard() -> None:
    async with running() as world:
        world.auth.is_down = True
        world.departures.ended("s1")
        await settle()
        for _ in range(3):
            await world.clock.advance(2)
        world.auth.is_down = False
        await world.clock.advance(2)
        assert world.auth.calls == [["s1"]] * 5
        assert world.rooms.calls == [["s1"]]
        assert world.departures.is_idle


async def test_after_two_minutes_there_is_nothing_left_to_say() -> None:
    async with running() as world:
        world.auth.is_down = True
        world.departures.ended("s1")
        for _ in range(70):
            await world.clock.advance(2)
        assert world.departures.is_idle
