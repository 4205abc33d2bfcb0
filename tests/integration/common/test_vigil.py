from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from services.common import vigil as module
from services.common.clock import FakeClock
from services.common.vigil import PAUSE_S, Vigil
from tests.helpers import rpc
from tests.integration.common import echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def service() -> echo.Echo:
    return echo.Echo()


@pytest.fixture
def vigil() -> Vigil:
    return Vigil("echo", FakeClock())


@pytest.fixture
async def channel(service: echo.Echo, vigil: Vigil) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        rpc.serve({echo.NAME: {"edge"}}, lambda s: echo.add(service, s)) as server,
        rpc.channel(server, identity="edge", vigil=vigil) as channel,
    ):
        yield channel


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_calls_go_through_and_fail_as_without_it(channel: grpc.aio.Channel) -> None:
    assert await echo.call(channel, "Unary", b"one") == b"one"
    assert await refused(echo.call(channel, "Unary", b"abort")) is grpc.StatusCode.OUT_OF_RANGE
    assert await refused(echo.call(channel, "Unary", b"typed")) is not None


async def test_silence_ends_what_is_under_way_and_refuses_what_comes(
    channel: grpc.aio.Channel, service: echo.Echo, vigil: Vigil
) -> None:
    told: list[bool] = []
    vigil.on_silent = lambda: told.append(vigil.is_silent)
    call = asyncio.create_task(echo.call(channel, "Unary", b"wait"))
    await service.waiting.wait()
    with capture_logs() as logs:
        vigil._learn(is_silent=True)
        vigil._learn(is_silent=True)
    assert [(log["event"], log["calls_under_way"]) for log in logs] == [("service is silent", 1)]
    assert told == [True]
    async with asyncio.timeout(10):
        assert await refused(call) is grpc.StatusCode.UNAVAILABLE
        await service.cancelled.wait()
        assert await refused(echo.call(channel, "Unary", b"one")) is grpc.StatusCode.UNAVAILABLE
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status  # or nobody would ever learn better
    vigil._learn(is_silent=False)
    assert await echo.call(channel, "Unary", b"one") == b"one"
    assert not vigil._calls


async def test_a_caller_that_goes_is_cancelled_as_without_it(
    channel: grpc.aio.Channel, service: echo.Echo, vigil: Vigil
) -> None:
    call = asyncio.create_task(echo.call(channel, "Unary", b"wait"))
    await service.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        await service.cancelled.wait()
    assert not vigil._calls


async def test_it_asks_once_a_second_and_learns_from_the_answers(
    channel: grpc.aio.Channel, vigil: Vigil, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False, False, True])
    asked = asyncio.Semaphore(0)

    async def answer(_: object) -> bool:
        asked.release()
        return next(answers)

    monkeypatch.setattr(module, "_answers", answer)
    clock = vigil._clock
    assert isinstance(clock, FakeClock)
    running = asyncio.create_task(vigil.run(channel))
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        await clock.advance(PAUSE_S)
        await asyncio.wait_for(asked.acquire(), 10)
        await asyncio.sleep(0)
        seen.append(vigil.is_silent)
    assert seen == [False, True, True, False]
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(
    ("code", "answers"), [(grpc.StatusCode.DEADLINE_EXCEEDED, False), (grpc.StatusCode.UNAVAILABLE, True)]
)
async def test_only_silence_is_silence(code: grpc.StatusCode, answers: bool) -> None:
    async def check(*_: object, **__: object) -> None:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    assert await module._answers(check) is answers
