"""Openings: what is asked of the store when a session is to be opened, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.auth.revocations import EdgeBoot, EndedSession


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Now, and when a lease and a token end that run from now. Unix milliseconds."""

    now_ms: int
    lease_until_ms: int
    token_until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSession:
    """A session to be opened by a login; with `takeover` it replaces the one that is open."""

    session_id: str
    user_id: str
    token_hash: bytes
    edge: EdgeBoot
    device: str
    takeover: bool = False
    # The stored hash that the password was verified against: one that has been set anew meanwhile opens nothing.
    password_hash: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumedSession:
    """A session to be opened with the token whose hash is `used_hash`."""

    session_id: str
    used_hash: bytes
    token_hash: bytes
    edge: EdgeBoot


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The session is open; `ended` are those whose edge turned out to be gone, `replaced` those that it took over."""

    ended: Sequence[EndedSession]
    replaced: Sequence[EndedSession] = field(default_factory=list)
    user_id: str = ""
    username: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlreadyOpen:
    """The account has a live session."""

    since_ms: int


class AccountClosed:
    """The account is disabled or gone."""


class PasswordChanged:
    """The account's stored password hash is not the one that the login was verified against."""


class TokenRefused:
    """The token is unknown, expired, or that of a disabled account."""


class BootSuperseded:
    """A newer boot of the same edge has taken over."""


OpenResult = Opened | AlreadyOpen | AccountClosed | PasswordChanged | BootSuperseded
ResumeResult = Opened | TokenRefused | BootSuperseded
