"""`parley admin accounts`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import grpc
from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_each, ask_one
from client.admin.failures import AdminError
from client.admin.pages import read_all
from client.admin.report import Context, Row, as_dict, moment

COLUMNS = {
    "NAME": "username",
    "ID": "user_id",
    "CREATED": "created_at_ms",
    "ONLINE": "online",
    "DISABLED": "disabled",
}
SESSION_COLUMNS = {
    "ID": "session_id",
    "NAME": "username",
    "EDGE": "edge_name",
    "DEVICE": "device",
    "SINCE": "opened_at_ms",
    "ENDED": "ended_at_ms",
    "RESUMABLE UNTIL": "resumable_until_ms",
}

HASH_TIMEOUT_S = 30.0
"""A password is hashed behind the logins that wait; the service gives up by then too."""

PASSWORD_BYTES_MAX = 4_096
"""More than any password has: another file was named by mistake."""


def list_accounts(context: Context, arguments: Namespace) -> None:
    """Lists accounts, by name."""

    def read(channel: grpc.Channel) -> list[Row]:
        stub = auth_pb2_grpc.AuthAdminServiceStub(channel)

        def fetch(size: int, token: str) -> auth_pb2.ListAccountsResponse:
            request = auth_pb2.ListAccountsRequest(query=arguments.query or "", page_size=size, page_token=token)
            return stub.ListAccounts(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.accounts, limit=arguments.limit)

    context.write_rows(ask_one(context.channels, "auth", read), COLUMNS)


def show(context: Context, arguments: Namespace) -> None:
    """Shows an account."""
    request = auth_pb2.GetAccountRequest(username=arguments.user)
    response = ask_one(
        context.channels,
        "auth",
        lambda channel: auth_pb2_grpc.AuthAdminServiceStub(channel).GetAccount(request, timeout=CALL_TIMEOUT_S),
    )
    locked = {"locked": response.locked, "locked_for_s": response.locked_for_s}
    values = {**as_dict(response.account), **locked}
    if not context.as_json:
        values["created_at_ms"] = moment(response.account.created_at_ms)
        values["created"] = values.pop("created_at_ms")
    context.write_values(values)


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


def set_password(context: Context, arguments: Namespace) -> None:
    """Gives an account another password and ends its sessions."""
    context.confirm(f"Give {arguments.user} another password and end all of their sessions?")
    password = _new_password(context, arguments.password_file)
    request = auth_pb2.SetPasswordRequest(username=arguments.user, password=password)
    response = ask_one(
        context.channels,
        "auth",
        lambda channel: auth_pb2_grpc.AuthAdminServiceStub(channel).SetPassword(request, timeout=HASH_TIMEOUT_S),
    )
    text = f"{arguments.user} has another password. Sessions ended: {response.revoked_count}."
    context.write_done(text, as_dict(response))


def _new_password(context: Context, file: Path | None) -> str:
    if file is not None:
        try:
            with file.open("rb") as opened:
                return opened.read(PASSWORD_BYTES_MAX).decode().partition("\n")[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise AdminError("bad_request", f"{file} cannot be read as a password: {error}") from error
    password = context.ask_secret("The new password: ")
    if password is None:
        raise AdminError("bad_request", "Nobody is there to type a password: --password-file takes it from a file.")
    if context.ask_secret("The same password again: ") != password:
        raise AdminError("bad_request", "These were two different passwords. Nothing was done.")
    return password


def list_sessions(context: Context, arguments: Namespace) -> None:
    """Lists sessions, the newest first."""

    def read(channel: grpc.Channel) -> list[Row]:
        stub = auth_pb2_grpc.AuthAdminServiceStub(channel)

        def fetch(size: int, token: str) -> auth_pb2.ListSessionsResponse:
            request = auth_pb2.ListSessionsRequest(username=arguments.user or "", page_size=size, page_token=token)
            return stub.ListSessions(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.sessions, limit=arguments.limit)

    context.write_rows(ask_one(context.channels, "auth", read), SESSION_COLUMNS)


def unlock(context: Context, arguments: Namespace) -> None:
    """Forgets the failed logins of an account, at every instance: each may count for itself."""
    request = auth_pb2.UnlockAccountRequest(username=arguments.user)

    def forget(channel: grpc.Channel) -> bool:
        return auth_pb2_grpc.AuthAdminServiceStub(channel).UnlockAccount(request, timeout=CALL_TIMEOUT_S).was_locked

    answers = dict(ask_each(context.channels, "auth", forget))  # all of them, also behind the first that had something
    was_locked = any(answers.values())
    text = "The next login waits for nothing." if was_locked else "No login had to wait."
    context.write_done(f"{arguments.user}: {text}", {"was_locked": was_locked})
