"""The auth service without its process: the real parts on a real SQLite file, with a clock that a test moves.

async with auth_world.make(tmp_path) as world:
    account = await world.register("alice")
    grant = await world.log_in("alice")
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import services.auth
from services.auth.accounts import Accounts
from services.auth.assertions import Assertions
from services.auth.hash_pool import HashPool
from services.auth.passwords import PasswordScheme
from services.auth.revocations import EdgeBoot, Revocations
from services.auth.sessions import SessionPolicy, Sessions
from services.auth.store import SqlStore
from services.auth.sweeper import Sweeper
from services.auth.throttle import MemoryThrottle, ThrottlePolicy
from services.common.assertions import Signer, Verifier
from services.common.clock import FakeClock
from services.common.db import Database, migrate
from services.common.tasks import TaskSet
from tests.helpers import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from services.auth.accounts import Account
    from services.auth.sessions import Grant
    from services.auth.throttle import Throttle
    from services.common.clock import Clock

MIGRATIONS = Path(services.auth.__file__).with_name("migrations")
EDGE = EdgeBoot("edge-1", "boot-a")
PASSWORD = "correct horse"
HOME_ADDRESS = "192.0.2.1"
PEPPER = b"p" * 32


@dataclass(kw_only=True)
class World:
    """Everything that `services.auth.__main__` wires, but the process and the server."""

    url: str
    clock: FakeClock
    database: Database
    store: SqlStore
    pool: HashPool
    throttle: Throttle
    tasks: TaskSet
    revocations: Revocations
    accounts: Accounts
    sessions: Sessions
    assertions: Assertions
    sweeper: Sweeper

    async def register(self, username: str, password: str = PASSWORD, address: str = HOME_ADDRESS) -> Account:
        """A new account."""
        return await self.accounts.register(
            username=username, password=password, address=address, deadline=self.clock.monotonic() + 30
        )

    async def authenticate(self, username: str, password: str = PASSWORD, address: str = HOME_ADDRESS) -> Account:
        """The account, or a ParleyError."""
        return await self.accounts.authenticate(
            username=username, password=password, address=address, deadline=self.clock.monotonic() + 30
        )

    async def log_in(self, username: str, edge: EdgeBoot = EDGE) -> Grant:
        """A session of an account that exists, or a ParleyError."""
        account = await self.authenticate(username)
        return await self.sessions.open(
            user_id=account.user_id, username=account.username, edge=edge, device="test", takeover=False
        )


async def until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Waits for something that other threads do and nothing announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def make(
    directory: Path,
    *,
    rounds: int = 4,
    throttle: Throttle | None = None,
    clock: FakeClock | None = None,
    hash_workers: int = 2,
    hash_queue_max: int = 256,
    hash_clock: Clock | None = None,
) -> AsyncIterator[World]:
    """The service on the database in `directory`, which a later one finds again."""
    clock = clock or FakeClock()
    url = f"sqlite:///{directory / 'auth.db'}"
    migrate(url, MIGRATIONS)
    database = Database(url)
    store = SqlStore(database)
    pool = HashPool(workers=hash_workers, queue_max=hash_queue_max, clock=hash_clock or clock)
    tasks = TaskSet()
    throttle = throttle or MemoryThrottle(ThrottlePolicy(), clock)
    revocations = Revocations()
    scheme = PasswordScheme(pepper=PEPPER, rounds=rounds)
    accounts = Accounts(store=store, scheme=scheme, pool=pool, throttle=throttle, clock=clock, tasks=tasks)
    sessions = Sessions(
        store=store, revocations=revocations, throttle=throttle, policy=SessionPolicy(), clock=clock, tasks=tasks
    )
    keys = certificates.shared().assertion_keys
    try:
        yield World(
            url=url,
            clock=clock,
            database=database,
            store=store,
            pool=pool,
            throttle=throttle,
            tasks=tasks,
            revocations=revocations,
            accounts=accounts,
            sessions=sessions,
            assertions=Assertions(
                signer=Signer(keys.private, clock),
                verifier=Verifier(keys.public, clock),
                store=store,
                lifetime_s=900.0,
                clock=clock,
            ),
            sweeper=Sweeper(accounts=accounts, sessions=sessions, clock=clock),
        )
    finally:
        revocations.close()
        await tasks.close()
        pool.close()
        await database.close()
