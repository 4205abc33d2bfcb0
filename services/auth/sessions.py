"""Sessions: one per account, alive as long as its connection and the edge that holds it.

A session belongs to one boot of one edge. It ends when the edge says so, when the person logs out, when it is revoked,
when the edge has not renewed its lease in time, and when a new boot of the same edge shows up. Whether an account has
a session is decided by the store, in one transaction, so of two racing logins exactly one wins.

A boot that a newer one has superseded never comes back: a request of a dead process that arrives late must not end
the sessions of its successor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.auth.revocations import EdgeBoot, EndedSession, EndReason, Revocations, Subscription
from services.auth.tokens import hash_token, new_session_id, new_token
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from services.common.clock import Clock
    from services.common.tasks import TaskSet

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPolicy:
    """How long things live, in seconds."""

    lease_s: float = 15.0
    # protocol.md, "Delivery": a token serves for 10 minutes after the connection ended.
    token_ttl_s: float = 600.0
    # A session that its edge does not name that long after it was opened is one whose answer got lost on the way.
    # Longer than any deadline of a login, so that an answer that is still under way is not mistaken for a lost one.
    orphan_s: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Now, and when a lease and a token end that run from now. Unix milliseconds."""

    now_ms: int
    lease_until_ms: int
    token_until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSession:
    """A session to be opened."""

    session_id: str
    user_id: str
    token_hash: bytes
    edge: EdgeBoot
    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The session is open; `ended` are those whose edge turned out to be gone."""

    ended: Sequence[EndedSession]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlreadyOpen:
    """The account has a live session."""

    since_ms: int


class AccountClosed:
    """The account is disabled or gone."""


class BootSuperseded:
    """A newer boot of the same edge has taken over."""


OpenResult = Opened | AlreadyOpen | AccountClosed | BootSuperseded


class SessionStore(Protocol):
    """Where sessions and leases are kept. Every method is one transaction, durable when it returns. Raises
    `ParleyError` unavailable, overloaded or unknown_outcome."""

    async def open_session(self, session: NewSession, moment: Moment) -> OpenResult:
        """Opens the session unless the account has a live one; keeps the edge's lease."""
        ...

    async def end_sessions(self, session_ids: Collection[str], moment: Moment) -> int:
        """Marks open ones as ended, their tokens good for a while yet; returns how many."""
        ...

    async def delete_session(self, session_id: str) -> bool:
        """Removes a session and its token; returns whether it was open."""
        ...

    async def delete_sessions_of(self, user_id: str) -> Sequence[EndedSession]:
        """Removes all sessions of an account and their tokens; returns those that were open."""
        ...

    async def renew_lease(self, edge: EdgeBoot, moment: Moment) -> Sequence[EndedSession] | BootSuperseded:
        """Keeps or makes the edge's lease; a new boot supersedes older ones, whose sessions end and are returned."""
        ...

    async def open_sessions_of(self, edge: EdgeBoot) -> Mapping[str, int]:
        """The open sessions of a boot: id → when it was opened."""
        ...

    async def end_leaseless(self, moment: Moment) -> Sequence[EndedSession]:
        """Ends the open sessions of edges whose lease is over."""
        ...

    async def extend_leases(self, moment: Moment) -> None:
        """Gives every edge that has not been superseded a whole lease."""
        ...

    async def purge(self, moment: Moment) -> None:
        """Removes what nobody can use any more: ended sessions with expired tokens, boots long gone."""
        ...

    async def count_open_sessions(self) -> int:
        """How many sessions are open."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What a login gets. `token` is a secret."""

    session_id: str
    token: str
    token_expires_at_ms: int


