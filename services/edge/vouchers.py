"""Vouchers: keeps auth's word for each session fresh, so that rooms believes this edge for as long as they last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.edge.decisions import User, Voucher
from services.edge.ports import Assertion, AuthBackend

LOOK_EVERY_S: Final = 1.0
"""How long people may be refused after a clock was wrong; looking at 10,000 of them takes 2 ms."""

_BATCH_MAX: Final = 1_000
"""Assertions in one call: 300 KB."""

_RENEW_AT: Final = 0.5
"""Part of its life after which an assertion is renewed: auth may be away for the other half."""

_log = get_logger(__name__)


def voucher(assertion: Assertion, now: float) -> Voucher:
    """What is kept of an assertion that auth has just given."""
    return Voucher(assertion.data, now + _RENEW_AT * assertion.lifetime_s)


class Vouchers:
    """Renews what is due. `users` gives everybody who is logged in."""

    def __init__(self, auth: AuthBackend, *, users: Callable[[], Iterable[User]], clock: Clock) -> None:
        self._auth = auth
        self._users = users
        self._clock = clock
        self._is_reported = False

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now = self._clock.monotonic()
            due = [user for user in self._users() if user.voucher.renew_at <= now]
            try:
                for start in range(0, len(due), _BATCH_MAX):
                    await self._renew(due[start : start + _BATCH_MAX])
            except ParleyError as error:
                if not self._is_reported:
                    _log.warning("assertions not renewed", code=error.code, reason=error.message, count=len(due))
                self._is_reported = True
            else:
                self._is_reported = False

    async def _renew(self, users: list[User]) -> None:
        renewed = await self._auth.renew_assertions([user.voucher.assertion for user in users])
        now = self._clock.monotonic()
        for user, assertion in zip(users, renewed, strict=True):
            if assertion.data:  # who gets none has no session any more, and is told so by the lease
                new = voucher(assertion, now)
                user.voucher.assertion, user.voucher.renew_at = new.assertion, new.renew_at
