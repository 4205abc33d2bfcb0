"""Metrics, spans and logs out: to the metrics service over OTLP; metrics also to whoever scrapes Prometheus text.

Both ways out of metrics read the same `Counters`. Nothing here may block or stop the service: exporting happens in
threads of its own, with short deadlines, and a metrics service that is down is worth one line in the log when it goes
and one when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import prometheus_client
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from services.common import log_records, logs, tracing
from services.common.certificates import files_of, report
from services.common.config import split_host_port
from services.common.counters import Counter, Counters, Family, Gauge, Histogram, Kind
from services.common.export_queue import ExportQueue
from services.common.logs import get_logger
from services.common.otlp_exporter import OtlpClient, OtlpExporter
from services.common.resource import resource_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.simple_server import WSGIServer

    from opentelemetry.metrics import CallbackOptions, Meter
    from prometheus_client import Metric

    from services.common.config import ServiceConfig

__all__ = ["Counter", "Counters", "Gauge", "Histogram", "Telemetry"]

# What the end of a process may spend on its last numbers.
SHUTDOWN_S: Final = 2.0
_log = get_logger(__name__)


class Telemetry:
    """The process's metrics: `counters` to count with, and everything that carries them, spans and logs out.

    telemetry = Telemetry(config, "edge")
    accepted = telemetry.counters.counter("parley.edge.connections.accepted", "1", "Accepted connections.")
    prometheus_address = telemetry.start()
    …
    await telemetry.shutdown()
    """

    def __init__(self, config: ServiceConfig, service: str, *, counters: Counters | None = None) -> None:
        self._config = config
        self.counters = counters if counters is not None else Counters()
        self._resource = resource_of(service, config.name)
        self._client: OtlpClient | None = None
        self._provider: MeterProvider | None = None
        self._queues: list[ExportQueue[Any]] = []
        self._web: tuple[WSGIServer, threading.Thread] | None = None
        self.prometheus_address = ""

    def start(self) -> str:
        """Begins to export, and returns where Prometheus finds it ("host:port"). Raises OSError."""
        host, port = split_host_port(self._config.prometheus_listen)
        registry = prometheus_client.CollectorRegistry()
        report(self.counters, files_of(self._config))
        registry.register(_PrometheusCollector(self.counters))
        self._web = prometheus_client.start_http_server(port, host, registry)
        port = self._web[0].server_port
        self.prometheus_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._config.otlp_endpoint is not None:
            self._client = client = OtlpClient(self._config.otlp_endpoint, self._config)
            self._start_metrics(client)
            spans = self._queue("spans", client.send_spans)
            tracing.install(tracing.Tracing(resource=self._resource, put=spans.put, slow_s=self._config.trace_slow_s))
            records = self._queue("logs", client.send_logs)
            logs.hand_over(log_records.to_queue(records.put, self._resource))
        return self.prometheus_address

    def _start_metrics(self, client: OtlpClient) -> None:
        reader = PeriodicExportingMetricReader(
            OtlpExporter(client), export_interval_millis=self._config.metrics_interval_s * 1_000
        )
        self._provider = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("parley")
        self.counters.subscribe(lambda family: _instrument(meter, family))

    def _queue(self, kind: str, send: Callable[[list[Any]], int]) -> ExportQueue[Any]:
        counter = self.counters.counter
        queue: ExportQueue[Any] = ExportQueue(
            send,
            name=f"telemetry-{kind}",
            sent=counter("parley.telemetry.sent", "1", "Spans and log records sent.", attributes={"kind": kind}),
            lost=counter("parley.telemetry.lost", "1", "Spans and log records lost.", attributes={"kind": kind}),
        )
        self._queues.append(queue)
        queue.start()
        return queue

    async def shutdown(self) -> None:
        """Sends the last numbers, in at most two seconds, and ends. Idempotent."""
        provider, self._provider = self._provider, None
        web, self._web = self._web, None
        queues, self._queues = self._queues, []
        client, self._client = self._client, None
        tracing.install(None)
        logs.hand_over(None)
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def close() -> None:
            try:
                for queue in queues:
                    queue.close(SHUTDOWN_S / 2)
                if provider is not None:
                    provider.shutdown(timeout_millis=SHUTDOWN_S * 1_000)
                if client is not None:
                    client.close()
                loop.call_soon_threadsafe(closed.set)
                if web is not None:  # takes half a second, for which nobody needs to wait
                    web[0].shutdown()
                    web[0].server_close()
            except Exception as error:  # noqa: BLE001 - the process ends anyway, and should do so in peace
                _log.warning("telemetry did not end in order", exc_info=error)

        # Not an executor's thread: the end of the event loop would wait for that, however long it takes.
        threading.Thread(target=close, name="telemetry-shutdown", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), SHUTDOWN_S)


def _instrument(meter: Meter, family: Family) -> None:
    """Observable instruments that read the family when the exporter asks."""
    arguments = (family.unit, family.description)
    if family.kind is Kind.COUNTER:
        meter.create_observable_counter(family.name, [_observe(family, _values)], *arguments)
    elif family.kind is Kind.GAUGE:
        meter.create_observable_gauge(family.name, [_observe(family, _values)], *arguments)
    else:
        meter.create_observable_counter(f"{family.name}.count", [_observe(family, _counts)], "1", family.description)
        meter.create_observable_counter(f"{family.name}.sum", [_observe(family, _sums)], *arguments)
        meter.create_observable_counter(f"{family.name}.bucket", [_observe(family, _buckets)], "1", family.description)


def _observe(
    family: Family, read: Callable[[object], Iterable[tuple[float, dict[str, str]]]]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        for attributes, member in list(family.members.items()):
            for value, more in read(member):
                yield Observation(value, {**dict(attributes), **more})

    return observe


def _values(member: object) -> Iterable[tuple[float, dict[str, str]]]:
    assert isinstance(member, Counter | Gauge)
    return [(member.value, {})]


def _counts(member: object) -> Iterable[tuple[float, dict[str, str]]]:
    assert isinstance(member, Histogram)
    return [(member.count, {})]


def _sums(member: object) -> Iterable[tuple[float, dict[str, str]]]:
    assert isinstance(member, Histogram)
    return [(member.sum, {})]


def _buckets(member: object) -> Iterable[tuple[float, dict[str, str]]]:
    assert isinstance(member, Histogram)
    return [(count, {"le": bound}) for bound, count in member.cumulative()]


class _PrometheusCollector(Collector):
    """Reads the counters when Prometheus asks."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        return [_prometheus_family(family) for family in self._counters.families()]


def _prometheus_family(family: Family) -> Any:
    name = family.name.replace(".", "_")
    members = list(family.members.items())
    labels = sorted({key for attributes, _ in members for key, _ in attributes})
    kinds: dict[Kind, Any] = {
        Kind.COUNTER: CounterMetricFamily,
        Kind.GAUGE: GaugeMetricFamily,
        Kind.HISTOGRAM: HistogramMetricFamily,
    }
    metric = kinds[family.kind](name, family.description or family.name, labels=labels)
    for attributes, member in members:
        values = [dict(attributes).get(label, "") for label in labels]
        if isinstance(member, Histogram):
            metric.add_metric(values, buckets=member.cumulative(), sum_value=member.sum)
        else:
            metric.add_metric(values, member.value)
    return metric
