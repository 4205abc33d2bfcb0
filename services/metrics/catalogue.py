"""catalogue: which graphs there are, and what each of them shows. Pure, and free of matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from services.metrics.graph_data import GraphData, Sample


class Line(NamedTuple):
    """One line of a graph: its label, the column of a sample that it shows, and its colour's name."""

    label: str
    column: str
    colour: str


class Graph(NamedTuple):
    """One graph. `counted` is the column whose sum the subtitle tells; empty: none. `volume` is a line below."""

    title: str
    details: str
    axis: str
    unit: str
    lines: tuple[Line, ...]
    counted: str = ""
    counted_as: str = "measured"
    volume: Line | None = None
    volume_axis: str = ""


HOURLY: Final = "hourly_messages"
_RATE: Final = Line("messages/s", "messages_per_second", "volume")

GRAPHS: Final[dict[str, Graph]] = {
    "processing_times": Graph(
        "Request processing time",
        "frame received → reply queued",
        "Processing time",
        "ms",
        (
            Line("p99", "processing_p99_ms", "slowest"),
            Line("mean", "processing_mean_ms", "mean"),
            Line("median", "processing_p50_ms", "median"),
        ),
        counted="requests",
    ),
    "latency_timeline": Graph(
        "Message latency",
        "message received → stored and acknowledged",
        "Latency",
        "ms",
        (
            Line("p99", "latency_p99_ms", "slowest"),
            Line("mean", "latency_mean_ms", "mean"),
            Line("median", "latency_p50_ms", "median"),
        ),
        counted="latencies",
        volume=_RATE,
        volume_axis="Messages/s",
    ),
    "queue_wait": Graph(
        "Queue wait by class",
        "99 of 100 requests that had to wait waited no longer",
        "Wait, p99",
        "ms",
        (
            Line("critical", "wait_critical_ms", "slowest"),
            Line("high", "wait_high_ms", "high"),
            Line("normal", "wait_normal_ms", "mean"),
            Line("low", "wait_low_ms", "volume"),
        ),
        counted="waits",
        counted_as="waited",
    ),
    "connections": Graph(
        "Connections",
        "open at the end of each interval, over all edges",
        "Connections",
        "",
        (Line("connected", "connections", "mean"), Line("logged in", "users", "median")),
    ),
    "deliveries": Graph(
        "Deliveries",
        "messages given to connections",
        "Deliveries",
        "/s",
        (Line("deliveries", "deliveries_per_second", "mean"),),
        volume=_RATE,
        volume_axis="Messages/s",
    ),
    "fan_out": Graph(
        "Fan-out",
        "connections that a message was given to, on average",
        "Deliveries per message",
        "",
        (Line("fan-out", "fan_out", "mean"),),
        volume=_RATE,
        volume_axis="Messages/s",
    ),
    "commit_batches": Graph(
        "Commit batches",
        "messages that were stored in one transaction",
        "Messages per commit",
        "",
        (Line("p99", "batch_p99", "slowest"), Line("mean", "batch_mean", "mean")),
        counted="commits",
        counted_as="commits",
        volume=Line("p99", "commit_p99_ms", "volume"),
        volume_axis="Commit p99 (ms)",
    ),
}
"""By name; beside them there is `hourly_messages`, which has bars."""

NAMES: Final = (*GRAPHS, HOURLY)


class Numbers(NamedTuple):
    """What a graph shows: a value, or NaN, of each series for each time (Unix seconds).

    The series called `below` is of another quantity than the others.
    """

    title: str
    unit: str
    times: list[float]
    series: dict[str, list[float]]
    below: str = ""


def numbers(name: str, data: GraphData) -> Numbers:
    """The numbers of a graph. Raises KeyError where there is no such graph."""
    if name == HOURLY:
        hours = data.hours
        return Numbers(
            "Messages per hour",
            "",
            [hour * 3600.0 for hour in hours],
            {"messages": [float(data.hourly.get(hour, 0)) for hour in hours]},
        )
    graph = GRAPHS[name]
    lines = graph.lines if graph.volume is None else (*graph.lines, graph.volume)
    series = {}
    for line in lines:
        label = line.label if line in graph.lines else graph.volume_axis
        series[label] = [_value(sample, line.column) for sample in data.timeline]
    return Numbers(graph.title, graph.unit, [sample.at for sample in data.timeline], series, graph.volume_axis)


def _value(sample: Sample, column: str) -> float:
    value = getattr(sample, column)
    return float("nan") if value is None else float(value)
