"""gate: how many exports may be under way at once, so that a flood of them takes little memory and holds nobody up.

An export may be four megabytes, and a hundred times that once it is decoded: three megabytes of empty spans take 270.
So its message is read only when there is a place for it; until then it stays, but for some kilobytes, with its sender.
It is decoded, measured and done away with in one go, so that there is one of them at a time. Each kind of service has
places of its own: edges that have gone mad do not keep out what rooms have to say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from services.common.errors import ParleyError
from services.common.identity import peer_identity
from services.common.wire.codes import ErrorCode
from services.metrics.otlp import ALLOW

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.common.counters import Counters

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any  # grpc.RpcMethodHandler, whose published types are those of the synchronous server

PLACES: Final = 4
"""Exports of one kind of service at once. One takes some 10 ms, so this is hundreds a second."""

WAITING_MAX: Final = 256
"""Exports of one kind that wait for a place; more than all processes of a large installation have under way."""

WAIT_S: Final = 1.0
READ_S: Final = 2.0
"""How long an export may wait for its place, and its message take to arrive; exporters give up after 1.5 s anyway."""


class ExportGate(grpc.aio.ServerInterceptor):
    """Lets so many exports in, and refuses those that would wait too long. To be the innermost interceptor."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._count(ErrorCode.OVERLOADED, 0)
        self._doors: dict[str, _Door] = {}
        self._gated: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler; that of an export is one that asks for its message itself."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.strip("/").partition("/")[0] not in ALLOW:
            return handler
        known = self._gated.get(method)
        if known is None or known[0] is not handler:
            known = self._gated[method] = handler, self._gate(handler)
        return known[1]

    def _count(self, code: ErrorCode, refused: int = 1) -> None:
        self._counters.counter(
            "parley.metrics.exports.refused", "1", "Exports refused whole.", attributes={"kind": code.value}
        ).add(refused)

    def _gate(self, handler: Handler) -> Handler:
        export, decode = handler.unary_unary, handler.request_deserializer

        async def gated(_requests: Any, context: Context) -> None:
            identity = peer_identity(context)
            assert identity is not None, "the guard lets nobody in without an identity"
            door = self._doors.setdefault(identity.kind, _Door())
            if not await door.enter():
                self._count(ErrorCode.OVERLOADED)
                raise ParleyError(ErrorCode.OVERLOADED, "too many exports at once", retry_after_s=WAIT_S)
            try:
                data = await _read(context)
                # Without a name of its own here, so that the export can let go of it before it waits for the disk.
                response = await export(_decode(data, decode), context)
            except ParleyError as error:
                self._count(error.code)
                raise error.with_traceback(None) from None  # it would hold the export until the caller has its answer
            else:
                await context.write(response)
            finally:
                door.leave()

        # On the wire a call with one request and one response is a stream of each.
        return grpc.stream_stream_rpc_method_handler(gated, response_serializer=handler.response_serializer)


async def _read(context: Context) -> bytes:
    """The one message of the call. Raises ParleyError bad_request."""
    try:
        data = await asyncio.wait_for(context.read(), READ_S)
    except TimeoutError:
        data = None
    if not isinstance(data, bytes):
        raise ParleyError(ErrorCode.BAD_REQUEST, "there is no export")
    return data


def _decode(data: bytes, decode: Callable[[bytes], Any]) -> Any:
    try:
        return decode(data)
    except DecodeError:
        raise ParleyError(ErrorCode.BAD_REQUEST, "this is not an export") from None


class _Door:
    """The places of one kind of service."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)
        self._waiting = 0

    async def enter(self) -> bool:
        """Waits for a place; whether there was one in time."""
        if not self._places.locked():
            return await self._places.acquire()  # at once
        if self._waiting >= WAITING_MAX:
            return False
        self._waiting += 1
        try:
            await asyncio.wait_for(self._places.acquire(), WAIT_S)
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    def leave(self) -> None:
        """Gives the place to the next one."""
        self._places.release()
