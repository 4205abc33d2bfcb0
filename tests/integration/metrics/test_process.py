"""The metrics service as a process of its own, told of by real telemetry over mutual TLS, stopped and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub as Collector
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub as TraceCollector
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from services.common.errors import from_rpc_error
from services.common.telemetry import Telemetry
from services.common.wire.codes import ErrorCode
from services.metrics.graph_data import DAY_S, HOUR_S, GraphData
from services.metrics.graphs import FORMATS, file_name, pictures
from tests.helpers import certificates, rpc
from tests.helpers.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
PICTURES = [
    file_name(name, data.period_s, kind)
    for name, data in pictures([GraphData(0.0, [], {}, period_s) for period_s in (DAY_S, HOUR_S)])
    for kind in FORMATS
]
BOUNDS = (0.001, 0.01, 0.1, 1.0)
DEADLINE_S = 30.0


class Service:
    """One run of `python -m services.metrics`."""

    def __init__(self, home: Path, process: asyncio.subprocess.Process, address: str) -> None:
        self.home = home
        self.process = process
        self.address = address

    @property
    def stats_path(self) -> Path:
        return self.home / "logs" / "performance_stats.json"

    def lines(self) -> list[dict[str, Any]]:
        text = self.stats_path.read_text() if self.stats_path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def statistics(self) -> dict[str, float]:
        async with rpc.channel(
            self.address, identity="admin/alice", service="metrics", deadline_s=DEADLINE_S
        ) as channel:
            stub = metrics_pb2_grpc.MetricsServiceStub(channel)
            return dict((await stub.GetStatistics(metrics_pb2.GetStatisticsRequest())).values)

    async def until(self, is_reached: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The statistics, as soon as they are as expected."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_reached(values := await self.statistics()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return values

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(home: Path, **settings: object) -> AsyncIterator[Service]:
    material = certificates.shared()
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    environ = {"ready_file": ready, "stats_interval_s": 1, "metrics_interval_s": 1}
    environ |= material.settings("metrics", home) | settings
    with (home / "stderr").open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.metrics"),
            cwd=ROOT,
            env={**os.environ, **{f"PARLEY_METRICS_{key.upper()}": str(value) for key, value in environ.items()}},
            stderr=stderr,
        )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not ready.exists():
                assert process.returncode is None, (home / "stderr").read_text()
                await asyncio.sleep(0.02)
        yield Service(home, process, json.loads(ready.read_text())["grpc"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def telemetry_of(service: str, name: str, endpoint: str, home: Path) -> AsyncIterator[Telemetry]:
    config = certificates.shared().config(service, home, name=name, otlp_endpoint=endpoint, metrics_interval_s=0.2)
    telemetry = Telemetry(config, service)
    telemetry.start()
    try:
        yield telemetry
    finally:
        await telemetry.shutdown()


def talk(telemetry: Telemetry, messages: int, *, sessions: int = 2) -> None:
    """What an edge counts when people talk."""
    counters = telemetry.counters
    counters.gauge("parley.edge.sessions", "1", "", lambda: sessions)
    counters.counter("parley.edge.connections.accepted").add(sessions)
    counters.counter("parley.edge.messages.acknowledged").add(messages)
    counters.counter("parley.edge.messages.delivered").add(messages * sessions)
    counters.counter("parley.edge.bytes.sent", "By").add(messages * 200)
    for _ in range(messages):
        counters.histogram("parley.edge.request.duration", "s", BOUNDS).observe(0.002)
        counters.histogram("parley.edge.publish.duration", "s", BOUNDS).observe(0.02)


async def test_from_telemetry_to_lines_and_pictures(tmp_path: Path) -> None:
    async with running(tmp_path, otlp_endpoint="127.0.0.1:9") as service:
        async with (
            telemetry_of("edge", "edge-1", service.address, tmp_path) as one,
            telemetry_of("edge", "edge-2", service.address, tmp_path) as two,
        ):
            talk(one, 30)
            talk(two, 12, sessions=3)
            expected = {
                "messages_sent": 42,
                "concurrent_users": 5,
                "total_connections": 5,
                "messages_delivered": 30 * 2 + 12 * 3,
                "bytes_transferred": 42 * 200,
            }
            # An export may fall between two of the counts.
            await service.until(lambda values: values.items() >= expected.items())
            await service.until(lambda values: values["avg_latency_ms"] == 20.0)
        assert await service.stop() == 0
        lines = service.lines()
        times = [datetime.fromisoformat(line["timestamp"]) for line in lines]
        assert all(time.utcoffset() == timedelta(0) for time in times)
        assert times == sorted(times)
        assert abs(datetime.now(UTC) - times[-1]) < timedelta(seconds=DEADLINE_S)
        stats = lines[-1]["stats"]
        assert (stats["messages_sent"], stats["avg_processing_time_ms"], stats["avg_latency_ms"]) == (42, 2.0, 20.0)
        assert 1 < stats["p50_processing_time_ms"] <= stats["p99_processing_time_ms"] <= 10
        assert max(line["stats"]["messages_per_second"] for line in lines) > 1
        assert max(line["stats"]["bandwidth_mbps"] for line in lines) > 0
        logged = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
        assert [event for event in logged if event["level"] in ("error", "critical")] == []
        # On a machine that is too busy for the last pictures, that is what it says.
        pictures = [path.name for path in (tmp_path / "monitoring" / "graphs").glob("*.*g")]
        assert sorted(pictures) == sorted(PICTURES) or "last graphs not drawn" in [event["event"] for event in logged]


async def test_an_edge_that_is_started_again_is_added(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        for total in (7, 12):
            async with telemetry_of("edge", "edge-1", service.address, tmp_path) as edge:
                talk(edge, total - 7 or 7)
                expected = {"messages_sent": total, "concurrent_users": 2}
                await service.until(lambda values, expected=expected: values.items() >= expected.items())  # type: ignore[misc]
        await service.until(lambda values: values["concurrent_users"] == 0)  # three of its exports are missing
        assert (await service.statistics())["messages_sent"] == 12


async def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    async with telemetry_of("edge", "edge-1", endpoint, tmp_path) as edge:
        async with running(tmp_path, listen=endpoint) as service:
            talk(edge, 10)
            await service.until(lambda values: values["messages_sent"] == 10)
            written = len(service.lines())
            async with asyncio.timeout(DEADLINE_S):
                while len(service.lines()) < written + 2:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            await service.stop(signal.SIGKILL)
        with service.stats_path.open("ab") as file:
            file.write(b'{"timestamp": "2026-')  # as if it had been in the middle of a line
        talk(edge, 5)
        async with running(tmp_path, listen=endpoint) as service:
            await service.until(lambda values: values["messages_sent"] == 15)
            assert await service.stop() == 0
            assert service.lines()[-1]["stats"]["messages_sent"] == 15
        async with running(tmp_path, listen=endpoint) as service:
            await service.until(lambda values: values["messages_sent"] == 15)
            assert await service.stop() == 0
    assert _hourly(tmp_path) == 15


async def test_pictures_on_request_one_at_a_time(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as service,
        rpc.channel(service.address, identity="admin/alice", service="metrics", deadline_s=DEADLINE_S) as channel,
    ):
        stub = metrics_pb2_grpc.MetricsServiceStub(channel)
        calls = [stub.DrawGraphs(metrics_pb2.DrawGraphsRequest()) for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        (error,) = [result for result in results if isinstance(result, BaseException)]
        (response,) = [result for result in results if not isinstance(result, BaseException)]
        assert isinstance(error, grpc.aio.AioRpcError)
        refusal = from_rpc_error(error)
        assert refusal.code is ErrorCode.UNAVAILABLE
        assert refusal.retry_after_s
        graphs = tmp_path / "monitoring" / "graphs"
        assert list(response.paths) == [str(graphs / name) for name in PICTURES]
        assert all((graphs / name).stat().st_size > 0 for name in PICTURES)


async def test_it_ends_in_time_while_it_draws(tmp_path: Path) -> None:
    async with running(tmp_path, graphs_interval_s=1, stop_grace_s=1) as service:
        await asyncio.sleep(1.2)  # a drawing takes longer than this on any machine
        started = asyncio.get_running_loop().time()
        assert await service.stop() == 0
        assert asyncio.get_running_loop().time() - started < 8
        assert service.lines()


async def test_services_report_and_operators_ask(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        for identity in ("edge", "auth", "rooms", "metrics", "admin/alice"):
            async with rpc.channel(service.address, identity=identity, service="metrics") as channel:
                report = Collector(channel).Export(ExportMetricsServiceRequest())
                ask = metrics_pb2_grpc.MetricsServiceStub(channel).GetStatistics(metrics_pb2.GetStatisticsRequest())
                results = await asyncio.gather(report, ask, return_exceptions=True)
            refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
            assert [result in refused for result in results] == (
                [True, False] if identity.startswith("admin") else [False, True]
            )
            assert refused[0].code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_export_that_is_too_large_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    request = ExportMetricsServiceRequest()
    attribute = request.resource_metrics.add().resource.attributes.add(key="service.instance.id")
    attribute.value.string_value = "edge-1"
    points = request.resource_metrics[0].scope_metrics.add().metrics.add(name="m").gauge.data_points
    async with (
        running(tmp_path, max_points_per_export=10) as service,
        rpc.channel(service.address, identity="edge", service="metrics") as channel,
    ):
        for _ in range(10):
            points.add(as_int=1)
        await Collector(channel).Export(request)
        points.add(as_int=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Collector(channel).Export(request)
        assert from_rpc_error(caught.value).code is ErrorCode.TOO_LARGE
        for _ in range(500_000):
            points.add(as_int=1, time_unix_nano=2**63)
        with pytest.raises(grpc.aio.AioRpcError):  # larger than any gRPC message here
            await Collector(channel).Export(request)
        assert (await service.statistics())["reporting_instances"] >= 1


def _hourly(home: Path) -> int:
    with contextlib.closing(sqlite3.connect(home / "data" / "metrics.db")) as connection:
        return int(connection.execute("SELECT sum(messages) FROM hourly_messages").fetchone()[0])


async def test_traces_are_taken_in_from_services_and_found_by_operators(tmp_path: Path) -> None:
    message_id = "r7d0c4m1zz9k-a1b2c3-1"
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.instance.id").value.string_value = "edge-1"
    span = resource.scope_spans.add().spans.add(
        trace_id=b"\xab" * 16, span_id=b"\x01" * 8, name="text_message", start_time_unix_nano=1, end_time_unix_nano=2
    )
    span.attributes.add(key="parley.message.id").value.string_value = message_id
    async with running(tmp_path) as service:
        async with rpc.channel(service.address, identity="edge", service="metrics") as channel:
            answer = await TraceCollector(channel).Export(request)
            assert not answer.partial_success.rejected_spans
        async with rpc.channel(service.address, identity="admin/alice", service="metrics") as channel:
            stub = metrics_pb2_grpc.MetricsServiceStub(channel)
            found = await stub.FindTraceOfMessage(metrics_pb2.FindTraceOfMessageRequest(message_id=message_id))
            trace = await stub.GetTrace(metrics_pb2.GetTraceRequest(trace_id="AB" * 16))
            assert found.trace == trace.trace
            assert [(one.service, one.instance, one.name) for one in trace.trace.spans] == [
                ("edge", "edge-1", "text_message")
            ]
            listed = await stub.ListTraces(metrics_pb2.ListTracesRequest())
            assert [one.message_id for one in listed.traces] == [message_id]
            nothing = await stub.GetTrace(metrics_pb2.GetTraceRequest(trace_id="ac" * 16))
            assert (nothing.trace.trace_id, len(nothing.trace.spans)) == ("", 0)
            for call in (
                stub.GetTrace(metrics_pb2.GetTraceRequest(trace_id="ab")),
                stub.FindTraceOfMessage(metrics_pb2.FindTraceOfMessageRequest(message_id="r7d0c4m1zz9k")),
                stub.ListTraces(metrics_pb2.ListTracesRequest(page_size=1_001)),
                stub.ListTraces(metrics_pb2.ListTracesRequest(duration_min_ms=float("nan"))),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert from_rpc_error(caught.value).code is ErrorCode.BAD_REQUEST
        assert await service.stop() == 0
    async with (
        running(tmp_path) as service,
        rpc.channel(service.address, identity="admin/alice", service="metrics") as channel,
    ):
        stub = metrics_pb2_grpc.MetricsServiceStub(channel)
        kept = await stub.FindTraceOfMessage(metrics_pb2.FindTraceOfMessageRequest(message_id=message_id))
        assert kept.trace == trace.trace


async def test_statistics_are_streamed_until_the_caller_has_enough(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as service,
        rpc.channel(service.address, identity="admin/alice", service="metrics") as channel,
    ):
        stub = metrics_pb2_grpc.MetricsServiceStub(channel)
        call = stub.StreamStatistics(metrics_pb2.StreamStatisticsRequest(interval_s=0.2))
        async with asyncio.timeout(DEADLINE_S):
            answers = [await call.read() for _ in range(3)]
        call.cancel()
        uptimes = [answer.values["uptime_seconds"] for answer in answers]
        assert uptimes == sorted(set(uptimes))
        assert set(answers[0].values) == set(await service.statistics())
        refused = stub.StreamStatistics(metrics_pb2.StreamStatisticsRequest(interval_s=0.1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused.read()
        assert from_rpc_error(caught.value).code is ErrorCode.BAD_REQUEST
