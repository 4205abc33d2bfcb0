"""The throttle: how fast passwords may be guessed and accounts be made, without a way to lock anybody out.

Failed logins are counted three ways, each with an allowance of free failures and then a wait that doubles:

- by account and address: slows whoever guesses at one account;
- by address: slows whoever tries one password on many accounts;
- by account, over all addresses: slows a guess that comes from everywhere.

The last two would let a stranger, or a neighbour behind the same address, keep the owner out. So they do not apply to a
pair of account and address that has logged in (or registered) with success before: the owner at home waits for nobody.
Tokens cannot be guessed; bad ones are counted by address so that whoever tries costs the storage nothing.
An attempt that is refused here is not a failure, so hammering does not prolong a wait, and a wait never exceeds by much
the time for which somebody has been guessing. Unknown names are throttled exactly as known ones.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.common.clock import Clock

_IPV6_PREFIX_BITS = 64  # what one subscriber gets: all its addresses are one
_KEY_BYTES = 16
_TOLERANCE_S = 1e-9  # what rounding makes of nothing


class Outcome(Enum):
    """What became of an admitted login."""

    SUCCEEDED = auto()
    FAILED = auto()
    ABANDONED = auto()  # decided nothing: no password was compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """Who tries to log in, and from where, as short keys."""

    account: bytes
    address: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """`free` failures cost nothing; the next one costs a wait of `first_s`, each more doubles it up to `max_s`.
    Without a failure for `forget_s` all are forgotten."""

    free: int
    first_s: float
    max_s: float
    forget_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ThrottlePolicy:
    """The numbers. `entries_max` bounds each table: 65,536 entries take about 20 MB."""

    # A person mistypes a few times; a minute a guess leaves a guesser 1,440 a day, too few for any decent password.
    pair: Backoff = Backoff(free=5, first_s=1.0, max_s=60.0, forget_s=900.0)
    # An office behind one address mistypes more often than a person.
    address: Backoff = Backoff(free=50, first_s=1.0, max_s=60.0, forget_s=900.0)
    # Shorter, because strangers can cause it: it slows the owner's first login from a new place.
    account: Backoff = Backoff(free=20, first_s=1.0, max_s=30.0, forget_s=900.0)
    registration_burst: int = 256
    registration_interval_s: float = 2.0
    # All clients behind one address may come back with tokens that have expired meanwhile; then one every interval.
    bad_token_burst: int = 256
    bad_token_interval_s: float = 0.5
    entries_max: int = 65_536


class Throttle(Protocol):
    """The port. Every admitted attempt is settled exactly once."""

    async def admit(self, attempt: Attempt) -> float:
        """0 when the attempt may go on, otherwise the seconds to wait; only an admitted attempt is settled."""
        ...

    async def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Says what became of an admitted attempt."""
        ...

    async def trust(self, attempt: Attempt) -> None:
        """Remembers that the account's owner is at this address, as a successful login does."""
        ...

    async def admit_registration(self, address: bytes) -> float:
        """0 when the address may make an account now, otherwise the seconds to wait."""
        ...

    async def admit_token(self, address: bytes) -> float:
        """0 when the address may try a token now, otherwise the seconds to wait."""
        ...

    async def count_bad_token(self, address: bytes) -> None:
        """A token from this address was not good."""
        ...

    async def locked_for_s(self, account: bytes) -> float:
        """How long a login to the account has to wait, from the address where that is longest; 0 where none does."""
        ...

    async def unlock(self, account: bytes) -> bool:
        """Forgets the account's failures, from wherever; returns whether a login would have had to wait."""
        ...


