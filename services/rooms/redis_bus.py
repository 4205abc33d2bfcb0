"""The bus over Redis: its batches on one channel."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.redis_channel import RedisChannel
from services.common.redis_client import RedisClient
from services.common.wire.codes import ErrorCode
from services.rooms.bus import LocalBus
from services.rooms.shared_bus import SharedBus

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.clock import Clock
    from services.common.redis_client import RedisAccess
    from services.common.tasks import TaskSet
    from services.rooms.bus import Bus
    from services.rooms.counts import BusCounts

CHANNEL: Final = "rooms"
_log = get_logger(__name__)


class RedisTransport:
    """Carries batches over Redis; see shared_bus.Transport."""

    def __init__(self, access: RedisAccess, *, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._client = RedisClient(access, clock=clock)
        self._channel_name = access.scoped(CHANNEL)
        self._channel: RedisChannel | None = None

    @property
    def is_up(self) -> bool:
        """Whether batches can be expected to arrive."""
        return self._channel is not None and self._channel.is_up and self._client.is_up

    def start(self, tasks: TaskSet, *, on_message: Callable[[bytes], None], on_subscribed: Callable[[], None]) -> None:
        """Begins to hear."""
        self._channel = RedisChannel(
            self._access, self._channel_name, clock=self._clock, on_message=on_message, on_subscribed=on_subscribed
        )
        self._channel.start(tasks)
        self._client.start(tasks)

    async def publish(self, message: bytes) -> None:
        """Sends a batch. Raises ParleyError unavailable, whatever it is that Redis says."""
        try:
            await self._client.execute("PUBLISH", self._channel_name, message)
        except RedisError as error:
            _log.error("redis does not take a batch", reason=type(error).__name__)
            raise ParleyError(ErrorCode.UNAVAILABLE, "Redis does not take it") from error

    async def close(self) -> None:
        """Closes its connections; the tasks have ended before."""
        await self._client.close()


def open_bus(access: RedisAccess | None, *, clock: Clock, counts: BusCounts) -> Bus:
    """The bus between the instances that share a Redis, or that of the only instance."""
    if access is None:
        return LocalBus()
    transport = RedisTransport(access, clock=clock)
    return SharedBus(transport, sender_id=secrets.token_hex(8), clock=clock, counts=counts)
