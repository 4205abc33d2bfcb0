"""What becomes of the chat, and of the numbers, when the metrics service or whoever is behind it is slow or gone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import time
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from parley.edge.v1 import edge_pb2
from parley.metrics.v1 import metrics_pb2

from tests.e2e.test_admin import admin
from tests.helpers.operator import Operator
from tests.helpers.people import People
from tests.helpers.raw_client import encode
from tests.helpers.stack import FAST_CONFIG, Stack, eventually, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.raw_client import RawClient

MESSAGES = 60
# Far more than a busy machine makes of a message's milliseconds, far less than any time-out in the code.
LATENCY_RATIO_MAX = 20.0
LATENCY_S_MIN = 0.02  # what is below this is noise on a busy machine
PATIENCE_S = 60.0
CONFIG = (
    FAST_CONFIG
    + "[common]\ntrace_ratio = 1.0\ntrace_rate_max = 1000.0\nmetrics_interval_s = 1.0\n[edge]\ntext_rate = 0.0\n"
)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    made = make_stack(config=CONFIG)
    made.start()
    return made


async def latency_s(person: RawClient, room_id: str) -> float:
    """The median time until a text is acknowledged."""
    took = []
    for number in range(MESSAGES):
        started = time.perf_counter()
        await person.say(room_id, f"text {number}")
        took.append(time.perf_counter() - started)
    return statistics.median(took)


async def test_metrics_frozen_or_killed_again_and_again_is_nobody_else_s_trouble(stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice = await people.person()
        room_id = await people.room(alice)
        usual_s = await latency_s(alice, room_id)
        pid = stack.pids()["metrics-1"]
        os.kill(pid, signal.SIGSTOP)
        try:
            frozen_s = await latency_s(alice, room_id)
            assert await alice.refused("trace", {"message_id": f"{room_id}-e-1"}) == "unavailable"
        finally:
            os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
        killed_s = await latency_s(alice, room_id)
        bound_s = max(usual_s, LATENCY_S_MIN) * LATENCY_RATIO_MAX
        assert frozen_s < bound_s, (usual_s, frozen_s)
        assert killed_s < bound_s, (usual_s, killed_s)
        await asyncio.to_thread(eventually, lambda: stack.pids()["metrics-1"] != pid, timeout_s=PATIENCE_S)
        # What it had counted before is in the checkpoints, and what was counted meanwhile comes with the next export.
        operator = Operator(stack)
        async with asyncio.timeout(PATIENCE_S):
            while (await counted(operator)).get("messages_sent", 0) < 3 * MESSAGES:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.5)
        assert (await counted(operator))["messages_sent"] == 3 * MESSAGES


BURST = 200
BURSTS = 10
SPANS_OF_A_TRACE = 2  # an edge's at least: of the text, and of its delivery
SENT_BEFORE_MAX = 50  # spans of the people's coming in, before metrics was frozen


async def test_what_exporters_had_to_drop_is_counted_and_seen_when_metrics_is_back(stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice = await people.person()
        room_id = await people.room(alice)
        operator = Operator(stack)
        pid = stack.pids()["metrics-1"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(BURSTS):
                await say_many(alice, room_id, BURST)
            # Spans that waited, and those of exports that nobody took; log records ("metrics cannot be sent") as well.
            begun = (await operator.edge("GetTracing", edge_pb2.GetTracingRequest())).tracing.started
            assert begun > BURST
            await until_more(stack, "edge-1", "lost", "spans", SPANS_OF_A_TRACE * begun - 1 - SENT_BEFORE_MAX)
            await until_more(stack, "rooms-1", "lost", "spans", BURST)
            await until_more(stack, "edge-1", "lost", "logs", 0)
        finally:
            os.kill(pid, signal.SIGCONT)
        before = {name: exposed(stack, name, "sent", "spans") for name in ("edge-1", "rooms-1")}
        await say_many(alice, room_id, BURST)
        for process, count in before.items():  # from now on they get through again
            await until_more(stack, process, "sent", "spans", count)

        # What an operator is shown is what the processes have counted, all of it, once each of them has told it.
        everything = (BURSTS + 1) * BURST

        async def agrees() -> bool:
            lost = sum(exposed(stack, name, "lost", kind) for name in stack.pids() for kind in ("spans", "logs"))
            expected = {"telemetry_lost": lost, "messages_sent": everything, "messages_stored": everything}
            shown = await counted(operator)
            return shown | expected == shown

        async with asyncio.timeout(PATIENCE_S):
            while not await agrees():  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.5)
        status, out, err = await admin(stack, "stats")
        assert (status, "telemetry_lost" in out) == (0, True), err


async def say_many(person: RawClient, room_id: str, count: int) -> None:
    """Sends so many texts at once, and waits until all are acknowledged."""
    stream = b"".join(
        encode({"type": "text_message", "id": 10_000 + number, "room_id": room_id, "data": {"text": f"{number}"}})
        for number in range(count)
    )
    await person.send_bytes(stream)
    acknowledged = 0
    while acknowledged < count:
        frame = await person.read()
        if "re" in frame:
            assert "seq" in frame["data"], frame
            acknowledged += 1


def exposed(stack: Stack, process: str, what: str, kind: str) -> float:
    """How many spans or log records a process has sent or lost, as it tells Prometheus."""
    with urllib.request.urlopen(f"http://{stack.processes()[process]['prometheus']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf'^parley_telemetry_{what}_total{{kind="{kind}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def until_more(stack: Stack, process: str, what: str, kind: str, count: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(exposed, stack, process, what, kind) <= count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def counted(operator: Operator) -> dict[str, float]:
    try:
        return dict((await operator.metrics("GetStatistics", metrics_pb2.GetStatisticsRequest())).values)
    except Exception:  # noqa: BLE001 - it is just being restarted
        return {}


class Receiver:
    """An OTLP receiver of our own: it takes, waits, or is not there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken = {"metrics": 0, "spans": 0, "logs": 0}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_called = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        server = self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        answers: dict[str, Any] = {
            "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
            "spans": trace_service_pb2.ExportTraceServiceResponse,
            "logs": logs_service_pb2.ExportLogsServiceResponse,
        }

        def servicer(kind: str) -> Any:
            async def export(_self: object, _request: Any, _context: Any) -> Any:
                self.is_called.set()
                await self.may_answer.wait()
                self.taken[kind] += 1
                return answers[kind]()

            return type(kind, (), {"Export": export})()

        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(servicer("metrics"), server)  # type: ignore[no-untyped-call]
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer("spans"), server)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(servicer("logs"), server)  # type: ignore[no-untyped-call]
        assert server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        await server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def until_taken(self, *kinds: str) -> None:
        """Returns when it has had some of each of these kinds, now or before."""
        async with asyncio.timeout(PATIENCE_S):
            while not all(self.taken[kind] for kind in kinds):  # noqa: ASYNC110 - another process sends
                await asyncio.sleep(0.05)


