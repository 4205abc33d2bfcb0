from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from services.common.errors import ParleyError
from services.common.interceptors import DeadlineInterceptor, GuardInterceptor
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHOD = "/parley.test.v1.EchoService/Do"


class Context:
    """What the guard uses of gRPC's context; `aborted` is how the call was ended."""

    def __init__(self, identity: str = "edge") -> None:
        self._identity = identity
        self.written: list[Any] = []
        self.aborted: tuple[Any, ...] | None = None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [f"spiffe://parley/{self._identity}".encode()]}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, message: Any) -> None:
        self.written.append(message)

    async def abort(self, *arguments: Any) -> None:
        self.aborted = arguments
        raise grpc.aio.AbortError


class Details:
    method = METHOD


async def intercept(handler: Any, guard: GuardInterceptor | None = None) -> Any:
    async def proceed(_details: Any) -> Any:
        return handler

    guard = guard or GuardInterceptor({"parley.test.v1.EchoService": frozenset({"edge"})})
    return await guard.intercept_service(proceed, Details())  # type: ignore[arg-type]


async def answer(request: Any, _context: Any) -> Any:
    return request


async def test_a_handler_is_wrapped_once() -> None:
    guard = GuardInterceptor({})
    handler = grpc.unary_unary_rpc_method_handler(answer)
    wrapped = await intercept(handler, guard)
    assert await intercept(handler, guard) is wrapped
    assert await intercept(grpc.unary_unary_rpc_method_handler(answer), guard) is not wrapped


@pytest.mark.parametrize("error", [asyncio.CancelledError(), grpc.aio.AbortError(), grpc.aio.UsageError()])
async def test_cancellation_and_grpcs_own_errors_pass_through(error: BaseException) -> None:
    async def handle(_request: Any, _context: Any) -> Any:
        raise error

    context = Context()
    wrapped = await intercept(grpc.unary_unary_rpc_method_handler(handle))
    with pytest.raises(type(error)) as caught:
        await wrapped.unary_unary(b"", context)
    assert caught.value is error
    assert context.aborted is None


async def test_a_generator_writes_to_the_context_itself() -> None:
    async def generate(request: Any, _context: Any) -> AsyncIterator[Any]:
        for part in request:
            yield part

    context = Context()
    wrapped = await intercept(grpc.unary_stream_rpc_method_handler(generate))
    assert await wrapped.unary_stream([1, 2, 3], context) is None
    assert context.written == [1, 2, 3]


async def test_a_failed_call_to_another_service_keeps_its_code() -> None:
    pairs = (("parley-code", "overloaded"), ("parley-retry-after", "2"))
    failure = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(*pairs), details="full"
    )

    async def handle(_request: Any, _context: Any) -> Any:
        raise failure

    context = Context()
    wrapped = await intercept(grpc.unary_unary_rpc_method_handler(handle))
    with pytest.raises(grpc.aio.AbortError):
        await wrapped.unary_unary(b"", context)
    metadata = (("parley-code", "overloaded"), ("parley-retry-after", "2.000"))
    assert context.aborted == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)


async def test_an_endless_message_is_cut() -> None:
    async def handle(_request: Any, _context: Any) -> Any:
        raise ParleyError(ErrorCode.CONFLICT, "x" * 10_000)

    context = Context()
    wrapped = await intercept(grpc.unary_unary_rpc_method_handler(handle))
    with pytest.raises(grpc.aio.AbortError):
        await wrapped.unary_unary(b"", context)
    assert context.aborted is not None
    assert len(context.aborted[1]) == 500


@pytest.mark.parametrize("identity", ["auth", "admin/alice", "nobody"])
async def test_a_refused_caller_does_not_reach_the_handler(identity: str) -> None:
    async def handle(_request: Any, _context: Any) -> Any:
        raise AssertionError("reached")

    context = Context(identity)
    wrapped = await intercept(grpc.unary_unary_rpc_method_handler(handle))
    with pytest.raises(grpc.aio.AbortError):
        await wrapped.unary_unary(b"", context)
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_handler_that_would_block_the_loop_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=METHOD):
        await intercept(grpc.unary_unary_rpc_method_handler(lambda request, _context: request))


@pytest.mark.parametrize(("given", "used"), [(None, 5.0), (0.5, 0.5), (60.0, 60.0)])
async def test_only_calls_without_a_time_out_get_one(given: float | None, used: float) -> None:
    seen: list[Any] = []

    async def proceed(details: Any, _request: Any) -> Any:
        seen.append(details.timeout)

    details = grpc.aio.ClientCallDetails(METHOD.encode(), given, None, None, None)
    await DeadlineInterceptor().intercept_unary_unary(proceed, details, b"")
    assert seen == [used]
