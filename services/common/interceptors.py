"""What happens around every RPC: who may call it, how errors travel, and that it has a deadline.

The server's interceptor wraps the handler, because the peer's identity is known only inside it. It adds its cost once
per call and none per message of a stream: handlers that are async generators are driven by one loop here
in place of gRPC's own, and handlers that write to the context themselves are simply awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from services.common.errors import MESSAGE_CHARS_MAX, ParleyError, from_rpc_error, to_metadata, to_status
from services.common.identity import ADMIN, peer_identity
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Any  # grpc.RpcMethodHandler, whose published types are those of the synchronous server
    Behaviour = Callable[[Any, Context], Any]

# Calls between services on one network answer in milliseconds; what takes this long is lost.
DEFAULT_DEADLINE_S: Final = 5.0
# Whoever is refused and has a message to send does so at once; nobody else is worth a longer wait.
_FIRST_MESSAGE_S: Final = 1.0
UNREADABLE: Final = object()
"""In place of a request that is none of its method's; only interceptors outside of the guard see it."""
_log = get_logger(__name__)


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Refuses whoever is not on the list of the called service, and translates what handlers raise.

    `allow` maps the full name of a gRPC service to the kinds of identity that may call it. Services that are not in
    it, and methods that do not exist, are refused to everyone alike; only operators hear that a method does not exist:
    their tools ask for several versions of a service and take the one that there is.
    """

    def __init__(self, allow: Mapping[str, frozenset[str]]) -> None:
        self._allow = dict(allow)
        # Handlers are made once, when a servicer is added, so each is wrapped once.
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Returns the handler, wrapped, or one that refuses."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return _REFUSE
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        allowed = self._allow.get(method.strip("/").partition("/")[0], frozenset())
        wrapped = _wrap(method, handler, allowed)
        self._wrapped[method] = (handler, wrapped)
        return wrapped


def _wrap(method: str, handler: Handler, allowed: frozenset[str]) -> Handler:
    behaviour, make = take_apart(handler)
    if inspect.isasyncgenfunction(behaviour):
        run = _drive_generator(behaviour)
    elif inspect.iscoroutinefunction(behaviour):
        run = behaviour
    else:
        raise TypeError(f"{method}: handlers are coroutine functions or asynchronous generator functions")

    async def guarded(request: Any, context: Context) -> Any:
        identity = peer_identity(context)
        if identity is None or identity.kind not in allowed:
            if handler.request_streaming:
                await _take_first(context)
            await _refuse(method, identity, context)
        if request is UNREADABLE:
            await _abort(method, ParleyError(ErrorCode.BAD_REQUEST, "this is not a request of this method"), context)
        try:
            return await run(request, context)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            raise  # the caller has gone, or the handler has ended the call itself
        except Exception as error:  # noqa: BLE001 - the boundary: everything becomes a status here
            await _abort(method, error, context)

    read = handler.request_deserializer
    return make(
        guarded,
        request_deserializer=read if handler.request_streaming or read is None else _forgiving(read),
        response_serializer=handler.response_serializer,
    )


def _forgiving(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that does not raise: gRPC would end the call before anybody looked at who makes it."""

    def read_or_not(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return UNREADABLE

    return read_or_not


def take_apart(handler: Handler) -> tuple[Behaviour, Callable[..., Handler]]:
    """The function of a handler, and what makes a handler of its kind."""
    if handler.request_streaming:
        if handler.response_streaming:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler


def _drive_generator(behaviour: Behaviour) -> Behaviour:
    """The handler in the form that writes to the context."""

    async def drive(request: Any, context: Context) -> None:
        responses = behaviour(request, context)
        write = context.write
        try:
            async for response in responses:
                await write(response)
        finally:
            # A generator that is left in the middle would clean up only when it is collected.
            await responses.aclose()

    return drive


async def _refuse(method: str, identity: object, context: Context) -> None:
    _log.warning("call refused", method=method, peer=context.peer(), identity=str(identity))
    error = ParleyError(ErrorCode.FORBIDDEN, "this identity may not call this method")
    await context.abort(to_status(error.code), error.message, to_metadata(error))


async def _take_first(context: Context) -> None:
    """Waits for the first message of a stream that is about to be refused.

    A caller that is told the status while it is still sending sees its own failure to send (INTERNAL) in place of it.
    """
    with contextlib.suppress(TimeoutError, DecodeError):
        await asyncio.wait_for(context.read(), _FIRST_MESSAGE_S)


async def _refuse_unknown(_request: Any, context: Context) -> None:
    await _take_first(context)
    identity = peer_identity(context)
    if identity is not None and identity.kind == ADMIN:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
    await _refuse("unknown method", identity, context)


# On the wire a call of any kind can be answered by a handler of this one.
_REFUSE: Final[Any] = grpc.stream_stream_rpc_method_handler(_refuse_unknown)


async def _abort(method: str, error: Exception, context: Context) -> None:
    if isinstance(error, grpc.aio.AioRpcError):  # of a service that this one called
        error = from_rpc_error(error)
    if not isinstance(error, ParleyError):
        _log.error("call failed", method=method, exc_info=error)
        error = ParleyError(ErrorCode.INTERNAL, "internal error")
    await context.abort(to_status(error.code), error.message[:MESSAGE_CHARS_MAX], to_metadata(error))


class DeadlineInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives a deadline to calls that were made without one."""

    def __init__(self, deadline_s: float = DEFAULT_DEADLINE_S) -> None:
        self._deadline_s = deadline_s

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        """Makes the call."""
        if client_call_details.timeout is None:
            client_call_details = client_call_details._replace(timeout=self._deadline_s)
        return await continuation(client_call_details, request)
