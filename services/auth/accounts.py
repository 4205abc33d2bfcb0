"""Accounts: registering, and proving that one is who one claims to be.

The order in a login is throttle, hash, session: what is cheap and refuses goes first. Whoever fails gets one answer
after one amount of work, whether the name is unknown, the password wrong or the account disabled.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.auth.hash_pool import HashJob
from services.auth.names import Username, canonical_username, parse_username
from services.auth.passwords import check_new_password
from services.auth.sessions import invalid_credentials
from services.auth.throttle import Attempt, Outcome, account_key, address_key
from services.auth.tokens import new_user_id
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.auth.hash_pool import HashPool
    from services.auth.passwords import PasswordScheme
    from services.auth.throttle import Throttle
    from services.common.clock import Clock
    from services.common.tasks import TaskSet

# A rehash after a login is housekeeping: it gives way where this many people wait for theirs.
_REHASH_PENDING_MAX = 2
_REHASH_DEADLINE_S = 30.0
_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """An account as it is stored. `created_at_ms` is Unix milliseconds."""

    user_id: str
    username: str
    skeleton: str
    password_hash: str
    created_at_ms: int
    disabled: bool = False

    def __repr__(self) -> str:
        return f"Account({self.user_id})"  # the hash stays out of logs and tracebacks


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountStatus:
    """An account as operators see it."""

    user_id: str
    username: str
    created_at_ms: int
    disabled: bool
    online: bool


class AccountStore(Protocol):
    """Where accounts are kept. Every write is one transaction, durable when it returns. Raises `ParleyError`
    unavailable, overloaded or unknown_outcome."""

    async def insert_account(self, account: Account) -> bool:
        """False where the name or its look is taken, by then."""
        ...

    async def is_taken(self, name: Username) -> bool:
        """Whether the name, or one that looks like it, is taken."""
        ...

    async def find_account(self, username: str) -> Account | None:
        """By the name as it is stored."""
        ...

    async def replace_password_hash(self, user_id: str, *, old: str, new: str) -> None:
        """Unless it has changed meanwhile."""
        ...

    async def set_password_hash(self, user_id: str, new: str) -> None:
        """Whatever it was."""
        ...

    async def list_accounts(self, *, query: str, after: str, limit: int) -> Sequence[AccountStatus]:
        """By name, those behind `after` whose name contains `query`."""
        ...

    async def account_status(self, username: str) -> AccountStatus | None:
        """One account, for operators."""
        ...

    async def set_disabled(self, user_id: str, *, disabled: bool) -> None:
        """Disables or enables."""
        ...

    async def count_accounts(self) -> int:
        """How many there are."""
        ...


class Accounts:
    """Registers and authenticates. Deadlines are on the clock's monotonic scale."""

    def __init__(
        self,
        *,
        store: AccountStore,
        scheme: PasswordScheme,
        pool: HashPool,
        throttle: Throttle,
        clock: Clock,
        tasks: TaskSet,
    ) -> None:
        self._store = store
        self._scheme = scheme
        self._pool = pool
        self._throttle = throttle
        self._clock = clock
        self._tasks = tasks
        self.count = 0

    async def register(self, *, username: str, password: str, address: str, deadline: float) -> Account:
        """Makes an account. Raises `ParleyError` bad_username, weak_password, username_taken, rate_limited or
        unavailable."""
        name = parse_username(username)
        check_new_password(password, username=name.text)
        place = address_key(address)
        _refuse_to_wait(await self._throttle.admit_registration(place), "too many new accounts from this address")
        if await self._store.is_taken(name):
            raise _taken()
        job = HashJob(lambda: self._scheme.hash(password), deadline=deadline, source=place)
        password_hash = await self._pool.run(job)
        account = Account(
            user_id=new_user_id(),
            username=name.text,
            skeleton=name.skeleton,
            password_hash=password_hash,
            created_at_ms=round(self._clock.now() * 1000),
        )
        try:
            is_new = await self._store.insert_account(account)
        except ParleyError as error:
            if error.code is ErrorCode.UNKNOWN_OUTCOME:
                raise ParleyError(ErrorCode.UNAVAILABLE, "it is not known whether the account was made") from error
            raise
        if not is_new:
            raise _taken()
        self.count += 1
        await self._throttle.trust(Attempt(account=account_key(name.text), address=place))
        return account

    async def authenticate(self, *, username: str, password: str, address: str, deadline: float) -> Account:
        """The account whose name and password these are. Raises `ParleyError` invalid_credentials, rate_limited or
        unavailable."""
        name = canonical_username(username)
        attempt = Attempt(account=account_key(name or f"\0{username}"), address=address_key(address))
        _refuse_to_wait(await self._throttle.admit(attempt), "too many failed logins")
        outcome = Outcome.ABANDONED
        job: HashJob[bool] | None = None
        try:
            self._pool.admit(deadline=deadline, source=attempt.address)
            account = None if name is None else await self._store.find_account(name)
            stored = account.password_hash if account is not None else None
            job = HashJob(lambda: self._scheme.verify(password, stored), deadline=deadline, source=attempt.address)
            is_right = await self._pool.run(job)
            outcome = Outcome.FAILED
            if account is None or not is_right or account.disabled:
                raise invalid_credentials()
            outcome = Outcome.SUCCEEDED
        except asyncio.CancelledError:
            if job is not None and job.has_started:
                outcome = Outcome.FAILED  # otherwise hanging up early would make guesses, and our CPU time, free
            raise
        finally:
            await self._throttle.settle(attempt, outcome)
        self._rehash_later(account, password)
        return account

    async def set_password(self, *, user_id: str, username: str, password: str, deadline: float) -> None:
        """Gives an account another password. Logins that are under way with the old one open nothing any more; what is
        open stays open. Raises `ParleyError` weak_password, rate_limited or unavailable."""
        check_new_password(password, username=username)
        new = await self._pool.run(HashJob(lambda: self._scheme.hash(password), deadline=deadline))
        await self._store.set_password_hash(user_id, new)

    async def locked_for_s(self, username: str) -> float:
        """For how long failed logins keep the next one waiting, from the address where that is longest."""
        return await self._throttle.locked_for_s(account_key(username))

    async def unlock(self, username: str) -> bool:
        """Forgets the failed logins of an account; returns whether one would have had to wait."""
        return await self._throttle.unlock(account_key(username))

    async def recount(self) -> None:
        """Sets `count` from the store, which other instances share."""
        self.count = await self._store.count_accounts()

    def _rehash_later(self, account: Account, password: str) -> None:
        """Brings the stored hash to the configured rounds, now that the password is known, when nobody waits."""
        if self._pool.pending < _REHASH_PENDING_MAX and self._scheme.is_outdated(account.password_hash):
            self._tasks.spawn(self._rehash(account, password), name="rehash")

    async def _rehash(self, account: Account, password: str) -> None:
        deadline = self._clock.monotonic() + _REHASH_DEADLINE_S
        try:
            new = await self._pool.run(HashJob(lambda: self._scheme.hash(password), deadline=deadline))
            await self._store.replace_password_hash(account.user_id, old=account.password_hash, new=new)
        except ParleyError as error:  # the next login tries again
            _log.info("password not rehashed", user_id=account.user_id, code=error.code)


def _refuse_to_wait(wait_s: float, message: str) -> None:
    if wait_s > 0:
        raise ParleyError(ErrorCode.RATE_LIMITED, message, retry_after_s=round(wait_s, 3))


def _taken() -> ParleyError:
    return ParleyError(ErrorCode.USERNAME_TAKEN, "this name, or one that looks like it, is taken")
