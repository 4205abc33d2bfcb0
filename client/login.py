"""Logging in: once because a person asks, and again by itself after a lost connection.

Again is by the token of the session where there is one: that is quick, ends what the server still holds of the old
connection, and brings the missed messages. Where the token is not good any more, it is by name and password.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from client.backoff import Backoff
from client.clock import Clock
from client.connection import Connection
from client.errors import RequestError
from client.replies import Login, read
from services.common.wire.envelope import ServerEnvelope

OLD_SESSION_PATIENCE_S = 180.0
"""A server that did not see the old connection end notices it after its idle time of a minute or so; this is thrice."""

PASSING_CODES = frozenset({"rate_limited", "overloaded", "unavailable", "unknown_outcome", "internal"})
"""Refusals that say nothing about the user name and the password."""


Positions = dict[str, dict[str, Any]]
"""How far each room has been read: by its id, the epoch and seq."""


@dataclass(frozen=True)
class Credentials:
    """What a login needs; kept in memory only."""

    username: str
    password: str = field(repr=False)


async def log_in(
    connection: Connection, credentials: Credentials, *, adopt: Callable[[Login], None], takeover: bool = False
) -> Login:
    """Logs in. `adopt` runs before any frame behind the answer is looked at. Raises RequestError."""
    data: dict[str, Any] = {"username": credentials.username, "password": credentials.password}
    if takeover:
        data["takeover"] = True
    return await connection.call("auth_request", data, then=_adopted_by(adopt))


async def resume(connection: Connection, token: str, positions: Positions, *, adopt: Callable[[Login], None]) -> Login:
    """Goes on with a session. `adopt` runs before any frame behind the answer is looked at. Raises RequestError."""
    data = {"token": token, "rooms": positions}
    return await connection.call("resume", data, then=_adopted_by(adopt))


def _adopted_by(adopt: Callable[[Login], None]) -> Callable[[ServerEnvelope], Login]:
    def on_success(envelope: ServerEnvelope) -> Login:
        login = read(envelope.data, Login)
        adopt(login)
        return login

    return on_success


async def log_in_again(
    connection: Connection,
    credentials: Credentials,
    *,
    token: str,
    positions: Positions,
    adopt: Callable[[Login], None],
    clock: Clock,
    backoff: Backoff,
    on_wait: Callable[[str], None],
) -> Login:
    """Resumes, or logs in, on a new connection and is patient about what passes; `on_wait` hears what it waits for.

    Raises RequestError where waiting does not help, ConnectionLostError.
    """
    began = clock.monotonic()
    while True:
        try:
            if token:
                return await resume(connection, token, positions, adopt=adopt)
            return await log_in(connection, credentials, adopt=adopt)
        except RequestError as error:
            if token and error.code not in PASSING_CODES:
                token = ""  # it has expired, or the server does not know it: the password still may be good
                continue
            is_old_session = error.code == "already_logged_in"
            waited_s = clock.monotonic() - began
            if not (error.code in PASSING_CODES or (is_old_session and waited_s < OLD_SESSION_PATIENCE_S)):
                raise
            on_wait("the server still holds the old connection" if is_old_session else error.message)
            await clock.sleep(max(error.retry_after_s or 0.0, backoff.next_delay_s()))
