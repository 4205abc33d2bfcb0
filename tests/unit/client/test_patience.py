"""Requests that are carried through a restart of the server, and those that must not be sent twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from client.errors import ClientError, ConnectionLostError, NotReadyError, RequestError
from client.patience import PATIENCE_S, Patience, ReconnectingError
from services.common.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

UNAVAILABLE = RequestError("unavailable", "not now", retry_after_s=0.5)
UNKNOWN = RequestError("unknown_outcome", "nobody knows")
LOST = ConnectionLostError("lost")
RECONNECTING = ReconnectingError("not yet")


class Desk:
    """A request whose attempts end as the test says; after the last of them it succeeds."""

    def __init__(self, errors: Sequence[ClientError]) -> None:
        self.clock = FakeClock()
        self.attempts: list[float] = []
        self._errors = iter(errors)

    async def attempt(self) -> str:
        self.attempts.append(self.clock.monotonic())
        error = next(self._errors, None)
        if error is not None:
            raise error
        return "done"

    async def carry(self, name: str) -> str:
        carrying = asyncio.create_task(Patience(self.clock, lambda low, high: low).carry(name, self.attempt))
        while not carrying.done():
            await self.clock.advance(0.05)
        return await carrying


@pytest.mark.parametrize("name", ["create_room", "join_room", "leave_room", "logout", "auth_request", "history"])
async def test_what_was_certainly_not_done_is_done_when_the_server_is_back(name: str) -> None:
    desk = Desk([RECONNECTING, UNAVAILABLE, RECONNECTING])
    assert await desk.carry(name) == "done"
    assert len(desk.attempts) == 4


@pytest.mark.parametrize("error", [LOST, UNKNOWN])
@pytest.mark.parametrize(("name", "attempts"), [("join_room", 2), ("history", 2), ("create_room", 1), ("logout", 1)])
async def test_of_which_nobody_knows_whether_it_was_done_only_what_may_be_done_twice_is_sent_again(
    error: ClientError, name: str, attempts: int
) -> None:
    desk = Desk([error])
    if attempts == 1:
        with pytest.raises(type(error)):
            await desk.carry(name)
    else:
        assert await desk.carry(name) == "done"
    assert len(desk.attempts) == attempts


@pytest.mark.parametrize(
    "error", [RequestError("forbidden", "no"), RequestError("rate_limited", "slower"), NotReadyError("not logged in")]
)
async def test_what_does_not_pass_is_told_at_once(error: ClientError) -> None:
    desk = Desk([error])
    with pytest.raises(type(error)):
        await desk.carry("join_room")
    assert len(desk.attempts) == 1


async def test_the_server_says_when_it_may_be_worth_another_try() -> None:
    desk = Desk([RequestError("unavailable", "not now", retry_after_s=3.0)])
    await desk.carry("create_room")
    assert desk.attempts[1] - desk.attempts[0] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("error", [UNAVAILABLE, RECONNECTING, LOST])
async def test_patience_ends(error: ClientError) -> None:
    desk = Desk([error] * 1_000)
    with pytest.raises(type(error)):
        await desk.carry("history")
    assert desk.clock.monotonic() <= PATIENCE_S + 0.1
    assert len(desk.attempts) > 5
