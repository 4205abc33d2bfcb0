"""Carries requests through what passes: a server that is being restarted, a connection that is being made again.

Whoever types a command while the server's processes are restarted one after the other should see its answer a second
later, and no error. What is sent a second time was either certainly not carried out, or may be carried out twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from client.backoff import Backoff
from client.clock import Clock
from client.errors import ConnectionLostError, DrainedError, NotReadyError, RequestError

PATIENCE_S = 30.0
"""A process is back in two seconds, and on a machine that has no time to spare in twenty."""

LOOK_AGAIN_S = 0.1
"""How often to look whether the connection is back."""

NOT_DONE = frozenset({"unavailable"})
"""Refusals after which a request was certainly not carried out, and will be soon."""

NOBODY_KNOWS = frozenset({"unknown_outcome"})

REPEATABLE = frozenset({"join_room", "list_rooms", "user_list", "history", "trace"})
"""What may be carried out twice: it only reads, or who is in a room already stays in it."""

T = TypeVar("T")


class ReconnectingError(NotReadyError):
    """There is no connection, or no login, for the moment; nothing was sent."""


class Patience:
    """`uniform(a, b)` is the source of randomness for the pauses."""

    def __init__(self, clock: Clock, uniform: Callable[[float, float], float]) -> None:
        self._clock = clock
        self._uniform = uniform

    async def carry(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` comes to at last, for the request `name`, or its last error after PATIENCE_S.

        `attempt` makes the request once, and raises ReconnectingError where it cannot now.
        """
        backoff = Backoff(self._uniform)
        until = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except (ReconnectingError, DrainedError):
                wait_s = LOOK_AGAIN_S
                if self._clock.monotonic() + wait_s > until:
                    raise
            except ConnectionLostError:
                wait_s = LOOK_AGAIN_S
                if name not in REPEATABLE or self._clock.monotonic() + wait_s > until:
                    raise
            except RequestError as error:
                wait_s = max(error.retry_after_s or 0.0, backoff.next_delay_s())
                passes = error.code in NOT_DONE or (error.code in NOBODY_KNOWS and name in REPEATABLE)
                if not passes or self._clock.monotonic() + wait_s > until:
                    raise
            await self._clock.sleep(wait_s)
