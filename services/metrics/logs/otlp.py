"""otlp: OpenTelemetry's logs collector: takes in log records, cut to size, and says openly which it does not take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

from services.common.errors import ParleyError
from services.common.identity import peer_identity
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.metrics.logs.records import LEVELS, Record
from services.metrics.otlp import SCOPES_MAX, TIME_NS_MAX, check_resources, instance_name
from services.metrics.traces.otlp import read_attributes
from services.metrics.traces.spans import SPAN_ID_BYTES, TRACE_ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio
    from opentelemetry.proto.logs.v1 import logs_pb2

    from services.common.clock import Clock
    from services.common.counters import Counters
    from services.metrics.logs.store import LogStore

    Context = grpc.aio.ServicerContext[Any, Any]

RECORDS_MAX: Final = 4_096
"""Records in one export: eight times what ours has."""

BODY_CHARS_MAX: Final = 1_000
_log = get_logger(__name__)


class LogsCollector(logs_service_pb2_grpc.LogsServiceServicer):
    """Takes in log records. `forward(signal, request, count)` is given what was understood, kept or not."""

    def __init__(
        self, store: LogStore, *, counters: Counters, clock: Clock, forward: Callable[[str, Any, int], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._forward = forward
        self._accepted = counters.counter("parley.metrics.logs.accepted", "1", "Log records taken in.")
        self._refused = counters.counter("parley.metrics.logs.refused", "1", "Log records that were not kept.")
        self._evicted = counters.counter("parley.metrics.logs.evicted", "1", "Log records given up to make room.")

    async def Export(  # noqa: N802 - the method's name in the protocol
        self, request: logs_service_pb2.ExportLogsServiceRequest, context: Context
    ) -> logs_service_pb2.ExportLogsServiceResponse:
        """Take in one export. Errors: too_large, bad_request."""
        total = _check_size(request)
        identity = peer_identity(context)
        assert identity is not None, "the allow-list lets nobody in without an identity"
        records = _read_records(request, identity.kind)
        reason = "a record has a time and a text"
        self._forward("logs", request, len(records))
        del request  # it may be large, and the disk slow
        try:
            if records:
                self._evicted.add(await self._store.keep(records, now=self._clock.now()))
        except ParleyError as error:
            # Said once a minute at most by the storage itself; a line here would come in with the next export.
            records, reason = [], f"the store is busy: {error.code}"
        self._accepted.add(len(records))
        self._refused.add(total - len(records))
        response = logs_service_pb2.ExportLogsServiceResponse()
        if len(records) < total:
            response.partial_success.rejected_log_records = total - len(records)
            response.partial_success.error_message = reason
        return response


def register(
    server: grpc.aio.Server,
    store: LogStore,
    *,
    counters: Counters,
    clock: Clock,
    forward: Callable[[str, Any, int], object],
) -> None:
    """Add the logs collector to a server."""
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(  # type: ignore[no-untyped-call]
        LogsCollector(store, counters=counters, clock=clock, forward=forward), server
    )


def _check_size(request: logs_service_pb2.ExportLogsServiceRequest) -> int:
    check_resources(len(request.resource_logs))
    if any(len(resource_logs.scope_logs) > SCOPES_MAX for resource_logs in request.resource_logs):
        raise ParleyError(ErrorCode.TOO_LARGE, f"more than {SCOPES_MAX} scopes in an export")
    total = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    if total > RECORDS_MAX:
        raise ParleyError(ErrorCode.TOO_LARGE, f"more than {RECORDS_MAX} log records in an export")
    return total


def _read_records(request: logs_service_pb2.ExportLogsServiceRequest, kind: str) -> list[Record]:
    """The records that are understood. Raises ParleyError bad_request."""
    records = []
    for resource_logs in request.resource_logs:
        instance = instance_name(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            read = (_read(record, kind, instance) for record in scope_logs.log_records)
            records += [record for record in read if record is not None]
    return records


def _read(record: logs_pb2.LogRecord, service: str, instance: str) -> Record | None:
    time_ns = record.time_unix_nano or record.observed_time_unix_nano
    body = record.body.string_value
    if not 0 < time_ns <= TIME_NS_MAX or not body:
        return None
    is_in_trace = len(record.trace_id) == TRACE_ID_BYTES and any(record.trace_id)
    has_span = is_in_trace and len(record.span_id) == SPAN_ID_BYTES
    return Record(
        time_ns=time_ns,
        service=service,
        instance=instance,
        level=record.severity_number or LEVELS["info"],
        body=body[:BODY_CHARS_MAX],
        trace_id=record.trace_id.hex() if is_in_trace else "",
        span_id=record.span_id.hex() if has_span else "",
        attributes=read_attributes(record.attributes),
    )
