from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.leases import Leases
from services.edge.ports import Revocation


class Auth:
    def __init__(self) -> None:
        self.renewals: list[list[str]] = []
        self.ended: list[str] = []
        self.is_down = False
        self.watch_gate = asyncio.Event()
        self.watches: list[asyncio.Queue[list[Revocation] | None]] = []

    async def renew_lease(self, session_ids: Sequence[str]) -> tuple[float, list[str]]:
        self.renewals.append(list(session_ids))
        if self.is_down:
            raise ParleyError(ErrorCode.UNAVAILABLE, "down")
        return 15.0, self.ended

    async def watch_revocations(self) -> AsyncGenerator[list[Revocation], None]:
        await self.watch_gate.wait()
        if self.is_down:
            raise ParleyError(ErrorCode.UNAVAILABLE, "down")
        queue: asyncio.Queue[list[Revocation] | None] = asyncio.Queue()
        self.watches.append(queue)
        yield []
        while (batch := await queue.get()) is not None:
            yield batch
        raise ParleyError(ErrorCode.UNAVAILABLE, "lost")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.auth = Auth()
        self.ended: list[tuple[str, str]] = []
        self.session_ids = ["s1", "s2"]
        self.leases = Leases(
            cast("Any", self.auth),
            session_ids=lambda: list(self.session_ids),
            on_ended=lambda session_id, reason: self.ended.append((session_id, reason)),
            clock=self.clock,
        )


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.leases.run())
    await settle()
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_lease_is_renewed_three_times_as_often_as_it_must_be() -> None:
    async with running() as world:
        assert world.auth.renewals == [["s1", "s2"]]
        for _ in range(3):
            await world.clock.advance(5)
        assert len(world.auth.renewals) == 4


async def test_the_lease_is_renewed_at_once_when_a_watch_is_in_place() -> None:
    async with running() as world:
        world.auth.watch_gate.set()
        world.auth.ended = ["s2"]
        await settle()
        assert len(world.auth.renewals) == 2
        assert world.ended == [("s2", "revoked")]


async def test_what_the_watch_says_is_done() -> None:
    async with running() as world:
        world.auth.watch_gate.set()
        await settle()
        world.auth.watches[0].put_nowait([Revocation("s1", "replaced"), Revocation("s2", "revoked")])
        await settle()
        assert world.ended == [("s1", "replaced"), ("s2", "revoked")]


async def test_a_watch_that_ends_is_opened_again_at_once_and_the_lease_renewed_after_it() -> None:
    async with running() as world:
        world.auth.watch_gate.set()
        await settle()
        await world.clock.advance(1)
        world.auth.watches[0].put_nowait(None)
        before = len(world.auth.renewals)
        await settle()
        assert len(world.auth.watches) == 2
        assert len(world.auth.renewals) == before + 1


async def test_a_watch_that_does_not_hold_is_opened_once_a_second() -> None:
    async with running() as world:
        world.auth.watch_gate.set()
        await settle()
        await world.clock.advance(0.25)
        for count in range(1, 5):
            world.auth.watches[-1].put_nowait(None)
            await settle()
            assert len(world.auth.watches) == count
            await world.clock.advance(0.75 if count == 1 else 1)
            await settle()
            assert len(world.auth.watches) == count + 1


async def test_while_auth_is_away_it_is_asked_every_second() -> None:
    async with running() as world:
        world.auth.watch_gate.set()
        world.auth.is_down = True
        await world.clock.advance(5)
        before = len(world.auth.renewals)
        for _ in range(4):
            await world.clock.advance(1)
        assert len(world.auth.renewals) == before + 4
        assert world.ended == []
        world.auth.is_down = False
        await world.clock.advance(1)
        await settle()
        assert world.auth.watches
