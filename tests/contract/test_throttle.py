"""The throttle, in memory and over Redis: what a guesser gets, and that nobody can lock the owner out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.auth.redis_throttle import RedisThrottle
from services.auth.throttle import (
    Attempt,
    MemoryThrottle,
    Outcome,
    Throttle,
    ThrottlePolicy,
    account_key,
    address_key,
)
from services.common.clock import FakeClock, SystemClock
from services.common.redis_client import RedisAccess, RedisClient
from tests.helpers.redis_server import be_patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOME = address_key("192.0.2.1")
JITTER_S = 0.02  # Redis' clock counts milliseconds, and its buckets forgive ten of them


class StillClient(RedisClient):
    """A Redis whose clock stands still, so that it does not matter how long a call is under way."""

    async def run_script(self, script: str, **given: Any) -> Any:
        still = script.replace("redis.call('TIME')", "{1800000000, 0}").replace("'PX', ", "'PX', 3600000 + ")
        assert "TIME" not in still
        return await super().run_script(still, **given)


def attempt(account: str = "alice", address: str = "198.51.100.7") -> Attempt:
    return Attempt(account=account_key(account), address=address_key(address))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "redis"])
async def throttle(
    request: pytest.FixtureRequest, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Throttle]:
    """Redis' clock is made to follow the test's."""
    if request.param == "memory":
        yield MemoryThrottle(ThrottlePolicy(), clock)
        return
    be_patient(monkeypatch)
    access = RedisAccess(url=request.getfixturevalue("redis_url"))
    client = StillClient(access, clock=SystemClock())
    local = MemoryThrottle(ThrottlePolicy(), clock)
    yield RedisThrottle(client, access, ThrottlePolicy(), local, ahead_s=clock.monotonic)
    await client.close()


def about(seconds: float) -> float:
    return pytest.approx(seconds, abs=JITTER_S)  # type: ignore[no-any-return]


async def guess(throttle: Throttle, who: Attempt, outcome: Outcome = Outcome.FAILED) -> float:
    wait_s = await throttle.admit(who)
    if wait_s <= 0:
        await throttle.settle(who, outcome)
    return wait_s


async def test_a_few_mistakes_cost_nothing_then_the_wait_doubles(throttle: Throttle, clock: FakeClock) -> None:
    for _ in range(6):
        assert await guess(throttle, attempt()) == 0
    waits = []
    for _ in range(8):
        wait_s = await guess(throttle, attempt())
        waits.append(wait_s)
        clock.advance(wait_s + JITTER_S)
        assert await guess(throttle, attempt()) == 0
    assert waits == [about(wait_s) for wait_s in (1, 2, 4, 8, 16, 32, 60, 60)]


async def test_hammering_while_refused_does_not_prolong_the_wait(throttle: Throttle, clock: FakeClock) -> None:
    for _ in range(6):
        await guess(throttle, attempt())
    for _ in range(1000):
        assert await guess(throttle, attempt()) == about(1)
    clock.advance(1 + JITTER_S)
    assert await guess(throttle, attempt(), Outcome.SUCCEEDED) == 0


async def test_success_clears_the_pair(throttle: Throttle) -> None:
    for _ in range(5):
        await guess(throttle, attempt())
    await guess(throttle, attempt(), Outcome.SUCCEEDED)
    for _ in range(6):
        assert await guess(throttle, attempt()) == 0


async def test_silence_is_forgiven(throttle: Throttle, clock: FakeClock) -> None:
    for _ in range(6):
        await guess(throttle, attempt())
    clock.advance(901)
    for _ in range(6):
        assert await guess(throttle, attempt()) == 0
    assert await guess(throttle, attempt()) == about(1)


async def test_guesses_sent_at_once_get_no_more_than_the_allowance(throttle: Throttle) -> None:
    admitted = [await throttle.admit(attempt()) == 0 for _ in range(100)]
    assert sum(admitted) == 6


async def test_what_was_abandoned_is_no_failure(throttle: Throttle) -> None:
    for _ in range(100):
        assert await guess(throttle, attempt(), Outcome.ABANDONED) == 0


async def test_one_address_on_many_accounts_is_slowed(throttle: Throttle) -> None:
    waits = [await guess(throttle, attempt(account=f"user{n}")) for n in range(60)]
    assert waits[:51] == [0.0] * 51
    assert all(wait_s > 0 for wait_s in waits[51:])


async def test_many_addresses_on_one_account_are_slowed(throttle: Throttle) -> None:
    waits = [await guess(throttle, attempt(address=f"203.0.113.{n}")) for n in range(30)]
    assert waits[:21] == [0.0] * 21
    assert all(wait_s > 0 for wait_s in waits[21:])


@pytest.mark.parametrize("learned_by", ["login", "registration"])
async def test_strangers_cannot_lock_the_owner_out_at_home(throttle: Throttle, learned_by: str) -> None:
    owner = attempt(address="192.0.2.1")
    if learned_by == "login":
        await guess(throttle, owner, Outcome.SUCCEEDED)
    else:
        await throttle.trust(owner)
    for n in range(200):  # from everywhere, and from a neighbour at the same address
        await guess(throttle, attempt(address=f"203.0.113.{n}"))
        await guess(throttle, attempt(account=f"user{n}", address="192.0.2.1"))
    assert await throttle.admit(attempt(address="192.0.2.200")) > 0
    assert await throttle.admit(attempt(account="another", address="192.0.2.1")) > 0
    assert await throttle.admit(owner) == 0


async def test_the_owner_at_a_new_place_waits_no_longer_than_the_maximum(throttle: Throttle, clock: FakeClock) -> None:
    for n in range(1_000):
        wait_s = await guess(throttle, attempt(address=f"2001:db8:{n:x}::1"))
        clock.advance(wait_s + JITTER_S)
    assert await throttle.admit(attempt(address="192.0.2.1")) <= 30


async def test_fifty_logins_at_once_from_one_address_pass(throttle: Throttle) -> None:
    tries = [attempt(account=f"user{n}") for n in range(300)]
    assert [await throttle.admit(one) for one in tries] == [0.0] * 300


async def test_registrations_have_a_burst_and_a_rate(throttle: Throttle, clock: FakeClock) -> None:
    assert [await throttle.admit_registration(HOME) for _ in range(256)] == [0.0] * 256
    assert await throttle.admit_registration(HOME) == about(2.0)
    assert await throttle.admit_registration(address_key("192.0.2.2")) == 0
    clock.advance(2.0 + JITTER_S)
    assert await throttle.admit_registration(HOME) == 0
    assert await throttle.admit_registration(HOME) > 0
    clock.advance(1_000_000)
    assert [await throttle.admit_registration(HOME) for _ in range(257)].count(0.0) == 256


async def test_an_operator_sees_and_lifts_the_wait_of_an_account(throttle: Throttle) -> None:
    account = account_key("alice")
    assert await throttle.locked_for_s(account) == 0
    assert not await throttle.unlock(account)
    for n in range(7):
        await guess(throttle, attempt(address="203.0.113.1"))
        await guess(throttle, attempt(account=f"other{n}"))
    assert await throttle.locked_for_s(account) == about(1)
    assert await throttle.unlock(account)
    assert await throttle.locked_for_s(account) == 0
    assert await throttle.admit(attempt(address="203.0.113.1")) == 0


async def test_bad_tokens_have_a_burst_and_a_rate(throttle: Throttle, clock: FakeClock) -> None:
    for _ in range(256):
        assert await throttle.admit_token(HOME) == 0
        await throttle.count_bad_token(HOME)
    assert await throttle.admit_token(HOME) == about(0.5)
    assert await throttle.admit_token(address_key("192.0.2.2")) == 0
    clock.advance(0.5 + JITTER_S)
    assert await throttle.admit_token(HOME) == 0
