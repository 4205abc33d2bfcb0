"""`parley admin top`: the whole installation on one screen, again and again. `frame` decides, `run` draws."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from parley.edge.v1 import edge_pb2, edge_pb2_grpc
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc
from parley.process.v1 import process_pb2, process_pb2_grpc

from client import display
from client.admin.channels import CALL_TIMEOUT_S, Channels, ask_each, ask_one
from client.admin.failures import AdminError
from client.admin.report import Context, moment

SERVICES = ("edge", "auth", "rooms", "metrics")
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment. What did not answer is missing, and named in `problems`."""

    at_ms: int
    values: dict[str, float]
    processes: Sequence[process_pb2.Process]
    classes: Sequence[tuple[str, edge_pb2.QosClass]]
    problems: Sequence[str]


def take(channels: Channels) -> Snapshot:
    """Asks every process once. A process that is down takes nothing from the others."""
    problems: list[str] = []
    values: dict[str, float] = {}
    at_ms = 0
    try:
        statistics = ask_one(channels, "metrics", _statistics)
        at_ms, values = statistics.timestamp_ms, dict(statistics.values)
    except AdminError as error:
        problems.append(error.message)
    processes: list[process_pb2.Process] = []
    classes: list[tuple[str, edge_pb2.QosClass]] = []
    for service in SERVICES:
        for process in channels.processes(service):
            try:
                processes += [one for _, one in ask_each(channels, service, _process, only=process.name)]
                if service == "edge":
                    for name, qos in ask_each(channels, service, _qos, only=process.name):
                        classes += [(name, one) for one in qos.classes]
            except AdminError as error:
                problems.append(error.message)
    return Snapshot(at_ms, values, processes, classes, problems)


def frame(now: Snapshot, before: Snapshot | None, *, width: int, height: int) -> list[str]:
    """The lines of the screen, at most `height` and each at most `width` wide; nothing that a terminal would obey."""
    lines = [f"parley  {moment(now.at_ms)}    q ends this", ""]
    lines += [*_traffic(now.values), ""]
    lines += _table(
        ("PROCESS", "PID", "CPU %", "MEMORY MB", "LOG"),
        [
            (one.name, one.pid, _cpu(one, now, before), f"{one.resident_bytes / 1e6:.0f}", one.log_level)
            for one in now.processes
        ],
    )
    lines += ["", *_table(("EDGE", "CLASS", "WAITING", "OLDEST MS", "P50 MS", "P99 MS", "REFUSED"), _rows(now.classes))]
    lines += [f"! {problem}" for problem in now.problems]
    return [display.clean(line)[:width] for line in lines[:height]]


def run(context: Context, arguments: Namespace) -> None:
    """Shows frames until somebody presses q or Ctrl-C; `--count` ends it after so many."""
    is_screen = sys.stdin.isatty() and sys.stdout.isatty()
    if not is_screen and not arguments.count:
        raise AdminError("bad_request", "Nobody is there to watch: --count N writes so many frames and ends.")
    before = None
    with _screen() if is_screen else contextlib.nullcontext():
        for number in range(arguments.count or sys.maxsize):
            now = take(context.channels)
            size = shutil.get_terminal_size()
            lines = frame(now, before, width=size.columns, height=size.lines - 1 if is_screen else 1_000)
            _draw(lines, context, is_screen=is_screen)
            before = now
            is_last = number + 1 == arguments.count
            if is_last or (_is_quit(arguments.interval) if is_screen else _pause(arguments.interval)):
                return


def _traffic(values: dict[str, float]) -> list[str]:
    def number(name: str) -> str:
        value = values.get(name)
        return "-" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")

    people = f"people {number('concurrent_users')}   connections {number('open_connections')}"
    things = f"rooms {number('rooms')}   accounts {number('accounts')}"
    rates = f"messages/s {number('messages_per_second')}   deliveries/s {number('deliveries_per_second')}"
    rest = f"Mbit/s {number('bandwidth_mbps')}   errors {number('errors')}   waiting {number('queued_requests')}"
    latency = f"mean {number('avg_latency_ms')}   p50 {number('p50_latency_ms')}   p99 {number('p99_latency_ms')}"
    return [f"{people}   {things}", f"{rates}   {rest}", f"milliseconds to acknowledge: {latency}"]


def _rows(classes: Sequence[tuple[str, edge_pb2.QosClass]]) -> list[tuple[object, ...]]:
    return [
        (
            edge,
            one.name,
            f"{one.waiting} of {one.share}",
            f"{one.oldest_waiting_ms:.1f}",
            f"{one.wait_p50_ms:.2f}",
            f"{one.wait_p99_ms:.2f}",
            one.refused,
        )
        for edge, one in classes
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [line.render(colour=False) for line in display.table(list(head), rows)] if rows else []


def _cpu(process: process_pb2.Process, now: Snapshot, before: Snapshot | None) -> str:
    """Share of one core since the frame before, in percent."""
    earlier = next((one for one in before.processes if one.pid == process.pid), None) if before else None
    if before is None or earlier is None or now.at_ms <= before.at_ms:
        return "-"
    return f"{(process.cpu_s - earlier.cpu_s) / (now.at_ms - before.at_ms) * 100_000:.0f}"


def _draw(lines: Sequence[str], context: Context, *, is_screen: bool) -> None:
    if not is_screen:
        context.out.write("\n".join(lines) + "\n\n")
        return
    context.out.write(_HOME + f"{_REST_OF_LINE}\r\n".join(lines) + _REST_OF_LINE + _REST_OF_SCREEN)
    context.out.flush()


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own and keys without Enter, until the block ends, however it ends."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    sys.stdout.write(_ENTER)
    try:
        tty.setcbreak(keyboard)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _is_quit(wait_s: float) -> bool:
    """Waits; whether q was pressed meanwhile. Any other key draws at once."""
    keyboard = sys.stdin.fileno()
    readable, _, _ = select.select([keyboard], [], [], wait_s)
    return bool(readable) and os.read(keyboard, 64)[:1] in (b"q", b"Q", b"")


def _pause(wait_s: float) -> bool:
    select.select([], [], [], wait_s)
    return False


def _statistics(channel: grpc.Channel) -> metrics_pb2.GetStatisticsResponse:
    stub = metrics_pb2_grpc.MetricsServiceStub(channel)
    return stub.GetStatistics(metrics_pb2.GetStatisticsRequest(), timeout=CALL_TIMEOUT_S)


def _process(channel: grpc.Channel) -> process_pb2.Process:
    stub = process_pb2_grpc.ProcessAdminServiceStub(channel)
    return stub.GetProcess(process_pb2.GetProcessRequest(), timeout=CALL_TIMEOUT_S).process


def _qos(channel: grpc.Channel) -> edge_pb2.Qos:
    stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
    return stub.GetQos(edge_pb2.GetQosRequest(), timeout=CALL_TIMEOUT_S).qos
