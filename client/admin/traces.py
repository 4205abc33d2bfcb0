"""`parley admin trace`: where the time of a message went."""

from __future__ import annotations

import shutil
from argparse import Namespace

from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from client import waterfall
from client.admin.channels import CALL_TIMEOUT_S, ask_one
from client.admin.failures import AdminError
from client.admin.report import Context, as_dict

TRACE_ID_CHARS = 32


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
