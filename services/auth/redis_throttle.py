"""The throttle over Redis: what one instance has counted holds for all, and through their restarts.

Each decision is one script, which Redis runs as a whole, on Redis' own clock; each record expires by itself when it
means nothing any more. Attempts that are under way are counted by each instance for itself: Redis could not know that
an instance died with some of them.

While Redis is away every instance goes on with what it has counted itself, which it does all the time for that purpose:
guessers gain one allowance for each instance, and nobody is locked out. A Redis that was emptied starts from nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from services.auth.throttle import Outcome
from services.common.errors import ParleyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.auth.throttle import Attempt, Backoff, MemoryThrottle, ThrottlePolicy
    from services.common.redis_client import RedisAccess, RedisClient

OWNER_S: Final = 30 * 86_400
"""How long a place is remembered from which an account's owner has logged in."""

PLACES_MAX: Final = 1_000
"""Addresses whose failures at one account are told apart; beyond them the account's own record must do."""

# A record is "count failed_at blocked_until", in Redis' milliseconds. KEYS[1] holds those of an account by address.
# The last argument is added to Redis' clock.
_RECORDS: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[#ARGV]
local function read(key, field, forget)
  local count, failed_at, blocked_until = string.match(redis.call('HGET', key, field) or '0 0 0', '(%d+) (%d+) (%d+)')
  if now - failed_at > forget then count = 0 end
  return tonumber(count), math.max(0, blocked_until - now)
end
"""

_ADMIT: Final = (
    _RECORDS
    + """
local pair, wait = read(KEYS[1], ARGV[1], ARGV[2] + 0)
if redis.call('EXISTS', KEYS[4]) == 1 then return {wait, pair, -1} end
local _, address_wait = read(KEYS[2], '', ARGV[3] + 0)
local account, account_wait = read(KEYS[3], '', ARGV[4] + 0)
return {math.max(wait, address_wait, account_wait), pair, account}
"""
)

# ARGV: the field of the pair, the most fields, and for each record free, first, max and forget.
_FAIL: Final = (
    _RECORDS
    + """
local function fail(key, field, at)
  local free, first, most, forget = ARGV[at] + 0, ARGV[at + 1] + 0, ARGV[at + 2] + 0, ARGV[at + 3] + 0
  local count = read(key, field, forget) + 1
  local blocked_until = 0
  if count > free then
    blocked_until = now + math.floor(math.min(most, first * 2 ^ math.min(count - free - 1, 32)))
  end
  redis.call('HSET', key, field, string.format('%.0f %.0f %.0f', count, now, blocked_until))
  redis.call('PEXPIRE', key, forget)
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HLEN', KEYS[1]) < ARGV[2] + 0 then
  fail(KEYS[1], ARGV[1], 3)
end
fail(KEYS[2], '', 7)
fail(KEYS[3], '', 11)
"""
)

_LOCKED: Final = (
    _RECORDS
    + """
local longest = 0
for index, key in ipairs(KEYS) do
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local _, wait = read(key, field, ARGV[index] + 0)
    longest = math.max(longest, wait)
  end
end
return longest
"""
)

# A token bucket, kept as the time at which it is full again (GCRA), with 10 ms for what calls take on their way. ARGV:
# interval, burst, and what to do.
_BUCKET: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000 + ARGV[#ARGV]
local interval, burst = ARGV[1] + 0, ARGV[2] * ARGV[1]
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local wait = math.ceil(math.max(0, full_at + interval - now - burst - 10))
if ARGV[3] == 'take' or (ARGV[3] == 'try' and wait == 0) then
  full_at = math.min(full_at + interval, now + burst)
  redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now) + 1)
end
return wait
"""


class RedisThrottle:
    """The throttle that instances share; `local` is what this one has counted itself.

    `ahead_s` is added to Redis' clock, by tests, which do not wait.
    """

    def __init__(
        self,
        client: RedisClient,
        access: RedisAccess,
        policy: ThrottlePolicy,
        local: MemoryThrottle,
        *,
        ahead_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._client = client
        self._access = access
        self._policy = policy
        self._local = local
        self._ahead_s = ahead_s
        self._in_flight: Counter[bytes] = Counter()

    async def admit(self, attempt: Attempt) -> float:
        """See `Throttle`."""
        policy, pair_key = self._policy, attempt.account + attempt.address
        try:
            wait_ms, pair_count, account_count = await self._run(
                _ADMIT,
                keys=[*self._records(attempt), self._owner(attempt)],
                arguments=[
                    attempt.address,
                    *(_ms(backoff.forget_s) for backoff in (policy.pair, policy.address, policy.account)),
                ],
            )
        except ParleyError:
            return await self._local.admit(attempt)
        wait_s = max(
            wait_ms / 1_000,
            self._queue_s(policy.pair, pair_count, self._in_flight[pair_key]),
            # An owner waits for nobody; an address may have hundreds of logins under way.
            self._queue_s(policy.account, account_count, self._in_flight[attempt.account]) if account_count >= 0 else 0,
        )
        if wait_s <= 0:
            self._in_flight[pair_key] += 1
            self._in_flight[attempt.account] += 1
        return float(wait_s)

    async def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """See `Throttle`."""
        for key in (attempt.account + attempt.address, attempt.account):
            self._in_flight[key] -= 1
            if self._in_flight[key] <= 0:  # below 0: it was admitted while Redis was away
                del self._in_flight[key]
        await self._local.settle(attempt, outcome)
        if outcome is Outcome.FAILED:
            policy = self._policy
            numbers = [_numbers(backoff) for backoff in (policy.pair, policy.address, policy.account)]
            await self._try(
                self._run(
                    _FAIL,
                    keys=self._records(attempt),
                    arguments=[attempt.address, PLACES_MAX, *(number for one in numbers for number in one)],
                )
            )
        elif outcome is Outcome.SUCCEEDED:
            await self._try(
                self._client.execute_all(
                    [("HDEL", self._records(attempt)[0], attempt.address), self._trusting(attempt)]
                )
            )

    async def trust(self, attempt: Attempt) -> None:
        """See `Throttle`."""
        await self._local.trust(attempt)
        await self._try(self._client.execute(*self._trusting(attempt)))

    async def admit_registration(self, address: bytes) -> float:
        """See `Throttle`."""
        policy = self._policy
        try:
            return await self._bucket(
                "registrations", address, policy.registration_interval_s, policy.registration_burst, "try"
            )
        except ParleyError:
            return await self._local.admit_registration(address)

    async def admit_token(self, address: bytes) -> float:
        """See `Throttle`."""
        policy = self._policy
        try:
            return await self._bucket("tokens", address, policy.bad_token_interval_s, policy.bad_token_burst, "look")
        except ParleyError:
            return await self._local.admit_token(address)

    async def count_bad_token(self, address: bytes) -> None:
        """See `Throttle`."""
        policy = self._policy
        await self._local.count_bad_token(address)
        await self._try(self._bucket("tokens", address, policy.bad_token_interval_s, policy.bad_token_burst, "take"))

    async def locked_for_s(self, account: bytes) -> float:
        """See `Throttle`."""
        forget = [_ms(self._policy.pair.forget_s), _ms(self._policy.account.forget_s)]
        try:
            wait_ms = await self._run(_LOCKED, keys=self._of_account(account), arguments=forget)
        except ParleyError:
            return await self._local.locked_for_s(account)
        return float(wait_ms) / 1_000

    async def unlock(self, account: bytes) -> bool:
        """See `Throttle`."""
        was_locked = await self.locked_for_s(account) > 0
        was_locked_here = await self._local.unlock(account)
        await self._try(self._client.execute("DEL", *self._of_account(account)))
        return was_locked or was_locked_here

    def _queue_s(self, backoff: Backoff, count: int, in_flight: int) -> float:
        """Many guesses sent at once would all pass before the first has failed: beyond the allowance, one at a time."""
        return backoff.first_s if in_flight and count + in_flight > backoff.free else 0.0

    async def _run(self, script: str, *, keys: Sequence[str], arguments: Sequence[bytes | int | str]) -> Any:
        ahead_ms = _ms(self._ahead_s())
        return await self._client.run_script(script, keys=keys, arguments=[*arguments, ahead_ms])

    async def _bucket(self, kind: str, address: bytes, interval_s: float, burst: int, what: str) -> float:
        wait_ms = await self._run(_BUCKET, keys=[self._key(kind, address)], arguments=[_ms(interval_s), burst, what])
        return float(wait_ms) / 1_000

    async def _try(self, call: Any) -> None:
        """What cannot be counted there is counted here, and was."""
        try:
            await call
        except ParleyError:
            return

    def _records(self, attempt: Attempt) -> list[str]:
        pairs, account = self._of_account(attempt.account)
        return [pairs, self._key("failures-from", attempt.address), account]

    def _of_account(self, account: bytes) -> list[str]:
        return [self._key("failures-by-place", account), self._key("failures", account)]

    def _owner(self, attempt: Attempt) -> str:
        return self._key("owner", attempt.account + attempt.address)

    def _trusting(self, attempt: Attempt) -> tuple[str, str, int, str, int]:
        return ("SET", self._owner(attempt), 1, "EX", OWNER_S)

    def _key(self, kind: str, name: bytes) -> str:
        return self._access.scoped(f"auth:{kind}:{name.hex()}")


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def _numbers(backoff: Backoff) -> tuple[int, int, int, int]:
    return backoff.free, _ms(backoff.first_s), _ms(backoff.max_s), _ms(backoff.forget_s)
