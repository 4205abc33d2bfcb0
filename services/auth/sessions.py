"""Sessions: one per account, alive as long as its connection and the edge that holds it; and their tokens.

A session belongs to one boot of one edge. It ends when the edge says so, when the person logs out, when it is revoked,
when the edge has not renewed its lease in time, and when a new boot of the same edge shows up. Whether an account has
a session is decided by the store, in one transaction, so of two racing logins exactly one wins.

A token opens a session anew, while its own is open or for a while after it ended. That session is a new one with a
token of its own, and ends the one that is open (`replaced`). The token that was used stays good, so that a client
whose answer got lost can ask again; the first use of its successor kills it. All other tokens of the account die in
the same transaction: an account never has more than two that are good, and of several resumes that race with one
token the last one wins and the others are replaced. A login kills all of them, or who was taken over would come back.

A boot that a newer one has superseded never comes back: a request of a dead process that arrives late must not end
the sessions of its successor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.auth.openings import (
    AccountClosed,
    AlreadyOpen,
    BootSuperseded,
    Moment,
    NewSession,
    Opened,
    OpenResult,
    PasswordChanged,
    ResumedSession,
    ResumeResult,
    TokenRefused,
)
from services.auth.orphans import Orphans
from services.auth.revocations import EdgeBoot, EndedSession, EndReason, Revocations, Subscription
from services.auth.throttle import address_key
from services.auth.tokens import hash_token, new_session_id, new_token
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from services.auth.throttle import Throttle
    from services.common.clock import Clock
    from services.common.tasks import TaskSet

_CHANGED_RETRY_S = 0.1
_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPolicy:
    """How long things live, in seconds."""

    lease_s: float = 15.0
    # protocol.md, "Delivery": a token serves for 10 minutes after the connection ended.
    token_ttl_s: float = 600.0
    # A session that its edge has not named for that long is one whose answer got lost on the way.
    # Longer than any deadline of a login, so that an answer that is still under way is not mistaken for a lost one.
    orphan_s: float = 60.0


_Result = TypeVar("_Result", OpenResult, ResumeResult)


class SessionStore(Protocol):
    """Where sessions and leases are kept. Every method is one transaction, durable when it returns. Raises
    `ParleyError` unavailable, overloaded or unknown_outcome."""

    async def open_session(self, session: NewSession, moment: Moment) -> OpenResult:
        """Opens the session unless the account has a live one that it may not take over; keeps the edge's lease and
        kills the account's older tokens."""
        ...

    async def is_token_good(self, token_hash: bytes, moment: Moment) -> bool:
        """Whether a resume with this token may succeed; costs no write."""
        ...

    async def resume_session(self, session: ResumedSession, moment: Moment) -> ResumeResult:
        """Opens a session with a token, which stays good; ends the open one, kills all other tokens of the account and
        keeps the edge's lease."""
        ...

    async def end_sessions(self, session_ids: Collection[str], moment: Moment) -> int:
        """Marks open ones as ended, their tokens good for a while yet; returns how many."""
        ...

    async def delete_session(self, session_id: str) -> bool:
        """Removes one session and its token; returns whether it was open."""
        ...

    async def log_out(self, session_id: str) -> bool:
        """Removes a session and, where it was open, all tokens of its account; returns whether it was open."""
        ...

    async def delete_sessions_of(self, user_id: str) -> Sequence[EndedSession]:
        """Removes all sessions of an account and their tokens; returns those that were open."""
        ...

    async def renew_lease(self, edge: EdgeBoot, moment: Moment) -> Sequence[EndedSession] | BootSuperseded:
        """Keeps or makes the edge's lease; a new boot supersedes older ones, whose sessions end and are returned."""
        ...

    async def open_sessions_of(self, edge: EdgeBoot) -> frozenset[str]:
        """The ids of the open sessions of a boot."""
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

    async def list_sessions(
        self, user_id: str | None, moment: Moment, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[SessionRecord]:
        """The newest first, those behind `after` (when one was opened, and its id): of one account those that are open
        or can be resumed, of everybody (None) those that are open."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionRecord:
    """A session as operators see it. Unix milliseconds; `ended_at_ms` is None while it is open."""

    session_id: str
    username: str
    edge_name: str
    device: str
    opened_at_ms: int
    ended_at_ms: int | None
    token_expires_at_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """What a login or a resume gets. `token` is a secret."""

    user_id: str
    username: str
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
        throttle: Throttle,
        policy: SessionPolicy,
        clock: Clock,
        tasks: TaskSet,
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._revocations = revocations
        self._policy = policy
        self._clock = clock
        self._tasks = tasks
        self._orphans = Orphans(policy.orphan_s)
        self.open_count = 0

    @property
    def lease_s(self) -> float:
        """How long an edge is told that it may stay silent: less than it may where it has to ask more often."""
        return min(self._policy.lease_s, self._revocations.lease_s_max)

    async def open(
        self,
        *,
        user_id: str,
        username: str,
        edge: EdgeBoot,
        device: str,
        takeover: bool,
        password_hash: str | None = None,
    ) -> Grant:
        """Opens the account's one session; `password_hash` is what the login was verified against. Raises `ParleyError`
        already_logged_in, invalid_credentials (the account was disabled meanwhile) or unavailable."""
        moment = self._moment()
        token = new_token()
        session = NewSession(
            session_id=new_session_id(),
            user_id=user_id,
            token_hash=hash_token(token),
            edge=edge,
            device=device,
            takeover=takeover,
            password_hash=password_hash,
        )
        result = await self._open(session.session_id, self._store.open_session(session, moment))
        match result:
            case AlreadyOpen(since_ms=since_ms):
                raise ParleyError(
                    ErrorCode.ALREADY_LOGGED_IN,
                    "this account is logged in elsewhere",
                    details={"since-ms": str(since_ms)},
                )
            case AccountClosed():
                raise invalid_credentials()
            case PasswordChanged():  # set anew, or hashed anew: the next attempt finds out which
                raise ParleyError(ErrorCode.UNAVAILABLE, "the account has just changed", retry_after_s=_CHANGED_RETRY_S)
            case BootSuperseded():
                raise _superseded()
            case Opened():
                self._opened(result)
        return Grant(
            user_id=user_id,
            username=username,
            session_id=session.session_id,
            token=token,
            token_expires_at_ms=moment.token_until_ms,
        )

    async def resume(self, *, token: str, edge: EdgeBoot, address: str) -> Grant:
        """Opens a session with the token of an earlier one. Raises `ParleyError` bad_token, rate_limited (too many of
        these from the address) or unavailable."""
        place = address_key(address)
        wait_s = await self._throttle.admit_token(place)
        if wait_s > 0:
            raise ParleyError(
                ErrorCode.RATE_LIMITED, "too many invalid tokens from this address", retry_after_s=round(wait_s, 3)
            )
        moment = self._moment()
        new = new_token()
        session = ResumedSession(
            session_id=new_session_id(), used_hash=hash_token(token), token_hash=hash_token(new), edge=edge
        )
        result: ResumeResult = TokenRefused()
        if await self._store.is_token_good(session.used_hash, moment):  # garbage never costs a synced commit
            result = await self._open(session.session_id, self._store.resume_session(session, moment))
        if isinstance(result, BootSuperseded):
            raise _superseded()
        if isinstance(result, TokenRefused):
            await self._throttle.count_bad_token(place)
            raise ParleyError(ErrorCode.BAD_TOKEN, "this session cannot be resumed: log in")
        self._opened(result)
        return Grant(
            user_id=result.user_id,
            username=result.username,
            session_id=session.session_id,
            token=new,
            token_expires_at_ms=moment.token_until_ms,
        )

    async def end(self, session_ids: Collection[str]) -> None:
        """The connections of these sessions have ended; their tokens stay good for a while. Idempotent."""
        if session_ids:
            self.open_count -= await self._store.end_sessions(session_ids, self._moment())

    async def log_out(self, session_id: str) -> None:
        """Ends a session, and every token of its account, for ever. Idempotent."""
        if await self._store.log_out(session_id):
            self.open_count -= 1

    async def revoke_all(self, user_id: str) -> int:
        """Ends every session of an account and their tokens; returns how many were open."""
        ended = await self._store.delete_sessions_of(user_id)
        self._announce(ended)
        return len(ended)

    async def list_page(
        self, user_id: str | None, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[SessionRecord]:
        """See `SessionStore.list_sessions`."""
        return await self._store.list_sessions(user_id, self._moment(), after=after, limit=limit)

    async def renew(self, edge: EdgeBoot, session_ids: Collection[str]) -> list[str]:
        """Keeps the edge's lease and returns those of the sessions it names that are not alive. Open sessions of this
        boot that it has not named for long enough are ended: their logins' answers never arrived."""
        if not await self._keep_lease(edge):
            return list(session_ids)
        open_ids = await self._store.open_sessions_of(edge)
        orphans = self._orphans.find(edge, open_ids=open_ids, named=session_ids, now=self._clock.monotonic())
        if orphans:
            _log.warning("orphaned sessions ended", edge=edge.name, count=len(orphans))
            await self.end(orphans)
        return [one for one in session_ids if one not in open_ids]

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
            raise _superseded()
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

    async def _open(self, session_id: str, work: Awaitable[_Result]) -> _Result:
        """Opens, and takes back what was opened for a caller who has gone meanwhile or cannot be told."""
        opening = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._tasks.spawn(self._take_back(session_id, opening), name="take back a login")
            raise
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_OUTCOME:
                raise
            self._tasks.spawn(self._take_back(session_id, opening), name="take back a login")
            raise ParleyError(ErrorCode.UNAVAILABLE, error.message, retry_after_s=error.retry_after_s) from error

    async def _take_back(self, session_id: str, opening: asyncio.Future[_Result]) -> None:
        """Ends the session and its own token, which nobody got to know; one that was used to resume stays good."""
        try:
            result = await opening
            if not isinstance(result, Opened):
                return
            self._opened(result)
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_OUTCOME:
                return  # certainly not stored
        try:
            if await self._store.delete_session(session_id):
                self.open_count -= 1
        except ParleyError as error:  # then it ends as an orphan
            _log.warning("could not take a login back", session_id=session_id, code=error.code)

    def _opened(self, result: Opened) -> None:
        self.open_count += 1
        self._announce(result.ended)
        self._announce(result.replaced, EndReason.REPLACED)

    async def _keep_lease(self, edge: EdgeBoot) -> bool:
        result = await self._store.renew_lease(edge, self._moment())
        if isinstance(result, BootSuperseded):
            _log.warning("superseded edge boot refused", edge=edge.name, boot_id=edge.boot_id)
            return False
        self._announce(result)
        return True

    def _announce(self, ended: Sequence[EndedSession], reason: EndReason = EndReason.REVOKED) -> None:
        if ended:
            self.open_count -= len(ended)
            session_ids = [session.session_id for session in ended[:100]]
            _log.info("sessions ended", session_ids=session_ids, count=len(ended), reason=reason)
            self._revocations.publish(ended, reason)

    def _moment(self) -> Moment:
        now_ms = _ms(self._clock.now())
        return Moment(
            now_ms=now_ms,
            lease_until_ms=now_ms + _ms(self._policy.lease_s),
            token_until_ms=now_ms + _ms(self._policy.token_ttl_s),
        )


def _superseded() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "a newer process of this edge has taken over")


def invalid_credentials() -> ParleyError:
    """The one answer to an unknown name, a wrong password and a disabled account."""
    return ParleyError(ErrorCode.INVALID_CREDENTIALS, "the name or the password is wrong")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
