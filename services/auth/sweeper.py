"""The sweeper: ends the sessions of silent edges, once a second.

Silence counts only while somebody could have been heard. After a start, a stall of this process or of its storage,
or a jump of the clock every edge gets a whole lease anew, so that none loses its users for a fault of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.common.errors import ParleyError
from services.common.logs import get_logger

if TYPE_CHECKING:
    from services.auth.accounts import Accounts
    from services.auth.sessions import Sessions
    from services.common.clock import Clock

SWEEP_INTERVAL_S = 1.0  # how much longer than its lease a session may seem alive; a login looks for itself
RECOUNT_INTERVAL_S = 60.0  # the gauges drift only where several instances share a database
_STALL_PER_LEASE = 1 / 3  # edges renew three times a lease: a shorter pause costs none of them more than one renewal
_log = get_logger(__name__)


class Sweeper:
    """Sweeps, and keeps the gauges true."""

    def __init__(self, *, accounts: Accounts, sessions: Sessions, clock: Clock) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._clock = clock
        self._stall_s = SWEEP_INTERVAL_S + sessions.lease_s * _STALL_PER_LEASE
        self._swept_at: float | None = None
        self._recounted_at: float | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            try:
                await self.sweep()
            except ParleyError as error:
                if not self._is_failing:
                    _log.warning("sessions cannot be swept", code=error.code, reason=error.message)
                self._is_failing = True
            else:
                self._is_failing = False
            await self._clock.sleep(SWEEP_INTERVAL_S)

    async def sweep(self) -> None:
        """One round. Raises `ParleyError` where the storage fails."""
        now = self._clock.now()
        if self._swept_at is None or not 0 <= now - self._swept_at <= self._stall_s:
            await self._sessions.grant_grace()
        if self._recounted_at is None or not 0 <= now - self._recounted_at < RECOUNT_INTERVAL_S:
            await self._accounts.recount()
            await self._sessions.recount()
            self._recounted_at = now
        await self._sessions.sweep()
        self._swept_at = now
