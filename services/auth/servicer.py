"""The servicer: gRPC in, domain out. Checks the form of requests, counts, logs ids, and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from services.auth.names import RAW_CHARS_MAX
from services.auth.revocations import EdgeBoot
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.common.wire.limits import MAX_DEVICE_CHARS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    import grpc.aio

    from services.auth.accounts import Accounts
    from services.auth.assertions import Assertions
    from services.auth.sessions import Sessions
    from services.common.clock import Clock
    from services.common.counters import Counters

    Context = grpc.aio.ServicerContext[Any, Any]

DEADLINE_S = 30.0  # for a caller that named none: the longest that a person waits for a login
PASSWORD_CHARS_MAX = 1024  # beyond any password; bounds the work, not the password (see passwords)
_ADDRESS_CHARS_MAX = 64  # an IPv6 address with a zone takes 62
_EDGE_CHARS_MAX = 64
_SESSION_ID_CHARS_MAX = 32
_TOKEN_CHARS_MAX = 1024  # beyond any token of ours; bounds the work
ASSERTIONS_MAX = 1_000  # 300 KB, and 150 ms of signing and verifying
_SESSION_IDS_MAX = 100_000  # as many connections as one edge can hold at all
_log = get_logger(__name__)


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """`parley.auth.v1.AuthService`: what an edge may ask."""

    def __init__(
        self, *, accounts: Accounts, sessions: Sessions, assertions: Assertions, clock: Clock, counters: Counters
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._assertions = assertions
        self._clock = clock
        self._logins = counters.counter("parley.auth.logins", "1", "Logins that succeeded.")
        self._failed_logins = counters.counter("parley.auth.logins.failed", "1", "Logins that were refused.")
        self._resumes = counters.counter("parley.auth.resumes", "1", "Sessions that were resumed.")
        self._failed_resumes = counters.counter("parley.auth.resumes.failed", "1", "Resumes that were refused.")
        self._registrations = counters.counter("parley.auth.registrations", "1", "Accounts made.")
        counters.gauge("parley.auth.sessions", "1", "Open sessions.", lambda: sessions.open_count)
        counters.gauge("parley.auth.accounts", "1", "Accounts.", lambda: accounts.count)

    async def Register(self, request: auth_pb2.RegisterRequest, context: Context) -> auth_pb2.RegisterResponse:  # noqa: N802
        """See the proto."""
        _check_credentials(request)
        account = await self._accounts.register(
            username=request.username,
            password=request.password,
            address=request.address,
            deadline=self._deadline(context),
        )
        self._registrations.add()
        _log.info("account registered", user_id=account.user_id, address=request.address)
        return auth_pb2.RegisterResponse(user_id=account.user_id, username=account.username)

    async def Login(self, request: auth_pb2.LoginRequest, context: Context) -> auth_pb2.LoginResponse:  # noqa: N802
        """See the proto."""
        _check_credentials(request)
        check_length("device", request.device, MAX_DEVICE_CHARS)
        edge = _edge(request.edge)
        try:
            account = await self._accounts.authenticate(
                username=request.username,
                password=request.password,
                address=request.address,
                deadline=self._deadline(context),
            )
            grant = await self._sessions.open(
                user_id=account.user_id,
                username=account.username,
                edge=edge,
                device=request.device,
                takeover=request.takeover,
                password_hash=account.password_hash,
            )
        except ParleyError as error:
            self._failed_logins.add()
            _log.info("login refused", code=error.code, address=request.address, edge=edge.name)
            raise
        self._logins.add()
        _log.info("logged in", user_id=account.user_id, session_id=grant.session_id, edge=edge.name)
        return auth_pb2.LoginResponse(
            user_id=grant.user_id,
            username=grant.username,
            session_id=grant.session_id,
            token=grant.token,
            token_expires_at_ms=grant.token_expires_at_ms,
            assertion=self._assertion(self._assertions.issue(grant, edge)),
        )

    async def Resume(self, request: auth_pb2.ResumeRequest, context: Context) -> auth_pb2.ResumeResponse:  # noqa: N802
        """See the proto."""
        check_length("token", request.token, _TOKEN_CHARS_MAX)
        check_length("address", request.address, _ADDRESS_CHARS_MAX)
        edge = _edge(request.edge)
        try:
            grant = await self._sessions.resume(token=request.token, edge=edge, address=request.address)
        except ParleyError as error:
            self._failed_resumes.add()
            _log.info("resume refused", code=error.code, address=request.address, edge=edge.name)
            raise
        self._resumes.add()
        _log.info("resumed", user_id=grant.user_id, session_id=grant.session_id, edge=edge.name)
        return auth_pb2.ResumeResponse(
            user_id=grant.user_id,
            username=grant.username,
            session_id=grant.session_id,
            token=grant.token,
            token_expires_at_ms=grant.token_expires_at_ms,
            assertion=self._assertion(self._assertions.issue(grant, edge)),
        )

    async def Logout(self, request: auth_pb2.LogoutRequest, context: Context) -> auth_pb2.LogoutResponse:  # noqa: N802
        """See the proto."""
        check_length("session_id", request.session_id, _SESSION_ID_CHARS_MAX)
        await self._sessions.log_out(request.session_id)
        return auth_pb2.LogoutResponse()

    async def EndSessions(  # noqa: N802
        self, request: auth_pb2.EndSessionsRequest, context: Context
    ) -> auth_pb2.EndSessionsResponse:
        """See the proto."""
        _check_session_ids(request.session_ids)
        await self._sessions.end(request.session_ids)
        return auth_pb2.EndSessionsResponse()

    async def RenewLease(  # noqa: N802
        self, request: auth_pb2.RenewLeaseRequest, context: Context
    ) -> auth_pb2.RenewLeaseResponse:
        """See the proto."""
        _check_session_ids(request.session_ids)
        ended = await self._sessions.renew(_edge(request.edge), request.session_ids)
        return auth_pb2.RenewLeaseResponse(lease_s=self._sessions.lease_s, ended_session_ids=ended)

    async def RenewAssertions(  # noqa: N802
        self, request: auth_pb2.RenewAssertionsRequest, context: Context
    ) -> auth_pb2.RenewAssertionsResponse:
        """See the proto."""
        if len(request.assertions) > ASSERTIONS_MAX:
            raise bad_request(f"assertions: at most {ASSERTIONS_MAX}")
        edge = _edge(request.edge)
        try:
            renewed = await self._assertions.renew(request.assertions, edge)
        except ParleyError as error:
            _log.warning("assertions not renewed", edge=edge.name, boot_id=edge.boot_id, reason=error.message)
            raise
        return auth_pb2.RenewAssertionsResponse(assertions=map(self._assertion, renewed))

    async def WatchRevocations(  # noqa: N802
        self, request: auth_pb2.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[auth_pb2.WatchRevocationsResponse]:
        """See the proto."""
        edge = _edge(request.edge)
        subscription = await self._sessions.watch(edge)
        try:
            yield auth_pb2.WatchRevocationsResponse()
            while revocations := await subscription.read():
                yield auth_pb2.WatchRevocationsResponse(
                    revocations=[
                        auth_pb2.Revocation(session_id=one.session_id, reason=one.reason) for one in revocations
                    ]
                )
            raise ParleyError(ErrorCode.UNAVAILABLE, "the watch has ended: open another")
        finally:
            self._sessions.unwatch(edge, subscription)

    def _assertion(self, data: bytes) -> auth_pb2.Assertion:
        return auth_pb2.Assertion(data=data, lifetime_s=self._assertions.lifetime_s)

    def _deadline(self, context: Context) -> float:
        return hashing_deadline(self._clock, context)


def hashing_deadline(clock: Clock, context: Context) -> float:
    """When a hash stops being of use to the caller, on the clock's monotonic scale."""
    remaining_s = context.time_remaining()
    return clock.monotonic() + (DEADLINE_S if remaining_s is None else min(remaining_s, DEADLINE_S))


