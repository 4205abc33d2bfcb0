"""Vouchers: an edge acts for those whom auth says are logged in through it, and for nobody else.

A call carries the assertion of the person whom it is for. On a stream each person's assertion is verified once, when it
first comes; from then on a batch of messages costs one comparison of sets. An assertion ends with its time, and with
its session: what is closed does not come back, so that nobody can use later what was seen once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from services.common.assertions import METADATA_KEY, SKEW_S, Verifier, refused
from services.common.config import ConfigError
from services.common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.common.assertions import Claims
    from services.common.clock import Clock
    from services.rooms.config import RoomsConfig
    from services.rooms.messages import Publish
    from services.rooms.presence import Session

CLOSED_MAX: Final = 100_000
"""Ended sessions that are remembered until their assertions have expired anyway; 15 MB."""

SPEAKERS_MAX: Final = 100_000
"""People for whom one stream speaks, in the life of an assertion: ten times what a full edge holds."""

REPORT_EVERY_S: Final = 10.0
_log = get_logger(__name__)


def open_vouchers(config: RoomsConfig, clock: Clock) -> Vouchers:
    """With the keys that the configuration names. Raises ConfigError."""
    if not config.check_assertions:
        _log.warning("assertions of sessions are not checked: an edge may act for anybody")
        return Vouchers(None, clock)
    try:
        return Vouchers(Verifier(config.assertion_keys_path, clock), clock)
    except (OSError, ValueError) as error:
        raise ConfigError("assertion_keys_file", f"{error}; `parley certs make` makes keys") from error


class Vouchers:
    """Checks assertions with `verifier`; without one everybody is believed, which is for tests and load tests."""

    def __init__(self, verifier: Verifier | None, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._reported_at = float("-inf")

    @property
    def is_checking(self) -> bool:
        """Whether anybody needs an assertion."""
        return self._verifier is not None

    def claims(self, assertion: bytes) -> Claims:
        """What a good assertion claims. Raises ParleyError not_authenticated."""
        assert self._verifier is not None  # asked of only where is_checking
        claims = self._verifier.verify(assertion)
        if claims.session_id in self._closed:
            raise refused("is of a session that has ended")
        return claims

    def check_session(self, assertion: bytes, session: Session) -> None:
        """Whether this is the assertion of that session, held by that edge. Raises ParleyError not_authenticated."""
        if not self.is_checking:
            return
        claims = self.claims(assertion)
        if claims.boot_id != session.boot_id:
            raise refused("belongs to another edge")
        if (claims.session_id, claims.user_id, claims.username) != session[:3]:
            raise refused("is of somebody else")

    def check_person(self, assertion: bytes, *, user_id: str, username: str | None = None) -> None:
        """Whether this is an assertion of that person. Raises ParleyError not_authenticated."""
        if not self.is_checking:
            return
        claims = self.claims(assertion)
        if claims.user_id != user_id or username not in (None, claims.username):
            raise refused("is of somebody else")

    def close(self, session_ids: Iterable[str]) -> None:
        """These sessions have ended: their assertions are good for nothing new any more."""
        if not self.is_checking:
            return
        for session_id in session_ids:
            self._closed[session_id] = None
        while len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)

    def speakers(self, boot_id: str) -> Speakers:
        """For whom a stream of this boot may speak: nobody yet."""
        return Speakers(self, boot_id, self._clock)

    def report(self, boot_id: str, reason: str) -> None:
        """Logs a refusal on a stream: an edge that does this has a fault, or is none."""
        now = self._clock.monotonic()
        if now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            _log.warning("edge refused", boot_id=boot_id, reason=reason)


class Speakers:
    """The people for whom one stream speaks."""

    def __init__(self, vouchers: Vouchers, boot_id: str, clock: Clock) -> None:
        self._vouchers = vouchers
        self._boot_id = boot_id
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}  # (user id, name) -> when their assertion expires
        self._first_end = float("inf")

    def admit(self, assertion: bytes) -> None:
        """Lets the stream speak for the person, until the assertion expires. Raises ParleyError not_authenticated."""
        if not self._vouchers.is_checking:
            return
        claims = self._vouchers.claims(assertion)
        if claims.boot_id != self._boot_id:
            raise refused("belongs to another edge")
        who = (claims.user_id, claims.username)
        if who not in self._until and len(self._until) >= SPEAKERS_MAX:
            raise refused("is one too many on this stream")
        self._until[who] = claims.expires_at
        self._first_end = min(self._first_end, claims.expires_at)

    def refuse(self, publishes: Sequence[Publish]) -> list[Publish]:
        """Those of the messages whose senders this stream may not speak for."""
        if not self._vouchers.is_checking:
            return []
        if self._first_end + SKEW_S < self._clock.now():
            self._forget_expired()
        until = self._until
        if until.keys() >= {(publish.user_id, publish.username) for publish in publishes}:
            return []
        return [publish for publish in publishes if (publish.user_id, publish.username) not in until]

    def _forget_expired(self) -> None:
        now = self._clock.now()
        self._until = {who: end for who, end in self._until.items() if end + SKEW_S >= now}
        self._first_end = min(self._until.values(), default=float("inf"))


def assertion_of(context: object) -> bytes:
    """The assertion that came with a call; empty where there was none."""
    for key, value in context.invocation_metadata() or ():  # type: ignore[attr-defined]
        if key == METADATA_KEY and isinstance(value, bytes):
            return value
    return b""
