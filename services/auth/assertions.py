"""Assertions of sessions: issued when a session is opened, and again while it is open.

See `services.common.assertions` for what they are. Whoever asks for a new one shows the old one: knowing the ids of a
session and of an edge is not enough. An old one serves for that also when it has expired, as long as its session is
open, so that a time in which auth was away cuts nobody off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.auth.revocations import EdgeBoot
from services.common.assertions import Claims, Signer, Verifier, refused
from services.common.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.auth.config import AuthConfig
    from services.auth.sessions import Grant, SessionStore
    from services.common.clock import Clock


def open_assertions(config: AuthConfig, *, store: SessionStore, clock: Clock) -> Assertions:
    """With the keys that the configuration names. Raises ConfigError."""
    try:
        signer, verifier = Signer(config.assertion_key_path, clock), Verifier(config.assertion_keys_path, clock)
    except (OSError, ValueError) as error:
        raise ConfigError("assertion_key_file", f"{error}; `parley certs make` makes keys") from error
    return Assertions(signer=signer, verifier=verifier, store=store, lifetime_s=config.assertion_ttl_s, clock=clock)


class Assertions:
    """Issues assertions that are good for `lifetime_s`; `store` knows which sessions are open."""

    def __init__(
        self, *, signer: Signer, verifier: Verifier, store: SessionStore, lifetime_s: float, clock: Clock
    ) -> None:
        self._signer = signer
        self._verifier = verifier
        self._store = store
        self._clock = clock
        self.lifetime_s = lifetime_s

    def issue(self, grant: Grant, edge: EdgeBoot) -> bytes:
        """The assertion of a session that was just opened."""
        return self._sign(session_id=grant.session_id, user_id=grant.user_id, username=grant.username, edge=edge)

    async def renew(self, assertions: Sequence[bytes], edge: EdgeBoot) -> list[bytes]:
        """New ones for those of open sessions, in the same order; b"" for the others. Raises `ParleyError`
        not_authenticated where one is forged or belongs to another edge, and unavailable."""
        claims = [self._verifier.verify(each, may_be_expired=True) for each in assertions]
        if any(EdgeBoot(each.edge, each.boot_id) != edge for each in claims):
            raise refused("belongs to another edge")
        open_ids = await self._store.open_sessions_of(edge)
        return [
            self._sign(session_id=each.session_id, user_id=each.user_id, username=each.username, edge=edge)
            if each.session_id in open_ids
            else b""
            for each in claims
        ]

    def _sign(self, *, session_id: str, user_id: str, username: str, edge: EdgeBoot) -> bytes:
        now = self._clock.now()
        claims = Claims(
            session_id=session_id,
            user_id=user_id,
            username=username,
            edge=edge.name,
            boot_id=edge.boot_id,
            issued_at=now,
            expires_at=now + self.lifetime_s,
        )
        return self._signer.sign(claims)
