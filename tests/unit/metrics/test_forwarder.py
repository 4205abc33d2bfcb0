from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.metrics.forwarder import BACKOFF_MAX_S, Forwarder, parse_url

SIZE = 100


def request(number: int) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    made.resource_spans.add().schema_url = f"{number:096d}"
    assert made.ByteSize() == SIZE
    return made


class Receiver:
    """An OTLP receiver; a test takes it down, holds it up or lets it refuse."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.calls = 0
        self.status: grpc.StatusCode | None = None
        self.rejects = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def export(self, data: bytes, timeout: float) -> Any:
        self.calls += 1
        await self.may_answer.wait()
        if self.status is not None:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self.status, empty, empty, "no")
        made = ExportTraceServiceRequest.FromString(data)
        self.taken.append(int(made.resource_spans[0].schema_url))
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = self.rejects
        return response


class Stage:
    def __init__(self, queue_bytes_max: int = 10 * SIZE) -> None:
        self.clock = FakeClock()
        self.receiver = Receiver()
        self.counters = Counters()
        self.forwarder = Forwarder(
            {"spans": self.receiver.export}, counters=self.counters, clock=self.clock, queue_bytes_max=queue_bytes_max
        )

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.forwarder.put("spans", request(number), 2)

    def count(self, name: str) -> float:
        return self.counters.counter(f"parley.metrics.{name}", attributes={"kind": "spans"}).value


@pytest.fixture
async def stage() -> Any:
    stage = Stage()
    task = asyncio.create_task(stage.forwarder.run())
    yield stage
    task.cancel()
    await asyncio.wait([task])


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_what_comes_in_goes_on_in_order(stage: Stage) -> None:
    stage.put(1, 2, 3)
    stage.forwarder.put("spans", request(4), 0)  # nothing that counts
    await stage.forwarder.emptied()
    assert stage.receiver.taken == [1, 2, 3]
    assert (stage.count("forwarded"), stage.count("forward.lost")) == (6, 0)
    assert stage.forwarder.waiting_bytes == 0


async def test_a_receiver_that_is_down_costs_the_oldest_and_gets_the_rest_when_it_is_back(stage: Stage) -> None:
    stage.receiver.status = grpc.StatusCode.UNAVAILABLE
    stage.put(*range(25))
    await settle()
    assert stage.forwarder.waiting_bytes == 10 * SIZE
    assert stage.count("forward.lost") == 15 * 2
    for _ in range(10):
        await stage.clock.advance(BACKOFF_MAX_S)
        await settle()
    assert 5 <= stage.receiver.calls <= 12  # it is not hammered
    stage.receiver.status = None
    await stage.clock.advance(BACKOFF_MAX_S)
    await stage.forwarder.emptied()
    assert stage.receiver.taken == list(range(15, 25))


async def test_a_slow_receiver_holds_nobody_up(stage: Stage) -> None:
    stage.receiver.may_answer.clear()
    stage.put(0)
    await settle()
    stage.put(*range(1, 25))  # never waits
    assert stage.forwarder.waiting_bytes == 10 * SIZE
    stage.receiver.may_answer.set()
    await stage.forwarder.emptied()
    assert stage.receiver.taken == [0, *range(15, 25)]
    assert stage.count("forward.lost") == 15 * 2


async def test_what_is_refused_is_not_sent_again(stage: Stage) -> None:
    stage.receiver.status = grpc.StatusCode.INVALID_ARGUMENT
    stage.put(1)
    await stage.forwarder.emptied()
    assert (stage.receiver.calls, stage.count("forward.lost")) == (1, 2)
    stage.receiver.status, stage.receiver.rejects = None, 1
    stage.put(2)
    await stage.forwarder.emptied()
    assert (stage.count("forwarded"), stage.count("forward.lost")) == (1, 3)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://jaeger:4317", ("jaeger:4317", False)),
        ("http://127.0.0.1", ("127.0.0.1:4317", False)),
        ("https://otlp.example.org/", ("otlp.example.org:4317", True)),
        ("http://[::1]:5000", ("[::1]:5000", False)),
    ],
)
def test_urls(url: str, expected: tuple[str, bool]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "jaeger:4317", "grpc://a:1", "http://", "http://u:p@a:1", "http://a/v1/traces", "http://a:99999"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_url(url)
