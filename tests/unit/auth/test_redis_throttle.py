"""The throttle over a real Redis: what instances share, what expires, and what each does alone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import redis

from services.auth import redis_throttle
from services.auth.redis_throttle import OWNER_S, RedisThrottle
from services.auth.throttle import (
    Attempt,
    Backoff,
    MemoryThrottle,
    Outcome,
    ThrottlePolicy,
    account_key,
    address_key,
)
from services.common.clock import SystemClock
from services.common.redis_client import RedisAccess, RedisClient
from tests.helpers.redis_server import be_patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.helpers.redis_server import RedisServer

WAIT_S = 60.0
"""What the first failure too many costs, and what a bucket takes for one more: longer than any of these tests."""

POLICY = ThrottlePolicy(
    pair=Backoff(free=5, first_s=WAIT_S, max_s=WAIT_S, forget_s=900.0),
    address=Backoff(free=50, first_s=WAIT_S, max_s=WAIT_S, forget_s=900.0),
    account=Backoff(free=20, first_s=WAIT_S, max_s=WAIT_S, forget_s=900.0),
    registration_interval_s=WAIT_S,
    bad_token_interval_s=WAIT_S,
)


def attempt(account: str = "alice", address: str = "198.51.100.7") -> Attempt:
    return Attempt(account=account_key(account), address=address_key(address))


@pytest.fixture
async def instance(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], RedisThrottle]]:
    """Makes instances that share one Redis."""
    be_patient(monkeypatch)
    async with AsyncExitStack() as exits:

        def make() -> RedisThrottle:
            access = RedisAccess(url=own_redis.url)
            client = RedisClient(access, clock=SystemClock())
            exits.push_async_callback(client.close)
            return RedisThrottle(client, access, POLICY, MemoryThrottle(POLICY, SystemClock()))

        yield make


async def fail(throttle: RedisThrottle, times: int, who: Attempt | None = None) -> list[float]:
    waits = []
    for _ in range(times):
        waits.append(await throttle.admit(who or attempt()))
        if waits[-1] <= 0:
            await throttle.settle(who or attempt(), Outcome.FAILED)
    return waits


async def test_what_one_instance_counts_holds_for_the_others(instance: Callable[[], RedisThrottle]) -> None:
    one, two = instance(), instance()
    assert await fail(one, 3) == await fail(two, 3) == [0, 0, 0]
    assert 0 < await two.admit(attempt()) <= WAIT_S
    assert 0 < await one.admit(attempt()) <= WAIT_S
    assert 0 < await instance().admit(attempt()) <= WAIT_S  # also for one that has just started
    assert await two.locked_for_s(account_key("alice")) > 0
    assert await two.unlock(account_key("alice"))
    assert await one.admit(attempt()) == 0


async def test_the_owner_is_known_everywhere(instance: Callable[[], RedisThrottle]) -> None:
    one, two = instance(), instance()
    await one.admit(attempt())
    await one.settle(attempt(), Outcome.SUCCEEDED)
    for n in range(60):
        await fail(two, 1, attempt(address=f"203.0.113.{n}"))
        await fail(two, 1, attempt(account=f"user{n}"))
    assert await two.admit(attempt(address="203.0.113.99")) > 0
    assert await two.admit(attempt()) == 0


async def test_everything_expires_by_itself(instance: Callable[[], RedisThrottle], own_redis: RedisServer) -> None:
    one = instance()
    await fail(one, 7)
    await one.trust(attempt())
    await one.admit_registration(address_key("192.0.2.1"))
    await one.count_bad_token(address_key("192.0.2.1"))
    client = redis.Redis(host=own_redis.host, port=own_redis.port)
    lives = {key.decode(): client.ttl(key) for key in client.scan_iter()}
    client.close()
    assert {key.split(":")[3] for key in lives} == {
        "failures", "failures-from", "failures-by-place", "owner", "registrations", "tokens"
    }  # fmt: skip
    assert all(key.startswith("parley:0:auth:") and 0 <= life_s <= OWNER_S for key, life_s in lives.items())
    assert max(life_s for key, life_s in lives.items() if "failures" in key) <= POLICY.pair.forget_s


async def test_addresses_at_one_account_are_told_apart_within_bounds(
    instance: Callable[[], RedisThrottle], own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_throttle, "PLACES_MAX", 3)
    one = instance()
    for n in range(10):
        await fail(one, 1, attempt(address=f"203.0.113.{n}"))
    client = redis.Redis(host=own_redis.host, port=own_redis.port)
    (key,) = client.keys("*failures-by-place*")
    assert client.hlen(key) == 3
    client.close()


async def test_no_name_is_in_redis(instance: Callable[[], RedisThrottle], own_redis: RedisServer) -> None:
    await fail(instance(), 2)
    client = redis.Redis(host=own_redis.host, port=own_redis.port)
    assert not [key for key in client.scan_iter() if b"alice" in key]
    client.close()


async def test_without_redis_each_instance_limits_by_what_it_has_seen_itself(
    instance: Callable[[], RedisThrottle], own_redis: RedisServer
) -> None:
    one, two = instance(), instance()
    await fail(one, 6)
    own_redis.kill()
    assert await one.admit(attempt()) > 0  # it has seen the six
    assert await one.locked_for_s(account_key("alice")) > 0
    assert (await fail(two, 8))[-1] > 0  # it has to see them
    assert await one.admit_registration(address_key("192.0.2.1")) == 0
    assert await one.admit_token(address_key("192.0.2.1")) == 0
    await one.count_bad_token(address_key("192.0.2.1"))
    await one.trust(attempt())
    assert await one.unlock(account_key("alice"))
    assert await one.admit(attempt()) == 0


async def test_an_emptied_redis_starts_from_nothing(
    instance: Callable[[], RedisThrottle], own_redis: RedisServer
) -> None:
    one = instance()
    await fail(one, 6)
    assert await one.admit(attempt()) > 0
    own_redis.flush()
    assert await one.admit(attempt()) == 0
    await one.settle(attempt(), Outcome.FAILED)


async def test_an_attempt_that_redis_never_heard_of_is_settled_all_the_same(
    instance: Callable[[], RedisThrottle], own_redis: RedisServer
) -> None:
    one = instance()
    own_redis.kill()
    assert await one.admit(attempt()) == 0
    await one.settle(attempt(), Outcome.ABANDONED)
    assert not one._in_flight
