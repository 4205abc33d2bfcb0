"""Departures: tells auth and rooms whose connections have ended, many at a time, until they have heard it.

A session that auth still believes in keeps its owner from logging in again, so this is sent at once; whatever ends
while a call is under way goes with the next one. If auth or rooms cannot be reached for longer than they keep a
silent edge's sessions, there is nothing left to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.edge.ports import AuthBackend, RoomsBackend

_BATCH_MAX: Final = 1_000
"""Ids in one call: some 30 KiB."""

_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0

_GIVE_UP_S: Final = 120.0
"""Longer than the lease of a silent edge at auth and the grace period at rooms."""

_log = get_logger(__name__)


class _Outbound:
    """Ids for one service."""

    def __init__(self, name: str, send: Callable[[Sequence[str]], Awaitable[None]], clock: Clock) -> None:
        self._name = name
        self._send = send
        self._clock = clock
        self._waiting: dict[str, float] = {}  # session id -> when it ended
        self._woken = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def add(self, session_id: str) -> None:
        self._waiting[session_id] = self._clock.monotonic()
        self._woken.set()

    async def run(self) -> None:
        retry_s = _RETRY_FIRST_S
        while True:
            if not self._waiting:
                self._woken.clear()
                await self._woken.wait()
            batch = dict(list(self._waiting.items())[:_BATCH_MAX])
            try:
                await self._send(list(batch))
            except ParleyError as error:
                self._give_up(error)
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, _RETRY_MAX_S)
                continue
            retry_s = _RETRY_FIRST_S
            for session_id in batch:
                del self._waiting[session_id]

    def _give_up(self, error: ParleyError) -> None:
        limit = self._clock.monotonic() - _GIVE_UP_S
        old = [session_id for session_id, ended_at in self._waiting.items() if ended_at < limit]
        for session_id in old:
            del self._waiting[session_id]
        if old:
            _log.warning("ends of sessions never told", service_called=self._name, count=len(old), code=error.code)


class Departures:
    """Sessions whose ends are to be told."""

    def __init__(self, auth: AuthBackend, rooms: RoomsBackend, clock: Clock) -> None:
        self._auth = _Outbound("auth", auth.end_sessions, clock)
        self._rooms = _Outbound("rooms", rooms.close_sessions, clock)

    @property
    def is_idle(self) -> bool:
        """Whether everything has been told."""
        return self._auth.is_idle and self._rooms.is_idle

    def ended(self, session_id: str) -> None:
        """The connection of a session has ended: both services are told."""
        self._auth.add(session_id)
        self._rooms.add(session_id)

    def logged_out(self, session_id: str) -> None:
        """A session has ended at auth: only rooms is told."""
        self._rooms.add(session_id)

    async def run(self) -> None:
        """Tell them, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._auth.run(), name="departures to auth")
            tasks.create_task(self._rooms.run(), name="departures to rooms")
