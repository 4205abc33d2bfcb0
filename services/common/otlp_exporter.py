"""Sends metrics to the metrics service over OTLP and mutual TLS, and stays calm when it is not there.

OpenTelemetry's own exporter tries again with growing pauses and a log line for each, inside the export. Cumulative
metrics need no second try: the next export, seconds later, holds everything that this one did.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import grpc
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

from services.common import rpc_options
from services.common.logs import get_logger
from services.common.rpc_client import name_options
from services.common.tls import channel_credentials

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

    from services.common.config import ServiceConfig

# On one network an export takes milliseconds. Well under telemetry's two seconds at the end of a process.
EXPORT_TIMEOUT_S: Final = 1.5
_log = get_logger(__name__)


class OtlpExporter(MetricExporter):
    """One attempt for each export; a line in the log when the metrics service goes, and one when it is back."""

    def __init__(self, endpoint: str, config: ServiceConfig) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._channel = grpc.secure_channel(
            endpoint, channel_credentials(config), options=[*rpc_options.CHANNEL, *name_options("metrics")]
        )
        self._export = MetricsServiceStub(self._channel).Export  # type: ignore[no-untyped-call]
        self._is_reachable = True
        self._closing = threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Sends the metrics, once."""
        if self._closing.is_set():
            return MetricExportResult.FAILURE
        try:
            self._export(encode_metrics(metrics_data), timeout=min(EXPORT_TIMEOUT_S, timeout_millis / 1_000))
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed meanwhile
            if self._is_reachable and not self._closing.is_set():
                reason = error.code().name if isinstance(error, grpc.Call) else str(error)
                _log.warning("metrics cannot be sent", endpoint=self._endpoint, reason=reason)
            self._is_reachable = False
            return MetricExportResult.FAILURE
        if not self._is_reachable:
            _log.info("metrics are sent again", endpoint=self._endpoint)
        self._is_reachable = True
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is held back here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Ends an export that is under way, and closes the channel."""
        self._closing.set()
        self._channel.close()
