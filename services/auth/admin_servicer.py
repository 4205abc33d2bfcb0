"""The operators' servicer: accounts and sessions. gRPC in, domain out. Who did what is in the audit log."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from services.auth.names import RAW_CHARS_MAX, canonical_username
from services.auth.servicer import PASSWORD_CHARS_MAX, bad_request, check_length, hashing_deadline
from services.common.identity import peer_identity
from services.common.logs import get_logger

if TYPE_CHECKING:
    import grpc.aio

    from services.auth.accounts import Accounts, AccountStatus, AccountStore
    from services.auth.sessions import SessionRecord, Sessions
    from services.common.clock import Clock
    from services.common.errors import ParleyError

    Context = grpc.aio.ServicerContext[Any, Any]

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
_log = get_logger(__name__)


class AuthAdminServicer(auth_pb2_grpc.AuthAdminServiceServicer):
    """`parley.auth.v1.AuthAdminService`: what an operator may ask."""

    def __init__(self, *, store: AccountStore, accounts: Accounts, sessions: Sessions, clock: Clock) -> None:
        self._store = store
        self._accounts = accounts
        self._sessions = sessions
        self._clock = clock

    async def ListAccounts(  # noqa: N802
        self, request: auth_pb2.ListAccountsRequest, context: Context
    ) -> auth_pb2.ListAccountsResponse:
        """See the proto."""
        size = _page_size(request.page_size)
        check_length("query", request.query, RAW_CHARS_MAX)
        after = _parse_page_token(request.page_token)
        # Stored names are folded, so a part of one is too; what PRECIS refuses as a name may yet be a part.
        query = canonical_username(request.query) or request.query.casefold()
        found = await self._store.list_accounts(query=query, after=after, limit=size + 1)
        page = found[:size]
        return auth_pb2.ListAccountsResponse(
            accounts=[_account(status) for status in page],
            next_page_token=_page_token(page[-1].username) if len(found) > size else "",
        )

    async def GetAccount(self, request: auth_pb2.GetAccountRequest, context: Context) -> auth_pb2.GetAccountResponse:  # noqa: N802
        """See the proto."""
        status = await self._find(request.username)
        locked_for_s = await self._accounts.locked_for_s(status.username)
        return auth_pb2.GetAccountResponse(
            account=_account(status), locked=locked_for_s > 0, locked_for_s=round(locked_for_s, 3)
        )

    async def SetAccountDisabled(  # noqa: N802
        self, request: auth_pb2.SetAccountDisabledRequest, context: Context
    ) -> auth_pb2.SetAccountDisabledResponse:
        """See the proto."""
        status = await self._find(request.username)
        await self._store.set_disabled(status.user_id, disabled=request.disabled)
        if request.disabled:  # in this order: after it no login gets through, so none is missed
            await self._sessions.revoke_all(status.user_id)
        operator = str(peer_identity(context))
        _log.warning("account changed", user_id=status.user_id, disabled=request.disabled, operator=operator)
        return auth_pb2.SetAccountDisabledResponse(account=_account(await self._find(status.username)))

    async def SetPassword(  # noqa: N802
        self, request: auth_pb2.SetPasswordRequest, context: Context
    ) -> auth_pb2.SetPasswordResponse:
        """See the proto."""
        check_length("password", request.password, PASSWORD_CHARS_MAX)
        status = await self._find(request.username)
        await self._accounts.set_password(
            user_id=status.user_id,
            username=status.username,
            password=request.password,
            deadline=hashing_deadline(self._clock, context),
        )
        count = await self._sessions.revoke_all(status.user_id)  # in this order, as above
        _log.warning("password set", user_id=status.user_id, operator=str(peer_identity(context)))
        return auth_pb2.SetPasswordResponse(revoked_count=count)

    async def ListSessions(  # noqa: N802
        self, request: auth_pb2.ListSessionsRequest, context: Context
    ) -> auth_pb2.ListSessionsResponse:
        """See the proto."""
        size = _page_size(request.page_size)
        after = _parse_session_token(request.page_token)
        user_id = (await self._find(request.username)).user_id if request.username else None
        found = await self._sessions.list_page(user_id, after=after, limit=size + 1)
        page = found[:size]
        return auth_pb2.ListSessionsResponse(
            sessions=[_session(record) for record in page],
            next_page_token=_session_token(page[-1]) if len(found) > size else "",
        )

    async def RevokeSessions(  # noqa: N802
        self, request: auth_pb2.RevokeSessionsRequest, context: Context
    ) -> auth_pb2.RevokeSessionsResponse:
        """See the proto."""
        status = await self._find(request.username)
        count = await self._sessions.revoke_all(status.user_id)
        _log.warning("sessions revoked", user_id=status.user_id, count=count, operator=str(peer_identity(context)))
        return auth_pb2.RevokeSessionsResponse(revoked_count=count)

    async def UnlockAccount(  # noqa: N802
        self, request: auth_pb2.UnlockAccountRequest, context: Context
    ) -> auth_pb2.UnlockAccountResponse:
        """See the proto."""
        status = await self._find(request.username)
        was_locked = await self._accounts.unlock(status.username)
        _log.warning("account unlocked", user_id=status.user_id, operator=str(peer_identity(context)))
        return auth_pb2.UnlockAccountResponse(was_locked=was_locked)

    async def _find(self, username: str) -> AccountStatus:
        check_length("username", username, RAW_CHARS_MAX)
        name = canonical_username(username)
        status = None if name is None else await self._store.account_status(name)
        if status is None:
            raise bad_request("no such account")
        return status


def _page_size(size: int) -> int:
    if not 0 <= size <= PAGE_SIZE_MAX:
        raise bad_request(f"page_size: 1 to {PAGE_SIZE_MAX}")
    return size or PAGE_SIZE_DEFAULT


def _page_token(username: str) -> str:
    return base64.urlsafe_b64encode(username.encode()).decode("ascii")


def _parse_page_token(token: str) -> str:
    """The name behind which the page begins."""
    check_length("page_token", token, RAW_CHARS_MAX)
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error):
        raise _unknown_token() from None


def _session_token(record: SessionRecord) -> str:
    return _page_token(f"{record.opened_at_ms}:{record.session_id}")


def _parse_session_token(token: str) -> tuple[int, str] | None:
    """When the session behind which the page begins was opened, and its id."""
    if not token:
        return None
    opened_at_ms, _, session_id = _parse_page_token(token).partition(":")
    # 15 digits are the year 33658, and fit into what a database takes for a number.
    if not (opened_at_ms.isascii() and opened_at_ms.isdigit() and len(opened_at_ms) <= 15):
        raise _unknown_token()
    return int(opened_at_ms), session_id


def _unknown_token() -> ParleyError:
    return bad_request("page_token: not one of ours")


def _account(status: AccountStatus) -> auth_pb2.Account:
    return auth_pb2.Account(
        user_id=status.user_id,
        username=status.username,
        created_at_ms=status.created_at_ms,
        disabled=status.disabled,
        online=status.online,
    )


def _session(record: SessionRecord) -> auth_pb2.Session:
    return auth_pb2.Session(
        session_id=record.session_id,
        username=record.username,
        edge_name=record.edge_name,
        device=record.device,
        opened_at_ms=record.opened_at_ms,
        ended_at_ms=record.ended_at_ms or 0,
        resumable_until_ms=0 if record.ended_at_ms is None else record.token_expires_at_ms,
    )
