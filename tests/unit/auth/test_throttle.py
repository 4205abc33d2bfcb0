"""The throttle: what a guesser gets, and that nobody can lock the owner out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.throttle import (
    Attempt,
    Backoff,
    MemoryThrottle,
    NoThrottle,
    Outcome,
    Throttle,
    ThrottlePolicy,
    account_key,
    address_key,
)
from services.common.clock import FakeClock

HOME = address_key("192.0.2.1")


def attempt(account: str = "alice", address: str = "198.51.100.7") -> Attempt:
    return Attempt(account=account_key(account), address=address_key(address))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def throttle(clock: FakeClock) -> MemoryThrottle:
    return MemoryThrottle(ThrottlePolicy(), clock)


async def guess(throttle: Throttle, who: Attempt, outcome: Outcome = Outcome.FAILED) -> float:
    wait_s = await throttle.admit(who)
    if wait_s <= 0:
        await throttle.settle(who, outcome)
    return wait_s


async def test_memory_is_bounded(clock: FakeClock) -> None:
    throttle = MemoryThrottle(ThrottlePolicy(entries_max=10), clock)
    for n in range(1000):
        outcome = Outcome.FAILED if n % 2 else Outcome.SUCCEEDED
        await guess(throttle, attempt(account=f"user{n}", address=f"203.0.113.{n % 256}"), outcome)
        await throttle.admit_registration(address_key(f"2001:db8:{n:x}::1"))
    assert throttle.entry_count <= 50


async def test_what_is_refused_pushes_nobody_out(clock: FakeClock) -> None:
    patience = Backoff(free=5, first_s=1000.0, max_s=1000.0, forget_s=1e6)
    throttle = MemoryThrottle(ThrottlePolicy(entries_max=100, address=patience), clock)
    for _ in range(7):
        await guess(throttle, attempt(account="target", address="203.0.113.1"))
    for n in range(1000):
        await guess(throttle, attempt(account=f"user{n}", address="203.0.113.2"))
    assert await throttle.admit(attempt(account="target", address="203.0.113.1")) > 0


async def test_an_attempt_whose_entry_was_pushed_out_is_settled_all_the_same(clock: FakeClock) -> None:
    throttle = MemoryThrottle(ThrottlePolicy(entries_max=1), clock)
    await throttle.admit(attempt("one"))
    await throttle.admit(attempt("two"))
    await throttle.settle(attempt("one"), Outcome.ABANDONED)
    assert await throttle.admit(attempt("one")) == 0


async def test_no_throttle_admits_everything() -> None:
    throttle = NoThrottle()
    for _ in range(1000):
        assert await guess(throttle, attempt()) == 0
        assert await throttle.admit_registration(HOME) == 0
    await throttle.trust(attempt())


def test_addresses_of_one_subscriber_are_one() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8:0:0:ffff::2")
    assert address_key("2001:db8::1") != address_key("2001:db8:0:1::1")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("fe80::1%eth0") == address_key("fe80::1")
    assert address_key("192.0.2.1") != address_key("192.0.2.2")
    assert address_key("nonsense") != address_key("")


@given(st.text(max_size=2000))
def test_keys_are_short_whatever_they_stand_for(text: str) -> None:
    assert 4 <= len(account_key(text)) <= 16
    assert 4 <= len(address_key(text)) <= 16


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(Outcome), st.floats(0, 100), st.booleans()),
        max_size=200,
    )
)
async def test_a_wait_is_bounded_and_ends(
    steps: list[tuple[int, int, Outcome, float, bool]],
) -> None:
    clock = FakeClock()
    throttle = MemoryThrottle(ThrottlePolicy(), clock)
    open_attempts: list[Attempt] = []
    for account, address, outcome, seconds, settles in steps:
        who = attempt(f"user{account}", f"192.0.2.{address}")
        wait_s = await throttle.admit(who)
        assert 0 <= wait_s <= 60
        if wait_s == 0 and settles:
            await throttle.settle(who, outcome)
        elif wait_s == 0:
            open_attempts.append(who)
        clock.advance(seconds)
    for who in open_attempts:
        await throttle.settle(who, Outcome.FAILED)
    clock.advance(60)
    for account in range(3):
        assert await throttle.admit(attempt(f"user{account}", "192.0.2.0")) == 0
        await throttle.settle(attempt(f"user{account}", "192.0.2.0"), Outcome.SUCCEEDED)
