"""Metrics out of a process: over OTLP to a real collector, to none, and as Prometheus text."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from structlog.testing import capture_logs

from services.common import otlp_exporter, telemetry
from services.common.telemetry import SHUTDOWN_S, Counters, Telemetry
from tests.helpers import certificates, rpc
from tests.helpers.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

COLLECTOR = "opentelemetry.proto.collector.metrics.v1.MetricsService"
# Under what a test may wait, above what a loaded machine takes.
PATIENCE_S = 20.0
# Above what a loaded machine adds to a time limit.
LATE_S = 5.0


class Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.requests.put_nowait(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@asynccontextmanager
async def collecting(**options: Any) -> AsyncIterator[tuple[Collector, str]]:
    collector = Collector()

    def add(server: Any) -> None:
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)

    async with rpc.serve({COLLECTOR: {"edge"}}, add, **{"service": "metrics", **options}) as server:
        yield collector, server.address


def make(tmp_path: Path, endpoint: str | None, interval_s: float = 3600.0) -> Telemetry:
    settings = {"otlp_endpoint": endpoint, "metrics_interval_s": interval_s}
    return Telemetry(certificates.shared().config("edge", tmp_path, **settings), "edge")


def points(request: Any) -> dict[tuple[str, str], float]:
    """(name, attributes as text) -> value, without what telemetry counts of itself."""
    found = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        data = metric.sum if metric.HasField("sum") else metric.gauge
        for point in data.data_points:
            attributes = ",".join(f"{pair.key}={pair.value.string_value}" for pair in point.attributes)
            found[metric.name, attributes] = point.as_int if point.HasField("as_int") else point.as_double
    return {key: value for key, value in found.items() if not key[0].startswith("parley.telemetry.")}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to somebody who takes it arrives, however busy the machine is, also at the end."""
    monkeypatch.setattr(telemetry, "SHUTDOWN_S", PATIENCE_S)
    monkeypatch.setattr(otlp_exporter, "EXPORT_TIMEOUT_S", PATIENCE_S)


@pytest.mark.usefixtures("patient")
async def test_the_last_numbers_arrive_with_all_that_names_them(tmp_path: Path) -> None:
    async with collecting() as (collector, address):
        telemetry = make(tmp_path, address)
        before = telemetry.counters.counter("parley.edge.errors", "1", "Errors.")
        telemetry.start()
        before.add(3)
        for name in ("low", "high"):
            attributes = {"qos_class": name}
            telemetry.counters.gauge("parley.edge.queue.waiting", "1", "Waiting.", lambda: 7, attributes=attributes)
        histogram = telemetry.counters.histogram("parley.edge.publish.duration", "s", (0.1, 1.0))
        for value in (0.05, 0.5, 5.0):
            histogram.observe(value)
        await telemetry.shutdown()
        request = collector.requests.get_nowait()
    resource = {pair.key: pair.value.string_value for pair in request.resource_metrics[0].resource.attributes}
    assert (resource["service.name"], resource["service.instance.id"]) == ("edge", "edge-1")
    numbers = points(request)
    ends = {name: value for (metric, name), value in numbers.items() if metric == "parley.certificate.not_after"}
    assert ends.keys() == {"certificate=edge-cert.pem", "certificate=grpc-ca-cert.pem"}
    assert all(value > time.time() for value in ends.values())
    assert {key: value for key, value in numbers.items() if key[1] not in ends} == {
        ("parley.edge.errors", ""): 3,
        ("parley.edge.queue.waiting", "qos_class=low"): 7,
        ("parley.edge.queue.waiting", "qos_class=high"): 7,
        ("parley.edge.publish.duration.count", ""): 3,
        ("parley.edge.publish.duration.sum", ""): pytest.approx(5.55),
        ("parley.edge.publish.duration.bucket", "le=0.1"): 1,
        ("parley.edge.publish.duration.bucket", "le=1.0"): 2,
        ("parley.edge.publish.duration.bucket", "le=+Inf"): 3,
    }


async def test_counts_are_cumulative_from_one_export_to_the_next(tmp_path: Path) -> None:
    async with collecting() as (collector, address):
        telemetry = make(tmp_path, address, interval_s=0.05)
        counter = telemetry.counters.counter("parley.edge.errors")
        telemetry.start()
        counter.add(1)
        seen = 0.0
        while seen < 1:
            seen = points(await asyncio.wait_for(collector.requests.get(), PATIENCE_S)).get(
                ("parley.edge.errors", ""), 0
            )
        counter.add(1)
        while seen < 2:
            seen = points(await asyncio.wait_for(collector.requests.get(), PATIENCE_S))["parley.edge.errors", ""]
        await telemetry.shutdown()
    assert seen == 2


