"""A vigil over a service that is called: whether it answers at all, so that calls need not wait to find out.

A service that is gone is no problem: its connections break, and calls fail at once. One that is frozen, or behind a
cable that is cut, keeps its connections, and every call would wait for its whole deadline. So it is asked once a second
how it is, over the same connection; when no answer comes, it counts as silent: calls that are under way are given up,
and new ones fail at once with UNAVAILABLE, until it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.clock import Clock
from services.common.logs import get_logger

PAUSE_S: Final = 1.0
ANSWER_S: Final = 2.5
"""With the pause in front of it well below the deadline of a call (5 s), and far above what a busy service takes: the
question is answered by its event loop."""

_HEALTH: Final = "/grpc.health.v1.Health/"

_log = get_logger(__name__)


class Vigil(grpc.aio.UnaryUnaryClientInterceptor):
    """The vigil over one service instance; it is an interceptor of the channels to it. `name` is for the log.

    `on_silent()` is called when the service has fallen silent: streams to it are not ended here.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.is_silent = False
        self.on_silent: Callable[[], object] = lambda: None
        self._name = name
        self._clock = clock
        self._calls: set[asyncio.Future[Any]] = set()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Keep it, on a channel to the service, until cancelled."""
        stub: Any = health_pb2_grpc.HealthStub(channel)  # whose published types are those of synchronous calls
        while True:
            await self._clock.sleep(PAUSE_S)
            self._learn(is_silent=not await _answers(stub.Check))

    def _learn(self, *, is_silent: bool) -> None:
        if is_silent == self.is_silent:
            return
        self.is_silent = is_silent
        if not is_silent:
            _log.info("service answers again", service_called=self._name)
            return
        _log.warning("service is silent", service_called=self._name, calls_under_way=len(self._calls))
        for call in self._calls:
            call.cancel()
        self.on_silent()

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        """Makes the call, and gives it up when the service is silent."""
        method = client_call_details.method
        if (method if isinstance(method, str) else method.decode()).startswith(_HEALTH):
            return await continuation(client_call_details, request)
        if self.is_silent:
            raise _unavailable()
        call = await continuation(client_call_details, request)
        ended = asyncio.ensure_future(_end_of(call))
        self._calls.add(ended)
        try:
            await ended
        except asyncio.CancelledError:
            call.cancel()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it is the caller who has gone
            raise _unavailable() from None
        finally:
            self._calls.discard(ended)
        return call


async def _end_of(call: Any) -> None:
    """Returns when a call has its status, whatever that is."""
    await call.code()


def _unavailable() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the service does not answer")


async def _answers(check: Callable[..., Awaitable[Any]]) -> bool:
    """Whether the service says anything. That it cannot be reached at all is an answer: calls find that out as fast."""
    try:
        await check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    return True
