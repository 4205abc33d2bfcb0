"""Logging in: once because a person asks, and again by itself after a lost connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Credentials:
    """What a login needs; kept in memory only."""

    username: str
    password: str = field(repr=False)


async def log_in(connection: Connection, credentials: Credentials, *, adopt: Callable[[Login], None]) -> Login:
    """Logs in. `adopt` runs before any frame behind the answer is looked at. Raises RequestError."""

    def on_success(envelope: ServerEnvelope) -> Login:
        login = read(envelope.data, Login)
        adopt(login)
        return login

    data = {"username": credentials.username, "password": credentials.password}
    return await connection.call("auth_request", data, then=on_success)


async def log_in_again(
    connection: Connection,
    credentials: Credentials,
    *,
    adopt: Callable[[Login], None],
    clock: Clock,
    backoff: Backoff,
    on_wait: Callable[[str], None],
) -> Login:
    """Logs in on a new connection and is patient about what passes; `on_wait` is told what it waits for.

    Raises RequestError where waiting does not help, ConnectionLostError.
    """
    began = clock.monotonic()
    while True:
        try:
            return await log_in(connection, credentials, adopt=adopt)
        except RequestError as error:
            is_old_session = error.code == "already_logged_in"
            waited_s = clock.monotonic() - began
            if not (error.code in PASSING_CODES or (is_old_session and waited_s < OLD_SESSION_PATIENCE_S)):
                raise
            on_wait("the server still holds the old connection" if is_old_session else error.message)
            await clock.sleep(max(error.retry_after_s or 0.0, backoff.next_delay_s()))
