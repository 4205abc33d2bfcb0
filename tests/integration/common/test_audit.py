"""The audit log of a real server over mutual TLS: what operators do, and what others try."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.auth.v1 import auth_pb2, auth_pb2_grpc
from structlog.testing import capture_logs

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers import rpc
from tests.integration.common import echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from services.common.rpc_server import RpcServer

ADMIN = "parley.auth.v1.AuthAdminService"
SECRET = "a very secret password"


class Accounts(auth_pb2_grpc.AuthAdminServiceServicer):
    """Answers as `username` says."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def SetPassword(self, request: auth_pb2.SetPasswordRequest, context: Any) -> auth_pb2.SetPasswordResponse:  # noqa: N802
        if request.username == "weak":
            raise ParleyError(ErrorCode.WEAK_PASSWORD, "too short")
        if request.username == "bug":
            raise RuntimeError(SECRET)
        if request.username == "slow":
            self.waiting.set()
            await asyncio.Event().wait()
        return auth_pb2.SetPasswordResponse(revoked_count=1)

    async def GetAccount(self, request: auth_pb2.GetAccountRequest, context: Any) -> auth_pb2.GetAccountResponse:  # noqa: N802
        return auth_pb2.GetAccountResponse()

    async def _none(self, request: Any, context: Any) -> Any:
        raise AssertionError("not called here")

    ListAccounts = SetAccountDisabled = ListSessions = RevokeSessions = UnlockAccount = _none


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
async def server(tmp_path: Path, accounts: Accounts) -> AsyncIterator[RpcServer]:
    def add(server: grpc.aio.Server) -> None:
        auth_pb2_grpc.add_AuthAdminServiceServicer_to_server(accounts, server)
        echo.add(echo.Echo(), server)

    async with rpc.serve({ADMIN: {"admin"}, echo.NAME: {"edge"}}, add, home=tmp_path) as server:
        yield server


def lines(home: Path) -> list[dict[str, Any]]:
    file = home / "logs" / "audit.log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def written(home: Path, count: int = 1) -> list[dict[str, Any]]:
    """Waits for lines: a refused caller has its answer a moment before."""
    async with asyncio.timeout(10):
        while len(lines(home)) < count:  # noqa: ASYNC110 - the server says nothing when it has written
            await asyncio.sleep(0.01)
    return lines(home)


async def set_password(server: RpcServer, username: str, identity: str = "admin/alice") -> None:
    async with rpc.channel(server, identity=identity) as channel:
        stub = auth_pb2_grpc.AuthAdminServiceStub(channel)
        with contextlib.suppress(grpc.aio.AioRpcError), capture_logs():
            await stub.SetPassword(auth_pb2.SetPasswordRequest(username=username, password=SECRET), timeout=10)


@pytest.mark.parametrize(
    ("username", "identity", "outcome"),
    [
        ("bob", "admin/alice", "ok"),
        ("weak", "admin/alice", "weak_password"),
        ("bug", "admin/alice", "internal"),
        ("bob", "edge", "forbidden"),
        ("bob", "auth", "forbidden"),
        ("bob", "rooms", "forbidden"),
        ("bob", "metrics", "forbidden"),
    ],
)
async def test_what_is_done_and_what_is_tried_is_written(
    server: RpcServer, tmp_path: Path, username: str, identity: str, outcome: str
) -> None:
    await set_password(server, username, identity)
    [line] = await written(tmp_path)
    assert line["who"] == identity
    assert line["method"] == f"/{ADMIN}/SetPassword"
    assert line["target"] == {"username": username, "password": "[redacted]"}
    assert line["from"].startswith("ipv4:127.0.0.1:")
    assert line["outcome"] == outcome
    assert line["ts"].endswith("Z")
    assert line["duration_ms"] >= 0
    assert SECRET not in (tmp_path / "logs" / "audit.log").read_text()


