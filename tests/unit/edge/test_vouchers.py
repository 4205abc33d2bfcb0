from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from structlog.testing import capture_logs

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge import vouchers
from services.edge.decisions import User
from services.edge.ports import Assertion
from services.edge.vouchers import LOOK_EVERY_S, Vouchers, voucher


class World:
    """Auth gives assertions that are good for 900 s, and the users are logged in."""

    def __init__(self, count: int = 2) -> None:
        self.clock = FakeClock()
        self.asked: list[list[bytes]] = []
        self.gone: set[bytes] = set()
        self.is_down = False
        self.users = [self.user(number) for number in range(count)]
        self.vouchers = Vouchers(cast("Any", self), users=lambda: self.users, clock=self.clock)

    def user(self, number: int) -> User:
        word = voucher(Assertion(b"%d.1" % number, 900.0), self.clock.monotonic())
        return User(f"u{number}", f"name{number}", f"s{number}", 0.0, word)

    async def renew_assertions(self, assertions: Sequence[bytes]) -> list[Assertion]:
        self.asked.append(list(assertions))
        if self.is_down:
            raise ParleyError(ErrorCode.UNAVAILABLE, "down")
        return [Assertion() if one in self.gone else Assertion(one + b"'", 900.0) for one in assertions]

    @property
    def words(self) -> list[bytes]:
        return [user.voucher.assertion for user in self.users]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.vouchers.run())
    await world.clock.wait_for_sleepers()
    try:
        yield world
    finally:
        task.cancel()


async def test_assertions_are_renewed_at_half_of_their_life() -> None:
    async with running(World()) as world:
        await world.clock.advance(449)
        assert world.asked == []
        world.users.append(world.user(7))
        await world.clock.advance(LOOK_EVERY_S)
        assert world.asked == [[b"0.1", b"1.1"]]
        assert world.words == [b"0.1'", b"1.1'", b"7.1"]
        await world.clock.advance(449)
        assert world.asked[1:] == [[b"7.1"]]
        await world.clock.advance(LOOK_EVERY_S)
        assert world.asked[2:] == [[b"0.1'", b"1.1'"]]


async def test_one_whose_session_has_ended_keeps_what_it_has() -> None:
    async with running(World()) as world:
        world.gone.add(b"0.1")
        await world.clock.advance(450)
        assert world.words == [b"0.1", b"1.1'"]


async def test_while_auth_is_away_it_is_tried_again_and_said_once() -> None:
    async with running(World()) as world:
        world.is_down = True
        with capture_logs() as logs:
            for _ in range(3):
                await world.clock.advance(450)
        assert len(world.asked) == 3
        assert [line["event"] for line in logs] == ["assertions not renewed"]
        world.is_down = False
        await world.clock.advance(LOOK_EVERY_S)
        assert world.words == [b"0.1'", b"1.1'"]


async def test_many_are_renewed_in_bounded_calls(monkeypatch: Any) -> None:
    monkeypatch.setattr(vouchers, "_BATCH_MAX", 3)
    async with running(World(count=8)) as world:
        await world.clock.advance(450)
        assert [len(asked) for asked in world.asked] == [3, 3, 2]


async def test_one_that_rooms_does_not_believe_is_renewed_at_once() -> None:
    async with running(World()) as world:
        world.users[1].voucher.doubt()
        await world.clock.advance(LOOK_EVERY_S)
        assert world.asked == [[b"1.1"]]
        assert world.words == [b"0.1", b"1.1'"]


def test_where_there_is_none_there_is_nothing_to_doubt() -> None:
    word = voucher(Assertion(), 0.0)
    word.doubt()
    assert word.renew_at == float("inf")
