"""`parley admin accounts`."""

from __future__ import annotations

from argparse import Namespace

import grpc
from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_one
from client.admin.pages import read_all
from client.admin.report import Context, Row, as_dict

COLUMNS = {
    "NAME": "username",
    "ID": "user_id",
    "CREATED": "created_at_ms",
    "ONLINE": "online",
    "DISABLED": "disabled",
}


def list_accounts(context: Context, arguments: Namespace) -> None:
    """Lists accounts, by name."""

    def read(channel: grpc.Channel) -> list[Row]:
        stub = auth_pb2_grpc.AuthAdminServiceStub(channel)

        def fetch(size: int, token: str) -> auth_pb2.ListAccountsResponse:
            request = auth_pb2.ListAccountsRequest(query=arguments.query or "", page_size=size, page_token=token)
            return stub.ListAccounts(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.accounts, limit=arguments.limit)

    context.write_rows(ask_one(context.channels, "auth", read), COLUMNS)


def disable(context: Context, arguments: Namespace) -> None:
    """Disables an account and ends its sessions."""
    context.confirm(f"Disable the account {arguments.user} and end its sessions?")
    _set_disabled(context, arguments.user, is_disabled=True)


def enable(context: Context, arguments: Namespace) -> None:
    """Enables an account again."""
    _set_disabled(context, arguments.user, is_disabled=False)


def _set_disabled(context: Context, username: str, *, is_disabled: bool) -> None:
    request = auth_pb2.SetAccountDisabledRequest(username=username, disabled=is_disabled)
    response = ask_one(
        context.channels,
        "auth",
        lambda channel: auth_pb2_grpc.AuthAdminServiceStub(channel).SetAccountDisabled(request, timeout=CALL_TIMEOUT_S),
    )
    word = "disabled" if is_disabled else "enabled"
    context.write_done(f"The account {response.account.username} is {word}.", as_dict(response.account))


def revoke(context: Context, arguments: Namespace) -> None:
    """Ends all sessions of an account."""
    context.confirm(f"End all sessions of {arguments.user}?")
    request = auth_pb2.RevokeSessionsRequest(username=arguments.user)
    response = ask_one(
        context.channels,
        "auth",
        lambda channel: auth_pb2_grpc.AuthAdminServiceStub(channel).RevokeSessions(request, timeout=CALL_TIMEOUT_S),
    )
    context.write_done(f"Ended sessions of {arguments.user}: {response.revoked_count}.", as_dict(response))
