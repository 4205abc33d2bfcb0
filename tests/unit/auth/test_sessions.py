"""Sessions: one per account, through every way in which they begin and end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.auth.revocations import EdgeBoot, EndReason, Revocation
from services.auth.sessions import Moment, NewSession, OpenResult, SessionPolicy, Sessions
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers import auth_world
from tests.helpers.auth_world import EDGE, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from services.auth.sessions import Grant

REBORN = EdgeBoot("edge-1", "boot-b")
OTHER = EdgeBoot("edge-2", "boot-c")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with auth_world.make(tmp_path) as world:
        yield world


@pytest.fixture
async def alice(world: World) -> str:
    return (await world.register("alice")).user_id


async def log_in(world: World, user_id: str, edge: EdgeBoot = EDGE) -> Grant:
    return await world.sessions.open(user_id=user_id, edge=edge, device="phone")


async def refusal(coroutine: object) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        await coroutine  # type: ignore[misc]
    return caught.value


async def settle(world: World) -> None:
    """Waits until what runs in the background is done."""
    while running := list(world.tasks._tasks):
        await asyncio.wait(running)


async def test_a_login_gets_a_token_of_which_only_the_hash_is_stored(world: World, alice: str, tmp_path: Path) -> None:
    grant = await log_in(world, alice)
    assert grant.token_expires_at_ms == round(world.clock.now() * 1000) + 600_000
    stored = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir()))
    assert grant.session_id.encode() in stored
    assert grant.token.encode() not in stored


async def test_the_second_login_is_told_since_when_the_first_lives(world: World, alice: str) -> None:
    await log_in(world, alice)
    since_ms = round(world.clock.now() * 1000)
    world.clock.advance(10)
    for edge in (EDGE, OTHER):
        error = await refusal(log_in(world, alice, edge))
        assert error.code is ErrorCode.ALREADY_LOGGED_IN
        assert error.details == {"since-ms": str(since_ms)}
    assert world.sessions.open_count == 1


async def test_of_racing_logins_one_wins(world: World, alice: str) -> None:
    results = await asyncio.gather(
        *(log_in(world, alice, OTHER if n % 2 else EDGE) for n in range(20)), return_exceptions=True
    )
    losers = [result for result in results if isinstance(result, ParleyError)]
    assert len(losers) == 19
    assert {error.code for error in losers} == {ErrorCode.ALREADY_LOGGED_IN}
    assert world.sessions.open_count == 1


async def test_logging_out_makes_room_and_is_idempotent(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    for _ in range(2):
        await world.sessions.log_out(grant.session_id)
    await world.sessions.log_out("unknown")
    assert world.sessions.open_count == 0
    await log_in(world, alice)


async def test_the_end_of_a_connection_makes_room_and_is_idempotent(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    for _ in range(2):
        await world.sessions.end([grant.session_id, "unknown"])
    await world.sessions.end([])
    assert world.sessions.open_count == 0
    await log_in(world, alice)
    await world.sessions.end([grant.session_id])  # the old one: does not touch the new one
    assert world.sessions.open_count == 1


async def test_a_disabled_account_looks_like_a_wrong_password(world: World, alice: str) -> None:
    await world.store.set_disabled(alice, disabled=True)
    error = await refusal(log_in(world, alice))
    assert error.code is ErrorCode.INVALID_CREDENTIALS
    unknown = await refusal(log_in(world, "nobody"))
    assert (error.message, error.details) == (unknown.message, unknown.details)


async def test_revoking_tells_the_edge(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    subscription = await world.sessions.watch(EDGE)
    assert await world.sessions.revoke_all(alice) == 1
    assert await world.sessions.revoke_all(alice) == 0
    assert await subscription.read() == [Revocation(grant.session_id, EndReason.REVOKED)]
    assert world.sessions.open_count == 0


async def test_what_an_edge_ended_itself_is_not_told(world: World, alice: str) -> None:
    subscription = await world.sessions.watch(EDGE)
    one = await log_in(world, alice)
    await world.sessions.end([one.session_id])
    two = await log_in(world, alice)
    await world.sessions.log_out(two.session_id)
    world.revocations.close()
    assert await subscription.read() == []


async def test_a_silent_edge_loses_its_sessions(world: World, alice: str) -> None:
    await world.sweeper.sweep()
    grant = await log_in(world, alice)
    subscription = await world.sessions.watch(EDGE)
    for _ in range(14):
        world.clock.advance(1)
        await world.sweeper.sweep()
    assert world.sessions.open_count == 1
    assert (await refusal(log_in(world, alice, OTHER))).code is ErrorCode.ALREADY_LOGGED_IN
    world.clock.advance(1)
    await world.sweeper.sweep()
    assert world.sessions.open_count == 0
    assert await subscription.read() == [Revocation(grant.session_id, EndReason.REVOKED)]
    assert await world.sessions.renew(EDGE, [grant.session_id]) == [grant.session_id]
    await log_in(world, alice, OTHER)


async def test_a_login_does_not_wait_for_the_sweep(world: World, alice: str) -> None:
    first = await log_in(world, alice)
    subscription = await world.sessions.watch(EDGE)
    world.clock.advance(15)
    await log_in(world, alice, OTHER)
    assert await subscription.read() == [Revocation(first.session_id, EndReason.REVOKED)]
    assert world.sessions.open_count == 1


async def test_renewals_keep_sessions_and_name_the_dead(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    for _ in range(10):
        world.clock.advance(5)
        assert await world.sessions.renew(EDGE, [grant.session_id, "unknown"]) == ["unknown"]
        await world.sessions.sweep()
    assert world.sessions.open_count == 1
    assert await world.sessions.renew(OTHER, [grant.session_id]) == [grant.session_id]


async def test_a_login_whose_answer_was_lost_ends_as_an_orphan(world: World, alice: str) -> None:
    await log_in(world, alice)
    for _ in range(12):
        assert world.sessions.open_count == 1
        world.clock.advance(5)
        assert await world.sessions.renew(EDGE, []) == []
    world.clock.advance(5)
    await world.sessions.renew(EDGE, [])
    assert world.sessions.open_count == 0
    await log_in(world, alice)


async def test_a_new_boot_ends_the_sessions_of_the_old(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    old = await world.sessions.watch(EDGE)
    assert await world.sessions.renew(REBORN, [grant.session_id]) == [grant.session_id]
    assert await old.read() == [Revocation(grant.session_id, EndReason.REVOKED)]
    await log_in(world, alice, REBORN)
    assert world.sessions.open_count == 1


async def test_a_superseded_boot_is_refused_everywhere(world: World, alice: str) -> None:
    await world.sessions.renew(EDGE, [])
    new = await log_in(world, alice, REBORN)
    assert await world.sessions.renew(EDGE, ["s1", "s2"]) == ["s1", "s2"]
    assert (await refusal(world.sessions.watch(EDGE))).code is ErrorCode.UNAVAILABLE
    assert not world.revocations._subscriptions
    bob = (await world.register("bob")).user_id
    assert (await refusal(log_in(world, bob, EDGE))).code is ErrorCode.UNAVAILABLE
    assert await world.sessions.renew(REBORN, [new.session_id]) == []


async def test_watching_alone_announces_a_boot(world: World, alice: str) -> None:
    await log_in(world, alice)
    await world.sessions.watch(REBORN)
    assert world.sessions.open_count == 0


async def test_a_login_that_is_cancelled_while_it_is_stored_is_taken_back(world: World, alice: str) -> None:
    for _ in range(20):
        opening = asyncio.create_task(log_in(world, alice))
        await asyncio.sleep(0)  # the store has it
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await settle(world)
        assert await world.store.count_open_sessions() == 0
        assert world.sessions.open_count == 0
    await log_in(world, alice)


async def test_a_cancelled_login_does_not_take_back_anothers_session(world: World, alice: str) -> None:
    await log_in(world, alice)
    opening = asyncio.create_task(log_in(world, alice))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await settle(world)
    assert await world.store.count_open_sessions() == 1
    assert world.sessions.open_count == 1


class FailingStore:
    """A store whose commits fail after the work was done, or before."""

    def __init__(self, world: World, code: ErrorCode, *, stores: bool) -> None:
        self._world = world
        self._code = code
        self._stores = stores

    async def open_session(self, session: NewSession, moment: Moment) -> OpenResult:
        if self._stores:
            await self._world.store.open_session(session, moment)
        raise ParleyError(self._code, "the storage failed")

    def __getattr__(self, name: str) -> object:
        return getattr(self._world.store, name)


@pytest.mark.parametrize("stores", [True, False])
async def test_a_login_with_an_unknown_outcome_is_unavailable_and_taken_back(
    world: World, alice: str, stores: bool
) -> None:
    sessions = Sessions(
        store=FailingStore(world, ErrorCode.UNKNOWN_OUTCOME, stores=stores),  # type: ignore[arg-type]
        revocations=world.revocations,
        policy=SessionPolicy(),
        clock=world.clock,
        tasks=world.tasks,
    )
    error = await refusal(sessions.open(user_id=alice, edge=EDGE, device=""))
    assert error.code is ErrorCode.UNAVAILABLE
    await settle(world)
    await log_in(world, alice)


async def test_a_store_that_fails_is_told_as_it_is(world: World, alice: str) -> None:
    await world.database.close()
    for attempt in (log_in(world, alice), world.sessions.renew(EDGE, []), world.sessions.watch(EDGE)):
        assert (await refusal(attempt)).code is ErrorCode.UNAVAILABLE
    assert not world.revocations._subscriptions


async def test_the_count_is_set_right_from_the_store(world: World, alice: str) -> None:
    await log_in(world, alice)
    world.sessions.open_count = 77
    await world.sessions.recount()
    assert world.sessions.open_count == 1


async def test_ended_sessions_are_purged_when_their_tokens_have_expired(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    await world.sessions.end([grant.session_id])

    async def stored() -> int:
        def count(connection: object) -> int:
            return int(connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar_one())  # type: ignore[attr-defined]

        return await world.database.read(count)

    world.clock.advance(599)
    await world.sessions.sweep()
    assert await stored() == 1
    world.clock.advance(1)
    await world.sessions.sweep()
    assert await stored() == 0
