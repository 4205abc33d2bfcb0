"""The sweeper: silence ends sessions, our own faults do not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from tests.helpers import auth_world
from tests.helpers.auth_world import EDGE, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with auth_world.make(tmp_path) as world:
        await world.register("alice")
        yield world


async def tick(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.clock.advance(1)
        await world.sweeper.sweep()


async def test_a_session_lives_as_long_as_its_lease(world: World) -> None:
    await world.sweeper.sweep()
    await world.log_in("alice")
    await tick(world, 14)
    assert world.sessions.open_count == 1
    await tick(world, 1)
    assert world.sessions.open_count == 0


async def test_after_a_restart_edges_have_a_whole_lease_to_come_back(world: World, tmp_path: Path) -> None:
    await world.sweeper.sweep()
    grant = await world.log_in("alice")
    world.clock.advance(3600)  # auth was down for an hour
    async with auth_world.make(tmp_path, clock=world.clock) as reborn:
        await reborn.sweeper.sweep()
        assert reborn.sessions.open_count == 1
        assert reborn.accounts.count == 1
        await tick(reborn, 14)
        assert await reborn.sessions.renew(EDGE, [grant.session_id]) == []
        await tick(reborn, 14)
        assert reborn.sessions.open_count == 1
        await tick(reborn, 1)
        assert reborn.sessions.open_count == 0


@pytest.mark.parametrize("jump_s", [7, 60, 1e6])
async def test_a_stall_of_our_own_ends_no_session(world: World, jump_s: float) -> None:
    await world.sweeper.sweep()
    grant = await world.log_in("alice")
    world.clock.advance(jump_s)
    await world.sweeper.sweep()
    await tick(world, 14)
    assert world.sessions.open_count == 1
    assert await world.sessions.renew(EDGE, [grant.session_id]) == []


async def test_running_it_goes_on_after_failures_and_says_so_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.log_in("alice")
    with capture_logs() as logs:
        running = asyncio.create_task(world.sweeper.run())
        await world.clock.wait_for_sleepers()
        await world.database.close()
        for _ in range(5):
            world.clock.advance(1)
            await world.clock.wait_for_sleepers()
    assert [log["event"] for log in logs] == ["sessions cannot be swept"]
    assert not running.done()
    running.cancel()


async def test_running_it_ends_sessions(world: World) -> None:
    await world.log_in("alice")
    running = asyncio.create_task(world.sweeper.run())
    for _ in range(16):
        await world.clock.wait_for_sleepers()
        world.clock.advance(1)
        await asyncio.sleep(0)
    await world.clock.wait_for_sleepers()
    assert world.sessions.open_count == 0
    running.cancel()
