"""The gate before exports: how many are let in at once, and that their messages are not read before."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics import gate
from services.metrics.gate import PLACES, ExportGate

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Context:
    """What the gate uses of gRPC's context."""

    def __init__(self, message: Any = b"", identity: str = "edge") -> None:
        self._message = message
        self._identity = identity
        self.is_read = False
        self.written: list[Any] = []

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [f"spiffe://parley/{self._identity}".encode()]}

    async def read(self) -> Any:
        self.is_read = True
        return self._message

    async def write(self, message: Any) -> None:
        self.written.append(message)


class Stage:
    def __init__(self) -> None:
        self.counters = Counters()
        self.gate = ExportGate(self.counters)
        self.may_end = asyncio.Event()
        self.under_way = 0
        self.handler = grpc.unary_unary_rpc_method_handler(
            self.export, request_deserializer=ExportTraceServiceRequest.FromString
        )

    async def export(self, request: Any, _context: Any) -> Any:
        assert isinstance(request, ExportTraceServiceRequest)
        self.under_way += 1
        try:
            await self.may_end.wait()
        finally:
            self.under_way -= 1
        return "answer"

    async def gated(self, method: str = METHOD) -> Any:
        async def proceed(_details: Any) -> Any:
            return self.handler

        details: Any = type("Details", (), {"method": method})()
        return await self.gate.intercept_service(proceed, details)

    async def call(self, context: Context) -> None:
        await (await self.gated()).stream_stream(None, context)

    def refused(self, kind: str = "overloaded") -> float:
        return self.counters.counter("parley.metrics.exports.refused", attributes={"kind": kind}).value


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_are_let_in_and_the_others_wait_unread(stage: Stage) -> None:
    contexts = [Context() for _ in range(PLACES + 3)]
    calls = [asyncio.create_task(stage.call(context)) for context in contexts]
    await settle()
    assert stage.under_way == PLACES
    assert sum(context.is_read for context in contexts) == PLACES
    stage.may_end.set()
    await asyncio.gather(*calls)
    assert all(context.written == ["answer"] for context in contexts)
    assert stage.refused() == 0


async def test_who_waits_too_long_is_refused_and_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WAIT_S", 0.01)
    held = [asyncio.create_task(stage.call(Context())) for _ in range(PLACES)]
    await settle()
    late = Context()
    with pytest.raises(ParleyError) as caught:
        await stage.call(late)
    assert caught.value.code is ErrorCode.OVERLOADED
    assert caught.value.retry_after_s
    assert (late.is_read, stage.refused()) == (False, 1)
    stage.may_end.set()
    await asyncio.gather(*held)
    await stage.call(late)


async def test_more_than_may_wait_are_refused_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WAITING_MAX", 2)
    calls = [asyncio.create_task(stage.call(Context())) for _ in range(PLACES + 2)]
    await settle()
    with pytest.raises(ParleyError):
        await stage.call(Context())
    stage.may_end.set()
    await asyncio.gather(*calls)


async def test_one_kind_does_not_keep_out_another(stage: Stage) -> None:
    calls = [asyncio.create_task(stage.call(Context())) for _ in range(PLACES + 1)]
    await settle()
    calls.append(asyncio.create_task(stage.call(Context(identity="rooms"))))
    await settle()
    assert stage.under_way == PLACES + 1
    stage.may_end.set()
    await asyncio.gather(*calls)


async def test_a_caller_that_goes_leaves_its_place(stage: Stage) -> None:
    calls = [asyncio.create_task(stage.call(Context())) for _ in range(PLACES)]
    await settle()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    stage.may_end.set()
    await stage.call(Context())


@pytest.mark.parametrize("message", [b"\xff\xff", grpc.aio.EOF])
async def test_what_is_no_export_is_said_to_be_none(stage: Stage, message: Any) -> None:
    for _ in range(PLACES + 1):
        with pytest.raises(ParleyError) as caught:
            await stage.call(Context(message))
        assert caught.value.code is ErrorCode.BAD_REQUEST
    assert stage.refused("bad_request") == PLACES + 1


async def test_other_calls_pass_by(stage: Stage) -> None:
    assert await stage.gated("/parley.metrics.v1.MetricsService/GetStatistics") is stage.handler
    assert await stage.gated() is await stage.gated()
