"""Leases: keeps this edge's sessions alive at auth, and hears which of them were ended by somebody else.

The watch is opened first and the lease renewed after it, each time the watch is opened: whatever ended in between is
named by the renewal. The ends that this edge asked for itself are not named by either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.edge.ports import AuthBackend

_RENEWALS_PER_LEASE: Final = 3
"""Two renewals may fail before the lease is lost."""

_RETRY_S: Final = 1.0
_LEASE_BEFORE_KNOWN_S: Final = 3.0

_log = get_logger(__name__)


class Leases:
    """The edge's standing at auth. `session_ids` gives those it holds; `on_ended(session_id, reason)` closes one."""

    def __init__(
        self,
        auth: AuthBackend,
        *,
        session_ids: Callable[[], list[str]],
        on_ended: Callable[[str, str], object],
        clock: Clock,
    ) -> None:
        self._auth = auth
        self._session_ids = session_ids
        self._on_ended = on_ended
        self._clock = clock
        self._renew_now = asyncio.Event()

    async def run(self) -> None:
        """Renew and watch, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(), name="lease renewal")
            tasks.create_task(self._watch(), name="revocation watch")

    async def _renew(self) -> None:
        pause_s = _LEASE_BEFORE_KNOWN_S / _RENEWALS_PER_LEASE
        is_reported = False
        while True:
            self._renew_now.clear()
            try:
                lease_s, ended = await self._auth.renew_lease(self._session_ids())
            except ParleyError as error:
                if not is_reported:
                    _log.warning("lease not renewed", code=error.code, reason=error.message)
                    is_reported = True
                pause_s = min(pause_s, _RETRY_S)
            else:
                is_reported = False
                pause_s = lease_s / _RENEWALS_PER_LEASE
                for session_id in ended:
                    self._on_ended(session_id, "revoked")
            await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until a renewal is asked for."""
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._clock.sleep(seconds), name="lease pause"),
            asyncio.create_task(self._renew_now.wait(), name="lease renewal asked for"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    async def _watch(self) -> None:
        while True:
            in_place_at: float | None = None
            try:
                async with aclosing(self._auth.watch_revocations()) as revocations:
                    async for batch in revocations:
                        if not batch:
                            in_place_at = self._clock.monotonic()
                            self._renew_now.set()
                        for revocation in batch:
                            self._on_ended(revocation.session_id, revocation.reason)
            except ParleyError as error:
                _log.debug("revocation watch lost", code=error.code, reason=error.message)
            # What ends while there is no watch is heard of by the renewal behind the next one, so auth, which ends a
            # watch when it may have missed something, is asked at once. A watch that does not hold is not hurried.
            held_s = 0.0 if in_place_at is None else self._clock.monotonic() - in_place_at
            await self._clock.sleep(max(0.0, _RETRY_S - held_s))
