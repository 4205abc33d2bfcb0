"""Sharing: what auth instances on one database tell each other, and what a single one keeps to itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.auth.redis_revocations import RedisRevocations
from services.auth.redis_throttle import RedisThrottle
from services.auth.revocations import Revocations
from services.auth.throttle import MemoryThrottle, NoThrottle, Throttle
from services.common.redis_client import RedisClient

if TYPE_CHECKING:
    from services.auth.config import AuthConfig
    from services.common.clock import Clock
    from services.common.tasks import TaskSet


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The parts of an instance that others may have a part in."""

    revocations: Revocations
    throttle: Throttle
    client: RedisClient | None = None

    def start(self, tasks: TaskSet) -> None:
        """Begins to hear of the others."""
        if self.client is not None:
            self.client.start(tasks)
        self.revocations.start(tasks)

    async def close(self) -> None:
        """Closes connections; the tasks have ended before."""
        if self.client is not None:
            await self.client.close()


def open_sharing(config: AuthConfig, clock: Clock) -> Sharing:
    """As the configuration says. Nothing is dialled yet, and an absent Redis is no reason not to start."""
    local = MemoryThrottle(config.throttle_policy, clock)
    access = config.redis_access
    if access is None:
        return Sharing(revocations=Revocations(), throttle=local if config.throttle else NoThrottle())
    client = RedisClient(access, clock=clock)
    shared = RedisThrottle(client, access, config.throttle_policy, local)
    return Sharing(
        revocations=RedisRevocations(client, access, clock=clock),
        throttle=shared if config.throttle else NoThrottle(),
        client=client,
    )
