"""The RPC server and channels over real mutual TLS: who may call, how errors travel, what goes through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from services.common.errors import from_rpc_error
from services.common.wire.codes import ErrorCode
from tests.helpers import certificates, rpc
from tests.integration.common import echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.common.rpc_server import RpcServer

ALL = ("edge", "auth", "rooms", "metrics", "admin/alice")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def service() -> echo.Echo:
    return echo.Echo()


@pytest.fixture
async def server(service: echo.Echo) -> AsyncIterator[RpcServer]:
    async with rpc.serve({echo.NAME: {"edge"}}, lambda s: echo.add(service, s)) as server:
        yield server


@pytest.mark.parametrize("method", echo.METHODS)
async def test_an_allowed_identity_is_answered(server: RpcServer, method: str) -> None:
    async with rpc.channel(server, identity="edge") as channel:
        assert await echo.call(channel, method, b"one") == b"one"


@pytest.mark.parametrize(
    ("identity", "method"),
    [
        (identity, method)
        for identity in ALL
        for method in (*echo.METHODS, "Unknown")
        if identity != "edge" and not (identity.startswith("admin") and method == "Unknown")
    ],
)
async def test_an_identity_that_is_not_on_the_list_is_refused(server: RpcServer, identity: str, method: str) -> None:
    async with rpc.channel(server, identity=identity) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught, capture_logs() as logs:
            await echo.call(channel, method, b"one")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert from_rpc_error(caught.value).code is ErrorCode.FORBIDDEN
    assert [log["identity"] for log in logs] == [identity]


async def test_operators_are_told_that_a_method_does_not_exist(server: RpcServer) -> None:
    """Their tools ask for several versions of a service, and take the one that there is."""
    async with rpc.channel(server, identity="admin/alice") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unknown", b"one")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", [f"/{echo.NAME}/Unknown", "/parley.test.v1.NoService/Unary", "/"])
async def test_methods_that_do_not_exist_are_refused_even_to_the_allowed(server: RpcServer, path: str) -> None:
    async with rpc.channel(server, identity="edge") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_service_that_the_list_does_not_name_is_refused_to_everyone(service: echo.Echo) -> None:
    async with rpc.serve({}, lambda s: echo.add(service, s)) as server:
        for identity in ALL:
            async with rpc.channel(server, identity=identity) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await echo.call(channel, "Unary", b"one")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_caller_of_a_foreign_authority_is_refused(server: RpcServer) -> None:
    stranger = certificates.foreign().config("edge", rpc.HOME)
    trusting = certificates.shared().config("edge", rpc.HOME)
    options = [("grpc.ssl_target_name_override", "auth.parley.internal")]
    credentials = grpc.ssl_channel_credentials(
        trusting.ca.read_bytes(), stranger.private_key.read_bytes(), stranger.certificate.read_bytes()
    )
    async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_of_a_foreign_authority_is_not_believed(server: RpcServer) -> None:
    async with rpc.channel(server, identity="edge", material=certificates.foreign()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_without_a_certificate_is_refused(server: RpcServer) -> None:
    credentials = grpc.ssl_channel_credentials(certificates.shared().grpc_ca.read_bytes())
    options = [("grpc.ssl_target_name_override", "auth.parley.internal")]
    async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_without_tls_is_refused(server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_key_of_an_edge_for_clients_is_no_identity(server: RpcServer) -> None:
    material = certificates.shared()
    certificate, key = material.server
    credentials = grpc.ssl_channel_credentials(
        material.grpc_ca.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", "auth.parley.internal")]
    async with grpc.aio.secure_channel(server.address, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_another_service_cannot_answer_in_the_place_of_the_one_that_was_dialled(service: echo.Echo) -> None:
    async with (
        rpc.serve({echo.NAME: {"edge"}}, lambda s: echo.add(service, s), service="rooms") as server,
        rpc.channel(server, identity="edge", service="auth") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", b"one")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", echo.METHODS)
async def test_a_typed_error_arrives_with_everything_it_carries(server: RpcServer, method: str) -> None:
    async with rpc.channel(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, method, b"typed")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    error = from_rpc_error(caught.value)
    assert (error.code, error.message, error.retry_after_s) == (
        ErrorCode.ALREADY_LOGGED_IN,
        "seit 5 – elsewhere",
        1.5,
    )
    assert error.details == {"since-ms": "12%3é"}


@pytest.mark.parametrize("method", echo.METHODS)
async def test_a_defect_is_logged_once_and_tells_the_caller_nothing(server: RpcServer, method: str) -> None:
    async with rpc.channel(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught, capture_logs() as logs:
            await echo.call(channel, method, b"bug")
    error = from_rpc_error(caught.value)
    assert (caught.value.code(), error.code) == (grpc.StatusCode.INTERNAL, ErrorCode.INTERNAL)
    assert "secret" not in str(caught.value)
    assert [(log["event"], log["method"]) for log in logs] == [("call failed", f"/{echo.NAME}/{method}")]


@pytest.mark.parametrize("method", echo.METHODS)
async def test_a_handler_may_end_the_call_itself(server: RpcServer, method: str) -> None:
    async with rpc.channel(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught, capture_logs() as logs:
            await echo.call(channel, method, b"abort")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "own abort")
    assert logs == []


@pytest.mark.parametrize("method", ["Generate", "Write"])
async def test_what_was_streamed_before_an_error_arrives(server: RpcServer, method: str) -> None:
    async with rpc.channel(server) as channel:
        stream = channel.unary_stream(f"/{echo.NAME}/{method}")(b"a b typed c", timeout=10)
        assert [await stream.read(), await stream.read()] == [b"a", b"b"]
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()


@pytest.mark.parametrize("method", echo.METHODS)
async def test_a_handler_is_cancelled_when_its_caller_goes(server: RpcServer, service: echo.Echo, method: str) -> None:
    async with rpc.channel(server) as channel:
        with capture_logs() as logs:
            call = asyncio.ensure_future(echo.call(channel, method, b"wait"))
            await service.waiting.wait()
            call.cancel()
            await asyncio.wait_for(service.cancelled.wait(), 10)
    assert logs == []


async def test_a_generator_is_closed_when_its_caller_goes_in_the_middle(server: RpcServer, service: echo.Echo) -> None:
    async with rpc.channel(server) as channel:
        stream = channel.unary_stream(f"/{echo.NAME}/Generate")(b"a wait", timeout=10)
        assert await stream.read() == b"a"
        stream.cancel()
        await asyncio.wait_for(service.cancelled.wait(), 10)
        async with rpc.channel(server) as another:
            await echo.call(another, "Unary", b"x")
    assert service.closed_generators == 1


async def test_a_call_without_a_time_out_gets_a_deadline(server: RpcServer, service: echo.Echo) -> None:
    async with rpc.channel(server, deadline_s=0.2) as channel:
        while not service.waiting.is_set():  # on a busy machine a call may be over before it has got there
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{echo.NAME}/Unary")(b"wait")
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert from_rpc_error(caught.value).code is ErrorCode.UNAVAILABLE
        await asyncio.wait_for(service.cancelled.wait(), 10)


async def test_idempotent_methods_are_tried_again_when_the_server_was_not_there() -> None:
    attempts = 0

    async def flaky(request: bytes, context: echo.Context) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return request

    handlers = {name: grpc.unary_unary_rpc_method_handler(flaky) for name in ("Read", "Write")}
    async with (
        rpc.serve({echo.NAME: {"edge"}}, lambda s: s.add_registered_method_handlers(echo.NAME, handlers)) as server,
        rpc.channel(server, idempotent_methods=[f"{echo.NAME}/Read"]) as channel,
    ):
        assert await echo.call(channel, "Read", b"x") == b"x"
        assert attempts == 3
        attempts = 0
        with pytest.raises(grpc.aio.AioRpcError):
            await echo.call(channel, "Write", b"x")
        assert attempts == 1


@pytest.mark.parametrize("identity", ALL)
async def test_every_identity_may_ask_for_health(server: RpcServer, identity: str) -> None:
    async with rpc.channel(server, identity=identity) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", echo.NAME):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING


async def test_health_is_watched_through_the_interceptor(server: RpcServer) -> None:
    async with rpc.channel(server) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=echo.NAME))
        assert (await watch.read()).status == SERVING
        server.set_serving(False)
        assert (await watch.read()).status == NOT_SERVING
        await server.set_serving(True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


@pytest.mark.parametrize("identity", ALL)
async def test_reflection_and_channelz_are_for_operators(server: RpcServer, identity: str) -> None:
    async with rpc.channel(server, identity=identity) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = reflect(iter([request]), timeout=10)
        servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest(), timeout=10)
        if identity.startswith("admin"):
            names = {service.name for service in (await listed.read()).list_services_response.service}
            assert names >= {echo.NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"}
            assert (await servers).server
        else:
            for call in (listed.read(), servers):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        listed.cancel()


async def test_two_servers_do_not_share_a_port(server: RpcServer, service: echo.Echo) -> None:
    config = certificates.shared().config("auth", rpc.HOME, listen=server.address)
    from services.common.rpc_server import RpcServer as Server

    other = Server(config, allow={})
    with pytest.raises(RuntimeError):
        await other.start()
    await other.stop(0)


async def test_messages_above_the_limit_are_refused(server: RpcServer) -> None:
    async with rpc.channel(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "Unary", bytes(5 * 1024 * 1024))
    assert from_rpc_error(caught.value).code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("method", ["Write", "BidiWrite"])
async def test_stopping_gives_calls_their_grace_and_no_more(service: echo.Echo, method: str) -> None:
    async with (
        rpc.serve({echo.NAME: {"edge"}}, lambda s: echo.add(service, s)) as server,
        rpc.channel(server) as channel,
    ):
        call = asyncio.ensure_future(echo.call(channel, method, b"wait"))
        await service.waiting.wait()
        await asyncio.wait_for(server.stop(0.1), 10)
        assert service.cancelled.is_set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert from_rpc_error(caught.value).code is ErrorCode.UNAVAILABLE


async def test_a_stream_that_sends_nothing_is_refused_too(server: RpcServer) -> None:
    async with rpc.channel(server, identity="rooms") as channel:
        stream = channel.stream_stream(f"/{echo.NAME}/Bidi")(timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_of_garbage_is_refused_too() -> None:
    async def handle(_requests: Any, _context: Any) -> None:
        raise AssertionError("not called here")

    method = grpc.stream_stream_rpc_method_handler(
        handle, request_deserializer=health_pb2.HealthCheckRequest.FromString
    )

    def add(made: grpc.aio.Server) -> None:
        made.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(echo.NAME, {"Bidi": method})])

    async with rpc.serve({echo.NAME: {"edge"}}, add) as server, rpc.channel(server, identity="rooms") as channel:
        stream = channel.stream_stream(f"/{echo.NAME}/Bidi")(timeout=10)
        await stream.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