async def logged(logs: list[Any]) -> None:
    """Returns once there is a line in the log, which another thread writes."""
    async with asyncio.timeout(PATIENCE_S):
        while not logs:  # noqa: ASYNC110 - there is nothing to wait for but the line
            await asyncio.sleep(0.01)


@pytest.fixture
def silent_port() -> Any:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.mark.parametrize("kind", ["silent_port", "closed_port"])
async def test_without_a_metrics_service_there_is_one_line_and_no_delay(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    with capture_logs() as logs:
        telemetry = make(tmp_path, f"127.0.0.1:{request.getfixturevalue(kind)}", interval_s=0.02)
        telemetry.counters.counter("parley.edge.errors").add(1)
        telemetry.start()
        await logged(logs)
        await asyncio.sleep(0.3)  # several more attempts, each of which must stay quiet
        started = time.monotonic()
        await telemetry.shutdown()
        took_s = time.monotonic() - started
    assert took_s <= SHUTDOWN_S + LATE_S
    assert [(log["event"], log["log_level"]) for log in logs] == [("metrics cannot be sent", "warning")]


@pytest.mark.usefixtures("patient")
async def test_only_the_metrics_service_is_sent_anything(tmp_path: Path) -> None:
    async with collecting(service="rooms") as (collector, address):
        with capture_logs() as logs:
            telemetry = make(tmp_path, address)
            telemetry.counters.counter("parley.edge.errors").add(1)
            telemetry.start()
            await telemetry.shutdown()
    assert collector.requests.empty()
    assert [log["event"] for log in logs] == ["metrics cannot be sent"]


@pytest.mark.usefixtures("patient")
async def test_the_end_of_an_outage_is_one_line(tmp_path: Path, closed_port: int) -> None:
    with capture_logs() as logs:
        telemetry = make(tmp_path, f"127.0.0.1:{closed_port}", interval_s=0.05)
        telemetry.counters.counter("parley.edge.errors").add(1)
        telemetry.start()
        await logged(logs)
        config = certificates.shared().config("metrics", tmp_path, listen=f"127.0.0.1:{closed_port}")
        server = rpc.RpcServer(config, allow={COLLECTOR: frozenset({"edge"})})
        collector = Collector()
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server.grpc)
        await server.start()
        for _ in range(2):
            await asyncio.wait_for(collector.requests.get(), PATIENCE_S)
        await telemetry.shutdown()
        await server.stop(0)
    assert [log["event"] for log in logs] == ["metrics cannot be sent", "metrics are sent again"]


async def scrape(telemetry: Telemetry) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://{telemetry.prometheus_address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def test_prometheus_reads_the_same_numbers(tmp_path: Path) -> None:
    telemetry = make(tmp_path, None)
    telemetry.counters.counter("parley.edge.frames.received", "1", "Frames.").add(5)
    telemetry.counters.gauge("parley.edge.queue.waiting", "1", "", lambda: 2.5, attributes={"qos_class": "low"})
    histogram = telemetry.counters.histogram("parley.edge.queue.wait", "s", (0.1,), attributes={"qos_class": "low"})
    histogram.observe(0.05)
    histogram.observe(1)
    assert telemetry.start() == telemetry.prometheus_address
    lines = (await scrape(telemetry)).splitlines()
    await telemetry.shutdown()
    await telemetry.shutdown()
    ends = {line.split()[0] for line in lines if line.startswith("parley_certificate_not_after")}
    assert ends == {
        'parley_certificate_not_after{certificate="edge-cert.pem"}',
        'parley_certificate_not_after{certificate="grpc-ca-cert.pem"}',
    }
    assert {line for line in lines if not line.startswith(("#", "parley_certificate"))} == {
        "parley_edge_frames_received_total 5.0",
        'parley_edge_queue_waiting{qos_class="low"} 2.5',
        'parley_edge_queue_wait_bucket{le="0.1",qos_class="low"} 1.0',
        'parley_edge_queue_wait_bucket{le="+Inf",qos_class="low"} 2.0',
        'parley_edge_queue_wait_count{qos_class="low"} 2.0',
        'parley_edge_queue_wait_sum{qos_class="low"} 1.05',
    }


async def test_a_port_that_is_taken_is_an_error(tmp_path: Path, silent_port: int) -> None:
    config = certificates.shared().config("edge", tmp_path, prometheus_listen=f"127.0.0.1:{silent_port}")
    with pytest.raises(OSError, match="in use"):
        Telemetry(config, "edge", counters=Counters()).start()


async def test_ending_what_was_never_started_is_fine(tmp_path: Path) -> None:
    await make(tmp_path, None).shutdown()
