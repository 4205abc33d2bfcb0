"""Revocations between auth instances: an edge hears of the end of its sessions from whichever instance it listens to.

Redis carries each end to the other instances, and may lose it. Nothing here depends on that it does not: when the
channel breaks, and when it is in place again, all edges are sent to ask which of their sessions are alive, and while it
is away they ask every three seconds in place of five. So a revocation takes effect within a moment while Redis is
there, and within five seconds while it is not, frozen or emptied.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from services.auth.revocations import EdgeBoot, EndedSession, EndReason, Revocations
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.redis_channel import RedisChannel
from services.common.redis_client import RETRY_FIRST_S, RedisClient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.common.clock import Clock
    from services.common.redis_client import RedisAccess
    from services.common.tasks import TaskSet

CHANNEL: Final = "auth:ended"

LEASE_WHILE_ALONE_S: Final = 9.0
"""What edges are told of their lease while the channel is away: they renew three times in it."""

ENDED_MAX: Final = 1_000
"""Sessions in one message: 100 KB."""

WAITING_MAX: Final = 1_000
"""Messages that wait to be sent; while Redis is away edges hear of what is dropped by asking."""

_log = get_logger(__name__)


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """Ends of sessions, as (session, edge, boot)."""

    sender: str
    reason: EndReason
    ended: list[tuple[str, str, str]]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


class RedisRevocations(Revocations):
    """Revocations that are heard by the edges of all instances."""

    def __init__(self, client: RedisClient, access: RedisAccess, *, clock: Clock) -> None:
        super().__init__()
        self._client = client
        self._clock = clock
        self._sender = secrets.token_hex(8)
        self._name = access.scoped(CHANNEL)
        self._waiting: deque[bytes] = deque(maxlen=WAITING_MAX)
        self._woken = asyncio.Event()
        self._channel = RedisChannel(
            access,
            self._name,
            clock=clock,
            on_message=self._on_message,
            on_subscribed=self.ask_again,
            on_lost=self.ask_again,
        )

    @property
    def lease_s_max(self) -> float:
        """See `Revocations`."""
        return float("inf") if self._channel.is_up else LEASE_WHILE_ALONE_S

    def start(self, tasks: TaskSet) -> None:
        """Begins to hear and to send, until the tasks are ended."""
        self._channel.start(tasks)
        tasks.spawn(self._send(), name="revocations to redis")

    def publish(self, ended: Iterable[EndedSession], reason: EndReason) -> None:
        """Tells the edges that listen here at once, and the others through Redis."""
        every = list(ended)
        super().publish(every, reason)
        for start in range(0, len(every), ENDED_MAX):
            some = [(one.session_id, one.edge.name, one.edge.boot_id) for one in every[start : start + ENDED_MAX]]
            self._waiting.append(_encode(_Message(self._sender, reason, some)))
        self._woken.set()

    def _on_message(self, data: bytes) -> None:
        try:
            message = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.warning("message on a redis channel is not understood", channel=self._name, reason=str(error))
            return
        if message.sender != self._sender:
            ended = [EndedSession(session_id, EdgeBoot(name, boot_id)) for session_id, name, boot_id in message.ended]
            super().publish(ended, message.reason)

    async def _send(self) -> None:
        while True:
            if not self._waiting:
                self._woken.clear()
                await self._woken.wait()
            message = self._waiting[0]
            try:
                await self._client.execute("PUBLISH", self._name, message)
            except ParleyError:  # twice does no harm, and there may be instances that Redis still reaches
                await self._clock.sleep(RETRY_FIRST_S)  # the client itself lets hardly any of these through
                continue
            if self._waiting and self._waiting[0] is message:  # it may have been dropped meanwhile
                self._waiting.popleft()
