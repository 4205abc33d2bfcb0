"""Sends metrics, spans and logs to the metrics service over OTLP and mutual TLS, and stays calm when it is not there.

OpenTelemetry's own exporters try again with growing pauses and a log line for each, inside the export. Cumulative
metrics need no second try: the next export, seconds later, holds everything that this one did. Spans and logs are not
worth one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import grpc
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from services.common import rpc_options
from services.common.certificates import files_of
from services.common.logs import get_logger
from services.common.rpc_client import name_options
from services.common.tls import channel_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from services.common.certificates import Certificates
    from services.common.config import ServiceConfig

# On one network an export takes milliseconds. Well under telemetry's two seconds at the end of a process.
EXPORT_TIMEOUT_S: Final = 1.5
_log = get_logger(__name__)


class OtlpClient:
    """One attempt for each export; a line in the log when the metrics service goes, and one when it is back."""

    def __init__(self, endpoint: str, config: ServiceConfig) -> None:
        self._endpoint = endpoint
        self._files = files_of(config)
        self._renewing = threading.Lock()
        self._open(self._files.current)
        self._is_reachable = True
        self._closing = threading.Event()

    def send_metrics(self, data: MetricsData, timeout_s: float) -> bool:
        """Sends metrics; returns whether they arrived."""
        return self._call(lambda: self._metrics, encode_metrics(data), timeout_s) is not None

    def send_spans(self, spans: Sequence[ReadableSpan]) -> int:
        """Sends spans; returns how many were lost."""
        response = self._call(lambda: self._spans, encode_spans(spans), EXPORT_TIMEOUT_S)
        return len(spans) if response is None else int(response.partial_success.rejected_spans)

    def send_logs(self, records: Sequence[ReadableLogRecord]) -> int:
        """Sends log records; returns how many were lost."""
        response = self._call(lambda: self._logs, encode_logs(records), EXPORT_TIMEOUT_S)
        return len(records) if response is None else int(response.partial_success.rejected_log_records)

    def close(self) -> None:
        """Ends an export that is under way, and closes the channel."""
        self._closing.set()
        self._channel.close()

    def _open(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._channel = grpc.secure_channel(
            self._endpoint,
            channel_credentials(certificates),
            options=[*rpc_options.CHANNEL, *name_options("metrics")],
        )
        self._metrics = MetricsServiceStub(self._channel).Export  # type: ignore[no-untyped-call]
        self._spans = TraceServiceStub(self._channel).Export  # type: ignore[no-untyped-call]
        self._logs = LogsServiceStub(self._channel).Export  # type: ignore[no-untyped-call]

    def _use_renewed_certificates(self) -> None:
        """A channel keeps those that it was opened with, so another one takes its place."""
        with self._renewing:
            certificates = self._files.refresh()
            if certificates is not self._certificates:
                old = self._channel
                self._open(certificates)
                old.close()

    def _call(self, choose: Callable[[], Any], request: Any, timeout_s: float) -> Any:
        if self._closing.is_set():
            return None
        self._use_renewed_certificates()
        try:
            response = choose()(request, timeout=min(EXPORT_TIMEOUT_S, timeout_s))
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed meanwhile
            if self._is_reachable and not self._closing.is_set():
                self._is_reachable = False
                reason = error.code().name if isinstance(error, grpc.Call) else str(error)
                _log.warning("metrics cannot be sent", endpoint=self._endpoint, reason=reason)
            return None
        if not self._is_reachable:
            _log.info("metrics are sent again", endpoint=self._endpoint)
        self._is_reachable = True
        return response


class OtlpExporter(MetricExporter):
    """The exporter of OpenTelemetry's metric reader."""

    def __init__(self, client: OtlpClient) -> None:
        super().__init__()
        self._client = client

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Sends the metrics, once."""
        is_sent = self._client.send_metrics(metrics_data, timeout_millis / 1_000)
        return MetricExportResult.SUCCESS if is_sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is held back here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """The client is closed by whoever made it."""