class Sessions:
    """Opens, renews and ends sessions, and tells the edges."""

    def __init__(
        self,
        *,
        store: SessionStore,
        revocations: Revocations,
        policy: SessionPolicy,
        clock: Clock,
        tasks: TaskSet,
    ) -> None:
        self._store = store
        self._revocations = revocations
        self._policy = policy
        self._clock = clock
        self._tasks = tasks
        self.open_count = 0

    @property
    def lease_s(self) -> float:
        """How long an edge may stay silent."""
        return self._policy.lease_s

    async def open(self, *, user_id: str, edge: EdgeBoot, device: str) -> Grant:
        """Opens the account's one session. Raises `ParleyError` already_logged_in, invalid_credentials (the account was
        disabled meanwhile) or unavailable."""
        moment = self._moment()
        token = new_token()
        session = NewSession(
            session_id=new_session_id(), user_id=user_id, token_hash=hash_token(token), edge=edge, device=device
        )
        result = await self._open(session, moment)
        match result:
            case AlreadyOpen(since_ms=since_ms):
                raise ParleyError(
                    ErrorCode.ALREADY_LOGGED_IN,
                    "this account is logged in elsewhere",
                    details={"since-ms": str(since_ms)},
                )
            case AccountClosed():
                raise invalid_credentials()
            case BootSuperseded():
                raise ParleyError(ErrorCode.UNAVAILABLE, "a newer process of this edge has taken over")
            case Opened(ended=ended):
                self.open_count += 1
                self._announce(ended)
        return Grant(session_id=session.session_id, token=token, token_expires_at_ms=moment.token_until_ms)

    async def end(self, session_ids: Collection[str]) -> None:
        """The connections of these sessions have ended; their tokens stay good for a while. Idempotent."""
        if session_ids:
            self.open_count -= await self._store.end_sessions(session_ids, self._moment())

    async def log_out(self, session_id: str) -> None:
        """Ends a session and its token for ever. Idempotent."""
        if await self._store.delete_session(session_id):
            self.open_count -= 1

    async def revoke_all(self, user_id: str) -> int:
        """Ends every session of an account and their tokens; returns how many were open."""
        ended = await self._store.delete_sessions_of(user_id)
        self._announce(ended)
        return len(ended)

    async def renew(self, edge: EdgeBoot, session_ids: Collection[str]) -> list[str]:
        """Keeps the edge's lease and returns those of the sessions it names that are not alive. Open sessions of this
        boot that it does not name are ended, once they are old enough: their logins' answers never arrived."""
        if not await self._keep_lease(edge):
            return list(session_ids)
        opened_at_ms = await self._store.open_sessions_of(edge)
        named = set(session_ids)
        before_ms = self._moment().now_ms - _ms(self._policy.orphan_s)
        orphans = [one for one, opened_ms in opened_at_ms.items() if one not in named and opened_ms < before_ms]
        if orphans:
            _log.warning("orphaned sessions ended", edge=edge.name, count=len(orphans))
            await self.end(orphans)
        return [one for one in session_ids if one not in opened_at_ms]

    async def watch(self, edge: EdgeBoot) -> Subscription:
        """A subscription to the revocations of this boot's sessions; opening it keeps the lease. Give it back with
        `unwatch`. Raises `ParleyError` unavailable for a superseded boot."""
        subscription = self._revocations.subscribe(edge)
        try:
            is_current = await self._keep_lease(edge)
        except BaseException:
            self.unwatch(edge, subscription)
            raise
        if not is_current:
            self.unwatch(edge, subscription)
            raise ParleyError(ErrorCode.UNAVAILABLE, "a newer process of this edge has taken over")
        return subscription

    def unwatch(self, edge: EdgeBoot, subscription: Subscription) -> None:
        """Gives a subscription back. Idempotent."""
        self._revocations.unsubscribe(edge, subscription)

    async def grant_grace(self) -> None:
        """Gives every edge a whole lease from now on: at start, and after a time in which nobody could renew."""
        await self._store.extend_leases(self._moment())

    async def sweep(self) -> None:
        """Ends the sessions of silent edges and removes what is of no more use."""
        moment = self._moment()
        self._announce(await self._store.end_leaseless(moment))
        await self._store.purge(moment)

    async def recount(self) -> None:
        """Sets `open_count` from the store, which other instances share."""
        self.open_count = await self._store.count_open_sessions()

    async def _open(self, session: NewSession, moment: Moment) -> OpenResult:
        """Opens, and takes back what was opened for a caller who has gone meanwhile or cannot be told."""
        opening = asyncio.ensure_future(self._store.open_session(session, moment))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._tasks.spawn(self._take_back(session.session_id, opening), name="take back a login")
            raise
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_OUTCOME:
                raise
            self._tasks.spawn(self._take_back(session.session_id, opening), name="take back a login")
            raise ParleyError(ErrorCode.UNAVAILABLE, error.message, retry_after_s=error.retry_after_s) from error

    async def _take_back(self, session_id: str, opening: asyncio.Future[OpenResult]) -> None:
        try:
            result = await opening
            if not isinstance(result, Opened):
                return
            self.open_count += 1
            self._announce(result.ended)
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_OUTCOME:
                return  # certainly not stored
        try:
            await self.log_out(session_id)
        except ParleyError as error:  # then it ends as an orphan
            _log.warning("could not take a login back", session_id=session_id, code=error.code)

    async def _keep_lease(self, edge: EdgeBoot) -> bool:
        result = await self._store.renew_lease(edge, self._moment())
        if isinstance(result, BootSuperseded):
            _log.warning("superseded edge boot refused", edge=edge.name, boot_id=edge.boot_id)
            return False
        self._announce(result)
        return True

    def _announce(self, ended: Sequence[EndedSession]) -> None:
        if ended:
            self.open_count -= len(ended)
            _log.info("sessions ended", session_ids=[session.session_id for session in ended[:100]], count=len(ended))
            self._revocations.publish(ended, EndReason.REVOKED)

    def _moment(self) -> Moment:
        now_ms = _ms(self._clock.now())
        return Moment(
            now_ms=now_ms,
            lease_until_ms=now_ms + _ms(self._policy.lease_s),
            token_until_ms=now_ms + _ms(self._policy.token_ttl_s),
        )


def invalid_credentials() -> ParleyError:
    """The one answer to an unknown name, a wrong password and a disabled account."""
    return ParleyError(ErrorCode.INVALID_CREDENTIALS, "the name or the password is wrong")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