@pytest.mark.parametrize(
    ("identity", "status", "outcome"),
    [
        ("admin/alice", grpc.StatusCode.INVALID_ARGUMENT, "bad_request"),
        ("edge", grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
    ],
)
async def test_a_call_whose_request_cannot_be_read_is_written_too(
    server: RpcServer, tmp_path: Path, identity: str, status: grpc.StatusCode, outcome: str
) -> None:
    async with rpc.channel(server, identity=identity) as channel:
        with capture_logs(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{ADMIN}/SetPassword")(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is status
    [line] = await written(tmp_path)
    found = (line["who"], line["method"], line["target"], line["outcome"])
    assert found == (identity, f"/{ADMIN}/SetPassword", {}, outcome)


async def test_nobody_else_reads_it(server: RpcServer, tmp_path: Path) -> None:
    await set_password(server, "bob")
    assert stat.S_IMODE((tmp_path / "logs" / "audit.log").stat().st_mode) == 0o600


async def test_who_gives_up_is_written_too(server: RpcServer, tmp_path: Path, accounts: Accounts) -> None:
    call = asyncio.ensure_future(set_password(server, "slow"))
    await accounts.waiting.wait()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert [line["outcome"] for line in await written(tmp_path)] == ["cancelled"]


async def test_reads_that_repeat_are_written_once(server: RpcServer, tmp_path: Path) -> None:
    for _ in range(3):  # each from another port
        async with rpc.channel(server, identity="admin/alice") as channel:
            stub = auth_pb2_grpc.AuthAdminServiceStub(channel)
            for username in ("bob", "carol"):
                await stub.GetAccount(auth_pb2.GetAccountRequest(username=username))
    for _ in range(3):
        await set_password(server, "bob")
    methods = [line["method"].rpartition("/")[2] for line in lines(tmp_path)]
    assert methods == ["GetAccount"] * 2 + ["SetPassword"] * 3


async def test_an_operator_at_the_wrong_door_is_written(server: RpcServer, tmp_path: Path) -> None:
    async with rpc.channel(server, identity="admin/eve") as channel:
        for method in (*echo.METHODS, "Unknown"):
            with contextlib.suppress(grpc.aio.AioRpcError), capture_logs():
                await echo.call(channel, method, b"one")
        with contextlib.suppress(grpc.aio.AioRpcError), capture_logs():
            await channel.unary_unary("/no.such.Service/Method\n")(b"", timeout=10)
    found = await written(tmp_path, len(echo.METHODS) + 2)
    known = [line for line in found if line["method"].rpartition("/")[2] in echo.METHODS]
    assert {line["outcome"] for line in known} == {"forbidden"}
    assert {line["outcome"] for line in found} == {"forbidden", "aborted"}  # there is no such method
    assert {line["who"] for line in found} == {"admin/eve"}
    assert {line["method"].rpartition("/")[2] for line in found} >= {*echo.METHODS, "Unknown"}


async def test_the_services_own_calls_are_not_written(server: RpcServer, tmp_path: Path) -> None:
    async with rpc.channel(server, identity="edge") as channel:
        for method in echo.METHODS:
            assert await echo.call(channel, method, b"one") == b"one"
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert lines(tmp_path) == []
        with pytest.raises(grpc.aio.AioRpcError), capture_logs():
            await channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest(), timeout=10)
    assert [line["outcome"] for line in await written(tmp_path)] == ["forbidden"]


async def test_a_line_that_cannot_be_written_is_said_elsewhere_and_stops_nobody(
    server: RpcServer, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("in the way")
    async with rpc.channel(server, identity="admin/alice") as channel:
        with capture_logs() as logs:
            request = auth_pb2.SetPasswordRequest(username="bob", password=SECRET)
            await auth_pb2_grpc.AuthAdminServiceStub(channel).SetPassword(request)
    assert [log["event"] for log in logs] == ["audit line lost"]
    assert SECRET not in repr(logs)