def _check_credentials(request: auth_pb2.RegisterRequest | auth_pb2.LoginRequest) -> None:
    check_length("username", request.username, RAW_CHARS_MAX)
    check_length("password", request.password, PASSWORD_CHARS_MAX)
    check_length("address", request.address, _ADDRESS_CHARS_MAX)


def _check_session_ids(session_ids: Collection[str]) -> None:
    if len(session_ids) > _SESSION_IDS_MAX:
        raise bad_request(f"session_ids: at most {_SESSION_IDS_MAX}")
    for session_id in session_ids:
        check_length("session_ids", session_id, _SESSION_ID_CHARS_MAX)


def check_length(field: str, value: str, chars_max: int) -> None:
    """Refuses a field that is longer than that. Raises `ParleyError` bad_request."""
    if len(value) > chars_max:
        raise bad_request(f"{field}: at most {chars_max} characters")


def _edge(edge: auth_pb2.EdgeBoot) -> EdgeBoot:
    for field, value in (("edge.name", edge.name), ("edge.boot_id", edge.boot_id)):
        if not value:
            raise bad_request(f"{field}: is missing")
        check_length(field, value, _EDGE_CHARS_MAX)
    return EdgeBoot(edge.name, edge.boot_id)


def bad_request(message: str) -> ParleyError:
    """The error of a request that cannot be right."""
    return ParleyError(ErrorCode.BAD_REQUEST, message)