async def test_another_receiver_gets_everything_and_may_be_slow_or_dead(make_stack: Callable[..., Stack]) -> None:
    receiver = Receiver(free_ports())
    await receiver.start()
    stack = make_stack(config=CONFIG, extra=["--otlp", f"http://127.0.0.1:{receiver.port}"])
    await asyncio.to_thread(stack.start)
    try:
        async with AsyncExitStack() as exits:
            people = People(stack, exits)
            alice = await people.person()
            room_id = await people.room(alice)
            usual_s = await latency_s(alice, room_id)
            await receiver.until_taken("metrics", "spans")
            receiver.may_answer.clear()
            receiver.is_called.clear()
            slow_s = await latency_s(alice, room_id)
            async with asyncio.timeout(PATIENCE_S):
                await receiver.is_called.wait()
            receiver.may_answer.set()
            await receiver.stop()
            dead_s = await latency_s(alice, room_id)
            # It notices with its next export, and says so: that line is a log record which waits for the next receiver.
            await asyncio.to_thread(eventually, lambda: "telemetry cannot be sent on" in stack.log_text())
            bound_s = max(usual_s, LATENCY_S_MIN) * LATENCY_RATIO_MAX
            assert max(slow_s, dead_s) < bound_s, (usual_s, slow_s, dead_s)
            receiver = Receiver(receiver.port)
            await receiver.start()
            await latency_s(alice, room_id)
            await receiver.until_taken("metrics", "spans", "logs")
            trace = await Operator(stack).trace_of(await last_message(alice, room_id), lambda spans: len(spans) >= 6)
            assert trace.spans
    finally:
        await receiver.stop()


async def last_message(person: RawClient, room_id: str) -> str:
    sent = await person.say(room_id, "the last one")
    return f"{room_id}-{sent['epoch']}-{sent['seq']}"