def account_key(username: str) -> bytes:
    """The key of an account name, known or not: of one size whatever was typed, and no name in memory dumps."""
    return hashlib.blake2b(username.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def address_key(address: str) -> bytes:
    """The key of a network address: one for all of an IPv6 /64, one for both spellings of an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return account_key(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ip.packed[: _IPV6_PREFIX_BITS // 8]
        ip = ip.ipv4_mapped
    return ip.packed


class NoThrottle:
    """The twin for load tests: admits everything."""

    async def admit(self, attempt: Attempt) -> float:
        """Always 0."""
        return 0.0

    async def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Remembers nothing."""

    async def trust(self, attempt: Attempt) -> None:
        """Remembers nothing."""

    async def admit_registration(self, address: bytes) -> float:
        """Always 0."""
        return 0.0

    async def admit_token(self, address: bytes) -> float:
        """Always 0."""
        return 0.0

    async def count_bad_token(self, address: bytes) -> None:
        """Remembers nothing."""

    async def locked_for_s(self, account: bytes) -> float:
        """Always 0."""
        return 0.0

    async def unlock(self, account: bytes) -> bool:
        """Never had anything."""
        return False


class _Failures:
    """The failures of one key."""

    __slots__ = ("blocked_until", "count", "failed_at", "in_flight")

    def __init__(self) -> None:
        self.count = 0
        self.failed_at = 0.0
        self.blocked_until = 0.0
        self.in_flight = 0

    def wait_s(self, backoff: Backoff, now: float, *, counts_in_flight: bool) -> float:
        if self.count and now - self.failed_at > backoff.forget_s:
            self.count = 0
        if self.blocked_until > now:
            return self.blocked_until - now
        # Many guesses sent at once would all pass before the first has failed: beyond the allowance, one at a time.
        used = self.count + (self.in_flight if counts_in_flight else 0)
        return backoff.first_s if self.in_flight and used > backoff.free else 0.0

    def fail(self, backoff: Backoff, now: float) -> None:
        self.count += 1
        self.failed_at = now
        if self.count > backoff.free:
            doublings = min(self.count - backoff.free - 1, 32)  # beyond any max_s, and no overflow
            self.blocked_until = now + min(backoff.max_s, backoff.first_s * 2.0**doublings)


class _Table(OrderedDict[bytes, _Failures]):
    """Entries by key, least recently touched first; the oldest goes when there are too many."""

    def __init__(self, entries_max: int) -> None:
        super().__init__()
        self._entries_max = entries_max

    def touch(self, key: bytes) -> _Failures:
        entry = self.get(key)
        if entry is None:
            entry = self[key] = _Failures()
            if len(self) > self._entries_max:
                self.popitem(last=False)
        else:
            self.move_to_end(key)
        return entry


class _Buckets:
    """Token buckets by key, each kept as the time at which it is full again (GCRA, ITU-T I.371)."""

    def __init__(self, burst: int, interval_s: float, entries_max: int) -> None:
        self._burst_s = burst * interval_s
        self._interval_s = interval_s
        self._entries_max = entries_max
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_s(self, key: bytes, now: float) -> float:
        """How long until one may be taken; 0 when it may be now."""
        wait_s = max(now, self._full_at.get(key, now)) + self._interval_s - now - self._burst_s
        return wait_s if wait_s > _TOLERANCE_S else 0.0

    def take(self, key: bytes, now: float) -> None:
        """Takes one; more than there are never makes the wait longer than that for one."""
        full_at = max(now, self._full_at.get(key, now)) + self._interval_s
        self._full_at[key] = min(full_at, now + self._burst_s)
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._entries_max:
            self._full_at.popitem(last=False)


class MemoryThrottle:
    """The throttle of one instance. A restart forgets everything, which frees guessers for one allowance."""

    def __init__(self, policy: ThrottlePolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._pairs = _Table(policy.entries_max)
        self._addresses = _Table(policy.entries_max)
        self._accounts = _Table(policy.entries_max)
        self._owners: OrderedDict[bytes, None] = OrderedDict()  # pairs that have logged in
        self._registrations = _Buckets(policy.registration_burst, policy.registration_interval_s, policy.entries_max)
        self._bad_tokens = _Buckets(policy.bad_token_burst, policy.bad_token_interval_s, policy.entries_max)

    @property
    def entry_count(self) -> int:
        """Entries in all tables together, for the bound on memory."""
        tables = (self._pairs, self._addresses, self._accounts, self._owners)
        return sum(len(table) for table in tables) + len(self._registrations) + len(self._bad_tokens)

    async def admit(self, attempt: Attempt) -> float:
        """See `Throttle`."""
        wait_s = self._wait_s(attempt, self._clock.monotonic())
        if wait_s <= 0:  # what is refused leaves no trace, so it cannot push others out of the tables either
            for entry in self._entries(attempt):
                entry.in_flight += 1
        return wait_s

    async def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """See `Throttle`."""
        now = self._clock.monotonic()
        pair, address, account = self._entries(attempt)
        for entry in (pair, address, account):
            entry.in_flight = max(0, entry.in_flight - 1)  # 0 where the entry is new because the table was full
        if outcome is Outcome.FAILED:
            pair.fail(self._policy.pair, now)
            address.fail(self._policy.address, now)
            account.fail(self._policy.account, now)
        elif outcome is Outcome.SUCCEEDED:
            pair.count = 0
            pair.blocked_until = 0.0
            await self.trust(attempt)

    async def trust(self, attempt: Attempt) -> None:
        """See `Throttle`."""
        key = attempt.account + attempt.address
        self._owners[key] = None
        self._owners.move_to_end(key)
        if len(self._owners) > self._policy.entries_max:
            self._owners.popitem(last=False)

    async def admit_registration(self, address: bytes) -> float:
        """See `Throttle`."""
        now = self._clock.monotonic()
        wait_s = self._registrations.wait_s(address, now)
        if wait_s <= 0:
            self._registrations.take(address, now)
        return wait_s

    async def admit_token(self, address: bytes) -> float:
        """See `Throttle`."""
        return self._bad_tokens.wait_s(address, self._clock.monotonic())

    async def count_bad_token(self, address: bytes) -> None:
        """See `Throttle`."""
        self._bad_tokens.take(address, self._clock.monotonic())

    async def locked_for_s(self, account: bytes) -> float:
        """See `Throttle`."""
        now = self._clock.monotonic()
        return max((max(0.0, entry.blocked_until - now) for entry in self._of_account(account)), default=0.0)

    async def unlock(self, account: bytes) -> bool:
        """See `Throttle`."""
        was_locked = await self.locked_for_s(account) > 0
        for entry in self._of_account(account):
            entry.count = 0
            entry.blocked_until = 0.0
        return was_locked

    def _of_account(self, account: bytes) -> list[_Failures]:
        # A walk over all pairs, some 5 ms where the table is full: an operator asks for it, once in a while.
        found = [entry for key, entry in self._pairs.items() if key.startswith(account)]
        total = self._accounts.get(account)
        return found if total is None else [*found, total]

    def _wait_s(self, attempt: Attempt, now: float) -> float:
        pair_key = attempt.account + attempt.address
        # An address may well have hundreds of logins under way after a restart of its edge: only failures count there.
        checks = [(self._pairs.get(pair_key), self._policy.pair, True)]
        if pair_key not in self._owners:
            checks.append((self._addresses.get(attempt.address), self._policy.address, False))
            checks.append((self._accounts.get(attempt.account), self._policy.account, True))
        waits_s = [
            entry.wait_s(backoff, now, counts_in_flight=counts)
            for entry, backoff, counts in checks
            if entry is not None
        ]
        return max(waits_s, default=0.0)

    def _entries(self, attempt: Attempt) -> tuple[_Failures, _Failures, _Failures]:
        return (
            self._pairs.touch(attempt.account + attempt.address),
            self._addresses.touch(attempt.address),
            self._accounts.touch(attempt.account),
        )
