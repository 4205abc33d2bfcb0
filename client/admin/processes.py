"""`parley admin processes`, `log-level`, `notice` and `drain`: what is asked of processes as such."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import grpc
from parley.edge.v1 import edge_pb2, edge_pb2_grpc
from parley.process.v1 import process_pb2, process_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_each
from client.admin.failures import AdminError
from client.admin.report import Context, Row, as_dict

SERVICES = ("edge", "auth", "rooms", "metrics")
COLUMNS = {
    "NAME": "name",
    "PID": "pid",
    "SINCE": "started_at_ms",
    "CPU S": "cpu_s",
    "MEMORY MB": "resident_mb",
    "LOG LEVEL": "log_level",
}

DRAIN_MARGIN_S = 10.0
"""Beyond the time that an edge was given to drain."""


def list_processes(context: Context, arguments: Namespace) -> None:
    """Lists the processes of the stack, what they use and how much they log."""
    _write(context, _each(context, arguments.process, _read))


def set_log_level(context: Context, arguments: Namespace) -> None:
    """Changes how much processes log, until they end."""
    request = process_pb2.SetLogLevelRequest(log_level=arguments.level)

    def change(channel: grpc.Channel) -> process_pb2.Process:
        stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
        return stub.SetLogLevel(request, timeout=CALL_TIMEOUT_S).process

    _write(context, _each(context, arguments.process, change))


def send_notice(context: Context, arguments: Namespace) -> None:
    """Shows a text to everyone who is logged in."""
    request = edge_pb2.SendNoticeRequest(text=arguments.text)

    def send(channel: grpc.Channel) -> int:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        return stub.SendNotice(request, timeout=CALL_TIMEOUT_S).recipient_count

    counts = dict(ask_each(context.channels, "edge", send, only=arguments.edge))
    context.write_done(f"Shown to {sum(counts.values())}.", {"recipient_count": sum(counts.values())})


def drain(context: Context, arguments: Namespace) -> None:
    """Takes an edge out of service: no new clients, and goodbye to those that are there."""
    context.confirm(f"Send everyone on {arguments.edge} away, and take no clients there until its next start?")
    request = edge_pb2.DrainRequest(grace_s=arguments.grace)

    def send_away(channel: grpc.Channel) -> edge_pb2.DrainResponse:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        return stub.Drain(request, timeout=arguments.grace + DRAIN_MARGIN_S)

    for name, response in ask_each(context.channels, "edge", send_away, only=arguments.edge):
        text = f"{name} takes no more clients. Told goodbye: {response.told_count}; still there: {response.left_count}."
        context.write_done(text, {"edge": name, **as_dict(response)})


def _read(channel: grpc.Channel) -> process_pb2.Process:
    stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
    return stub.GetProcess(process_pb2.GetProcessRequest(), timeout=CALL_TIMEOUT_S).process


def _each(context: Context, only: str | None, call: Callable[[grpc.Channel], process_pb2.Process]) -> list[Row]:
    running = {one.name: service for service in SERVICES for one in context.channels.processes(service)}
    chosen = [name for name, service in running.items() if only in (None, name, service)]
    if not chosen:
        raise AdminError("bad_request", f"No such process or service (running: {', '.join(running) or 'none'}).")
    return [
        as_dict(process) for name in chosen for _, process in ask_each(context.channels, running[name], call, only=name)
    ]


def _write(context: Context, rows: list[Row]) -> None:
    if not context.as_json:
        rows = [{**row, "resident_mb": row["resident_bytes"] / 1e6} for row in rows]
    context.write_rows(rows, COLUMNS)
