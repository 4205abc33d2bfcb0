"""A gRPC service with a method of every kind, made by hand, for tests of what is around the handlers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = "parley.test.v1.EchoService"
Context = grpc.aio.ServicerContext[bytes, bytes]


class Echo:
    """Answers with what it gets; a request that is a command does what it says."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.closed_generators = 0

    async def obey(self, command: bytes, context: Context) -> bytes:
        match command:
            case b"typed":
                raise ParleyError(
                    ErrorCode.ALREADY_LOGGED_IN, "seit 5 – elsewhere", retry_after_s=1.5, details={"since-ms": "12%3é"}
                )
            case b"bug":
                raise RuntimeError("secret detail")
            case b"abort":
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "own abort")
            case b"wait":
                self.waiting.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return command

    async def unary(self, request: bytes, context: Context) -> bytes:
        return await self.obey(request, context)

    async def collect(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"".join([await self.obey(request, context) async for request in requests])

    async def generate(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            for part in request.split(b" "):
                yield await self.obey(part, context)
        finally:
            self.closed_generators += 1

    async def write(self, request: bytes, context: Context) -> None:
        for part in request.split(b" "):
            await context.write(await self.obey(part, context))

    async def bidi(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.obey(request, context)

    async def bidi_write(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for request in requests:
            await context.write(await self.obey(request, context))


def add(echo: Echo, server: grpc.aio.Server, *, name: str = NAME) -> None:
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
        "Collect": grpc.stream_unary_rpc_method_handler(echo.collect),
        "Generate": grpc.unary_stream_rpc_method_handler(echo.generate),
        "Write": grpc.unary_stream_rpc_method_handler(echo.write),
        "Bidi": grpc.stream_stream_rpc_method_handler(echo.bidi),
        "BidiWrite": grpc.stream_stream_rpc_method_handler(echo.bidi_write),
    }
    server.add_registered_method_handlers(name, handlers)


async def call(channel: grpc.aio.Channel, method: str, request: bytes, *, name: str = NAME) -> bytes:
    """Calls a method of whatever kind with one request; the answers joined by spaces."""
    path = f"/{name}/{method}"

    async def requests() -> AsyncIterator[bytes]:
        yield request

    if method == "Collect":
        return await channel.stream_unary(path)(requests(), timeout=10)
    if method in ("Generate", "Write"):
        return b" ".join([answer async for answer in channel.unary_stream(path)(request, timeout=10)])
    if method in ("Bidi", "BidiWrite"):
        return b" ".join([answer async for answer in channel.stream_stream(path)(requests(), timeout=10)])
    return await channel.unary_unary(path)(request, timeout=10)


METHODS = ("Unary", "Collect", "Generate", "Write", "Bidi", "BidiWrite")
