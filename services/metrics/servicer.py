"""servicer: what operators may ask of the metrics service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    from services.metrics.reporter import Reporter

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = "parley.metrics.v1.MetricsService"


class MetricsServicer(metrics_pb2_grpc.MetricsServiceServicer):
    """parley.metrics.v1.MetricsService."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def GetStatistics(  # noqa: N802 - the method's name in the protocol
        self, _request: metrics_pb2.GetStatisticsRequest, _context: Context
    ) -> metrics_pb2.GetStatisticsResponse:
        """The statistics as they stand now."""
        statistics = self._reporter.statistics()
        return metrics_pb2.GetStatisticsResponse(timestamp_ms=int(statistics.at * 1000), values=statistics.values)

    async def DrawGraphs(  # noqa: N802 - the method's name in the protocol
        self, _request: metrics_pb2.DrawGraphsRequest, _context: Context
    ) -> metrics_pb2.DrawGraphsResponse:
        """Draw all graphs now. Errors: unavailable."""
        paths = await self._reporter.draw()
        return metrics_pb2.DrawGraphsResponse(paths=[str(path) for path in paths])


def register(server: grpc.aio.Server, reporter: Reporter) -> None:
    """Add the service to a server."""
    metrics_pb2_grpc.add_MetricsServiceServicer_to_server(MetricsServicer(reporter), server)
