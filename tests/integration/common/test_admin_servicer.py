"""What every process tells operators, over real mutual TLS."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import grpc
import pytest
import structlog
from parley.process.v1 import process_pb2, process_pb2_grpc
from structlog.testing import capture_logs

from services.common import logs
from services.common.errors import from_rpc_error
from services.common.wire.codes import ErrorCode
from tests.helpers import rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from services.common.rpc_server import RpcServer


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logs.set_level("info")
    yield
    logs.set_level("info")
    structlog.reset_defaults()


@pytest.fixture
async def server() -> AsyncIterator[RpcServer]:
    async with rpc.serve({}, lambda _: None) as server:
        yield server


async def test_a_process_says_how_it_is(server: RpcServer) -> None:
    async with rpc.channel(server, identity="admin/alice") as channel:
        stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
        first = (await stub.GetProcess(process_pb2.GetProcessRequest())).process
        second = (await stub.GetProcess(process_pb2.GetProcessRequest())).process
    assert (first.pid, first.log_level) == (os.getpid(), "info")
    assert first.name.startswith("auth")
    assert abs(first.started_at_ms / 1_000 - time.time()) < 60
    assert 0 < first.cpu_s <= second.cpu_s
    assert first.resident_bytes > 10_000_000


async def test_its_log_level_is_changed_and_that_is_logged_at_any_level(server: RpcServer) -> None:
    async with rpc.channel(server, identity="admin/alice") as channel:
        stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
        with capture_logs() as events:
            for level in ("critical", "debug"):
                process = (await stub.SetLogLevel(process_pb2.SetLogLevelRequest(log_level=level))).process
                assert process.log_level == level
    assert [(event["before"], event["now"], event["operator"]) for event in events] == [
        ("info", "critical", "admin/alice"),
        ("critical", "debug", "admin/alice"),
    ]


@pytest.mark.parametrize("level", ["", "loud", "INFO"])
async def test_there_is_no_such_level(server: RpcServer, level: str) -> None:
    async with rpc.channel(server, identity="admin/alice") as channel:
        stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SetLogLevel(process_pb2.SetLogLevelRequest(log_level=level))
    assert from_rpc_error(caught.value).code is ErrorCode.BAD_REQUEST
    assert logs.current_level() == "info"


@pytest.mark.parametrize("identity", ["edge", "auth", "rooms", "metrics"])
async def test_it_is_for_operators(server: RpcServer, identity: str) -> None:
    async with rpc.channel(server, identity=identity) as channel:
        stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught, capture_logs():
            await stub.SetLogLevel(process_pb2.SetLogLevelRequest(log_level="debug"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert logs.current_level() == "info"
