"""`parley admin trace`, `traces`, `logs` and `tracing`: where the time of a message went, and what is traced."""

from __future__ import annotations

import shutil
from argparse import Namespace

import grpc
from parley.edge.v1 import edge_pb2, edge_pb2_grpc
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from client import waterfall
from client.admin.channels import CALL_TIMEOUT_S, ask_each, ask_one
from client.admin.failures import AdminError
from client.admin.report import Context, Row, as_dict, moment
from client.admin.rooms import room_id_of

TRACE_ID_CHARS = 32

TRACE_COLUMNS = {
    "TRACE": "trace_id",
    "BEGAN": "started_at_ms",
    "MS": "duration_ms",
    "WHAT": "name",
    "WHERE": "instance",
    "ERROR": "is_error",
    "MESSAGE": "message_id",
}
LOG_COLUMNS = {"TIME": "time", "PROCESS": "instance", "LEVEL": "level", "WHAT": "body", "TRACE": "trace_id"}
TARGET_COLUMNS = {"EDGE": "edge", "ROOM": "room_id", "USER": "username", "UNTIL": "ends_at_ms"}


def show(context: Context, arguments: Namespace) -> None:
    """Shows the trace of a message, or of a trace id, as a waterfall."""
    wanted: str = arguments.message
    trace = _find_by_id(context, wanted) if len(wanted) == TRACE_ID_CHARS else _find_of_message(context, wanted)
    if not trace.spans:
        raise AdminError(
            "not_found",
            f"There is no trace of {wanted}. One message in a hundred is traced; `parley admin tracing start` traces "
            "all of a room or of a user. Spans arrive within two seconds, and are kept for a day.",
        )
    if context.as_json:
        context.write_values(as_dict(trace))
        return
    context.write_lines([f"trace {trace.trace_id}", *waterfall.draw(_bars(trace), width=_width())])


def _find_of_message(context: Context, message_id: str) -> metrics_pb2.Trace:
    request = metrics_pb2.FindTraceOfMessageRequest(message_id=message_id)
    return ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).FindTraceOfMessage(
            request, timeout=CALL_TIMEOUT_S
        ),
    ).trace


def _find_by_id(context: Context, trace_id: str) -> metrics_pb2.Trace:
    request = metrics_pb2.GetTraceRequest(trace_id=trace_id)
    return ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).GetTrace(request, timeout=CALL_TIMEOUT_S),
    ).trace


def _bars(trace: metrics_pb2.Trace) -> list[waterfall.Bar]:
    return [
        waterfall.Bar(
            span_id=span.span_id,
            parent_id=span.parent_span_id,
            who=span.service if span.service == "client" else span.instance,
            name=span.name,
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            error=(span.status_message or "error") if span.is_error else "",
        )
        for span in trace.spans
    ]


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def list_traces(context: Context, arguments: Namespace) -> None:
    """Lists the newest traces."""
    request = metrics_pb2.ListTracesRequest(
        page_size=arguments.limit,
        duration_min_ms=arguments.slower_than,
        only_errors=arguments.errors,
        room_id=arguments.room,
        user_id=arguments.user,
    )
    response = ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).ListTraces(request, timeout=CALL_TIMEOUT_S),
    )
    context.write_rows([as_dict(trace) for trace in response.traces], TRACE_COLUMNS)


def list_logs(context: Context, arguments: Namespace) -> None:
    """Lists the newest log records of all processes."""
    request = metrics_pb2.ListLogsRequest(
        page_size=arguments.limit, trace_id=arguments.trace, level_min=arguments.level, instance=arguments.process
    )
    response = ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).ListLogs(request, timeout=CALL_TIMEOUT_S),
    )
    rows = [{**as_dict(one), "time": moment(one.time_ns // 1_000_000)} for one in response.records]
    context.write_rows(rows, LOG_COLUMNS)


def show_tracing(context: Context, arguments: Namespace) -> None:
    """Shows what every edge traces."""

    def read(channel: grpc.Channel) -> edge_pb2.Tracing:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        return stub.GetTracing(edge_pb2.GetTracingRequest(), timeout=CALL_TIMEOUT_S).tracing

    _write_tracing(context, dict(ask_each(context.channels, "edge", read)))


def start_tracing(context: Context, arguments: Namespace) -> None:
    """Traces all that happens in a room or that a user does, on every edge, for a while."""
    request = edge_pb2.StartTracingRequest(**_subject(context, arguments), duration_s=arguments.seconds)

    def start(channel: grpc.Channel) -> edge_pb2.Tracing:
        return edge_pb2_grpc.EdgeAdminServiceStub(channel).StartTracing(request, timeout=CALL_TIMEOUT_S).tracing

    _write_tracing(context, dict(ask_each(context.channels, "edge", start)))


def set_sampling(context: Context, arguments: Namespace) -> None:
    """Changes how much every edge samples, until it starts anew."""
    if arguments.ratio is None and arguments.rate is None:
        raise AdminError("bad_request", "Say --ratio, --rate or both.")
    request = edge_pb2.UpdateTracingRequest(ratio=arguments.ratio, rate_max=arguments.rate)

    def change(channel: grpc.Channel) -> edge_pb2.Tracing:
        return edge_pb2_grpc.EdgeAdminServiceStub(channel).UpdateTracing(request, timeout=CALL_TIMEOUT_S).tracing

    _write_tracing(context, dict(ask_each(context.channels, "edge", change)))


def stop_tracing(context: Context, arguments: Namespace) -> None:
    """Ends that, on every edge."""
    request = edge_pb2.StopTracingRequest(**_subject(context, arguments))

    def stop(channel: grpc.Channel) -> edge_pb2.Tracing:
        return edge_pb2_grpc.EdgeAdminServiceStub(channel).StopTracing(request, timeout=CALL_TIMEOUT_S).tracing

    _write_tracing(context, dict(ask_each(context.channels, "edge", stop)))


def _subject(context: Context, arguments: Namespace) -> Row:
    return {"room_id": room_id_of(context, arguments.room)} if arguments.room else {"username": arguments.user}


def _write_tracing(context: Context, by_edge: dict[str, edge_pb2.Tracing]) -> None:
    if context.as_json:
        context.write_values({name: as_dict(tracing) for name, tracing in by_edge.items()})
        return
    rows = [{"edge": name, **as_dict(target)} for name, tracing in by_edge.items() for target in tracing.targets]
    context.write_rows(rows, TARGET_COLUMNS)
    for name, one in by_edge.items():
        context.write_done(
            f"{name}: {one.ratio:.2%} of everything else, at most {one.rate_max:g} a second; "
            f"{one.started} traces begun, {one.limited} left out."
        )
