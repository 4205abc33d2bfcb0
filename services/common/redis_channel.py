"""A channel of Redis: what others publish, until the connection breaks, and then again.

Publishing and hearing are at most once: whoever is not connected at the moment misses it, without a word from Redis. So
each time that the channel is in place the listener is told, and must assume that anything before was lost. A server
that is silent is asked for a sign of life, because one that is frozen or behind a cut network says nothing either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from services.common.logs import get_logger
from services.common.redis_client import RETRY_FIRST_S, RETRY_MAX_S, TIMEOUT_S, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Connection

    from services.common.clock import Clock
    from services.common.redis_client import RedisAccess
    from services.common.tasks import TaskSet

SILENCE_S: Final = 1.0
"""A server that has said nothing for so long is asked; one that is silent for as long again is given up."""

_log = get_logger(__name__)


class RedisChannel:
    """Hears one channel.

    `on_message` is called with each message, `on_subscribed` whenever the channel is in place, also the first time, and
    `on_lost` when it is no more; none of them may wait.
    """

    def __init__(
        self,
        access: RedisAccess,
        name: str,
        *,
        clock: Clock,
        on_message: Callable[[bytes], None],
        on_subscribed: Callable[[], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._access = access
        self._arguments = access.arguments()
        self._name = name
        self._clock = clock
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self.is_up = False

    def start(self, tasks: TaskSet) -> None:
        """Begins to listen, until the tasks are ended."""
        tasks.spawn(self._run(), name=f"redis channel {self._name}")

    async def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        is_failing = False
        while True:
            connection = self._access.connection_class(**self._arguments)
            try:
                await self._listen(connection)
            except (RedisError, OSError, TimeoutError) as error:
                if self.is_up or not is_failing:
                    _log.warning("redis channel is lost", channel=self._name, reason=reason(error))
                wait_s = RETRY_FIRST_S if self.is_up else min(2 * wait_s, RETRY_MAX_S)
                is_failing = True
            finally:
                if self.is_up:
                    self.is_up = False
                    self._call(self._on_lost)
                await connection.disconnect(nowait=True)
            await self._clock.sleep(wait_s)

    async def _listen(self, connection: Connection) -> None:
        """Hears until the connection breaks. Raises RedisError, OSError or TimeoutError then."""
        async with asyncio.timeout(TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SUBSCRIBE", self._name)
            await connection.read_response()
        self.is_up = True
        _log.info("redis channel is in place", channel=self._name, address=self._access.address)
        self._call(self._on_subscribed)
        is_asked = False
        while True:
            answer: Any = await connection.read_response(timeout=SILENCE_S)
            if answer is not None:
                is_asked = False
                if answer[0] == b"message":
                    self._call(self._on_message, answer[2])
            elif is_asked:
                raise TimeoutError("it is silent")
            else:
                is_asked = True
                async with asyncio.timeout(TIMEOUT_S):
                    await connection.send_command("PING")

    def _call(self, listener: Callable[..., None], *arguments: Any) -> None:
        try:
            listener(*arguments)
        except Exception as error:  # noqa: BLE001 - a defect of the listener must not end the listening
            _log.error("listener of a redis channel failed", channel=self._name, exc_info=error)
