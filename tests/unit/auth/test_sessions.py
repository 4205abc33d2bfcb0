"""Sessions: one per account, through every way in which they begin and end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.auth.openings import Moment, NewSession, OpenResult, ResumedSession, ResumeResult
from services.auth.revocations import EdgeBoot, EndReason, Revocation
from services.auth.sessions import SessionPolicy, Sessions
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


async def log_in(world: World, user_id: str, edge: EdgeBoot = EDGE, *, takeover: bool = False) -> Grant:
    return await world.sessions.open(user_id=user_id, username="alice", edge=edge, device="phone", takeover=takeover)


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


@pytest.mark.parametrize("jump_s", [3_000, -3_000])
async def test_a_login_whose_answer_is_under_way_outlives_a_jump_of_the_clock(
    world: World, alice: str, jump_s: float
) -> None:
    grant = await log_in(world, alice)
    world.clock.jump(jump_s)
    assert await world.sessions.renew(EDGE, []) == []  # sent before the answer came
    world.clock.advance(5)
    assert await world.sessions.renew(EDGE, [grant.session_id]) == []


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
        throttle=world.throttle,
        policy=SessionPolicy(),
        clock=world.clock,
        tasks=world.tasks,
    )
    error = await refusal(sessions.open(user_id=alice, username="alice", edge=EDGE, device="", takeover=False))
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


# Resume and takeover


async def resume(world: World, token: str, edge: EdgeBoot = EDGE, address: str = "192.0.2.7") -> Grant:
    return await world.sessions.resume(token=token, edge=edge, address=address)


async def test_a_resume_replaces_the_live_session_and_tells_its_edge(world: World, alice: str) -> None:
    watch = await world.sessions.watch(EDGE)
    first = await log_in(world, alice)
    second = await resume(world, first.token, OTHER)
    assert (second.user_id, second.username) == (alice, "alice")
    assert second.token != first.token
    assert await watch.read() == [Revocation(first.session_id, EndReason.REPLACED)]
    assert world.sessions.open_count == 1
    world.sessions.unwatch(EDGE, watch)


async def test_a_lost_answer_locks_nobody_out_and_the_successor_retires_the_token(world: World, alice: str) -> None:
    first = await log_in(world, alice)
    await world.sessions.end([first.session_id])
    await resume(world, first.token)  # the answer never arrives
    world.clock.advance(599)
    third = await resume(world, first.token)
    fourth = await resume(world, third.token)
    assert (await refusal(resume(world, first.token))).code is ErrorCode.BAD_TOKEN
    assert world.sessions.open_count == 1
    assert fourth.token_expires_at_ms == round(world.clock.now() * 1000) + 600_000


async def test_a_token_is_bad_ten_minutes_after_the_end(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    world.clock.advance(100_000)
    await world.sessions.renew(EDGE, [grant.session_id])
    await world.sessions.end([grant.session_id])
    world.clock.advance(600)
    assert (await refusal(resume(world, grant.token))).code is ErrorCode.BAD_TOKEN


@pytest.mark.parametrize("ending", ["log_out", "revoke_all", "disable"])
async def test_no_token_outlives_a_logout_a_revocation_or_a_closed_account(
    world: World, alice: str, ending: str
) -> None:
    first = await log_in(world, alice)
    second = await resume(world, first.token)
    if ending == "log_out":
        await world.sessions.log_out(second.session_id)
    elif ending == "revoke_all":
        await world.sessions.revoke_all(alice)
    else:
        await world.store.set_disabled(alice, disabled=True)
    for token in (first.token, second.token, "garbage", "\ud800"):
        assert (await refusal(resume(world, token))).code is ErrorCode.BAD_TOKEN


async def test_of_racing_resumes_one_session_stays_and_the_others_are_replaced(world: World, alice: str) -> None:
    watch = await world.sessions.watch(EDGE)
    first = await log_in(world, alice)
    grants = await asyncio.gather(*(resume(world, first.token) for _ in range(20)))
    told: list[Revocation] = []
    while len(told) < 20:
        told += await watch.read()
    assert {one.reason for one in told} == {EndReason.REPLACED}
    alive = {grant.session_id for grant in grants} - {one.session_id for one in told}
    assert len(alive) == 1
    assert world.sessions.open_count == await world.store.count_open_sessions() == 1
    world.sessions.unwatch(EDGE, watch)


async def test_bad_tokens_are_throttled_by_address_and_refused_ones_do_not_count(world: World, alice: str) -> None:
    grant = await log_in(world, alice)
    codes = [(await refusal(resume(world, f"guess {n}"))).code for n in range(300)]
    assert codes[:256] == [ErrorCode.BAD_TOKEN] * 256
    error = await refusal(resume(world, grant.token))
    assert (error.code, error.retry_after_s) == (ErrorCode.RATE_LIMITED, 0.5)
    await resume(world, grant.token, address="198.51.100.1")
    world.clock.advance(0.5)
    await resume(world, grant.token)


class SlowStore:
    """A store that tells the end of a resume only when it is let."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.has_stored = asyncio.Event()
        self.may_tell = asyncio.Event()

    async def resume_session(self, session: ResumedSession, moment: Moment) -> ResumeResult:
        result = await self._world.store.resume_session(session, moment)
        self.has_stored.set()
        await self.may_tell.wait()
        return result

    def __getattr__(self, name: str) -> object:
        return getattr(self._world.store, name)


async def test_a_resume_whose_caller_has_gone_is_taken_back_and_its_token_stays(world: World, alice: str) -> None:
    first = await log_in(world, alice)
    store = SlowStore(world)
    sessions = Sessions(
        store=store,  # type: ignore[arg-type]
        revocations=world.revocations,
        throttle=world.throttle,
        policy=SessionPolicy(),
        clock=world.clock,
        tasks=world.tasks,
    )
    waiting = asyncio.ensure_future(sessions.resume(token=first.token, edge=OTHER, address=""))
    await store.has_stored.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    store.may_tell.set()
    await settle(world)
    assert await world.store.count_open_sessions() == 0
    assert (await resume(world, first.token)).user_id == alice


async def test_a_takeover_replaces_and_the_replaced_cannot_come_back(world: World, alice: str) -> None:
    watch = await world.sessions.watch(EDGE)
    first = await log_in(world, alice)
    await log_in(world, alice, OTHER, takeover=True)
    assert await watch.read() == [Revocation(first.session_id, EndReason.REPLACED)]
    assert (await refusal(resume(world, first.token))).code is ErrorCode.BAD_TOKEN
    world.sessions.unwatch(EDGE, watch)


async def test_of_racing_takeovers_one_session_stays(world: World, alice: str) -> None:
    await asyncio.gather(*(log_in(world, alice, takeover=True) for _ in range(10)))
    assert world.sessions.open_count == await world.store.count_open_sessions() == 1
