"""`parley admin graphs` and `graph NAME`."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from client import display
from client.admin import chart
from client.admin.channels import ask_one
from client.admin.failures import AdminError
from client.admin.report import Context, as_dict, moment

DRAW_TIMEOUT_S = 60.0
"""All graphs from a day's data, on a machine that is busy."""

PERIODS = {"hour": metrics_pb2.GRAPH_PERIOD_HOUR, "day": metrics_pb2.GRAPH_PERIOD_DAY}
FORMATS = {".png": metrics_pb2.GRAPH_FORMAT_PNG, ".svg": metrics_pb2.GRAPH_FORMAT_SVG}


def draw_all(context: Context, arguments: Namespace) -> None:
    """Draws all graphs now and says where they are."""
    request = metrics_pb2.DrawGraphsRequest()
    response = ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).DrawGraphs(request, timeout=DRAW_TIMEOUT_S),
    )
    if context.as_json:
        context.write_values({"paths": list(response.paths)})
    else:
        for path in response.paths:
            context.write_done(path)


def show(context: Context, arguments: Namespace) -> None:
    """Shows one graph in the terminal, or writes it as a picture into a file."""
    target: Path | None = arguments.output
    if target is not None and target.suffix not in FORMATS:
        raise AdminError("bad_request", f"{target}: pictures end in {' or '.join(FORMATS)}.")
    request = metrics_pb2.GetGraphRequest(
        name=arguments.name,
        period=PERIODS[arguments.period],
        format=metrics_pb2.GRAPH_FORMAT_UNSPECIFIED if target is None else FORMATS[target.suffix],
    )
    graph = ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).GetGraph(request, timeout=DRAW_TIMEOUT_S),
    )
    if target is not None:
        _save(target, graph.picture)
        context.write_done(str(target), {"path": str(target)})
        return
    if context.as_json:
        values = as_dict(graph)
        del values["picture"]
        context.write_values(values)
        return
    series = [chart.Series(display.clean(one.name), list(one.values), one.is_below) for one in graph.series]
    width = shutil.get_terminal_size((100, 24)).columns
    times = f"{moment(graph.times_ms[0])} to {moment(graph.times_ms[-1])}" if graph.times_ms else "no data yet"
    title = f"{graph.title} ({graph.unit}), {times}" if graph.unit else f"{graph.title}, {times}"
    context.write_lines([title, *chart.draw(series, width=width, unit=display.clean(graph.unit))])


def _save(target: Path, picture: bytes) -> None:
    try:
        with target.open("xb") as file:
            file.write(picture)
    except OSError as error:
        raise AdminError("bad_request", f"{target}: {error.strerror}") from error
