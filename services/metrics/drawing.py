"""drawing: how a graph of the catalogue becomes a figure. Only the process that draws imports this."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from services.metrics.graph_data import HOUR_S, HOURS, GraphData, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from services.metrics.catalogue import Graph, Line

_COLOURS: Final = {
    "mean": "#1f5fa8",
    "median": "#2a9d6f",
    "slowest": "#d1495b",
    "high": "#e0902f",
    "volume": "#7d8296",
}
_INK: Final = "#22252e"
_PALE: Final = "#6b7080"
STYLE: Final[dict[Any, Any]] = {
    "font.size": 11,
    "axes.edgecolor": "#b6bac6",
    "axes.labelcolor": _INK,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e5ec",
    "grid.linewidth": 0.8,
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "legend.frameon": False,
    # Text stays text: a picture is a third as large, and can be searched.
    "svg.fonttype": "none",
    # The same data give the same file.
    "svg.hashsalt": "parley",
}
# The shortest time axis: one point on an axis without width says nothing.
_SPAN_S_MIN: Final = 180.0
# Two points that are further apart than so many usual steps are not joined: there was nothing in between.
_GAP_STEPS: Final = 3
# Above this ratio of the largest to the usual value a linear axis shows one spike and a flat line.
_LOG_RATIO: Final = 25.0
_WIDTH: Final = 11.5
_LOW: Final = 5.2
_TALL: Final = 6.6


def draw_lines(graph: Graph, data: GraphData) -> Figure:
    """A graph of the catalogue over the period of the data."""
    figure = _new_figure(_LOW if graph.volume is None else _TALL)
    if graph.volume is None:
        axes = bottom = figure.subplots()
    else:
        axes, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
        _draw_volume(bottom, data, graph.volume, graph.volume_axis)
    details = [_counted(graph, data), graph.details] if graph.counted else [_period(data), graph.details]
    _title(axes, graph.title, *details)
    _draw_times(axes, data, graph)
    bottom.set_xlabel("Time (UTC)")
    figure.align_ylabels()
    return figure


def draw_hours(data: GraphData) -> Figure:
    """How many messages were sent in each of the last hours."""
    figure = _new_figure(_LOW)
    axes = figure.subplots()
    hours = data.hours
    counts = [data.hourly.get(hour, 0) for hour in hours]
    colours = [_COLOURS["mean"]] * (HOURS - 1) + ["#9dbbe0"]
    bars = axes.bar(range(HOURS), counts, color=colours, width=0.78)
    axes.bar_label(bars, [_short(count) if count else "" for count in counts], padding=3, color=_INK, fontsize=9)
    labels = [datetime.fromtimestamp(hour * HOUR_S, UTC) for hour in hours]
    axes.set_xticks(
        range(HOURS), [f"{at:%H}\n{at:%d %b}" if at.hour == 0 or i == 0 else f"{at:%H}" for i, at in enumerate(labels)]
    )
    axes.set_xlim(-0.7, HOURS - 0.3)
    axes.set_ylim(0, max(max(counts) * 1.15, 1.0))
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    total = f"{sum(counts):,} messages in the last {HOURS} hours"
    _title(axes, "Messages per hour", total, "the pale bar is still counting")
    axes.set_xlabel("Hour (UTC)")
    axes.set_ylabel("Messages acknowledged")
    if not any(counts):
        _say(axes, "No messages in this period")
    return figure


def _new_figure(height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    # In inches, the same for all pictures: to find out takes longer than to draw.
    figure.subplots_adjust(left=0.95 / _WIDTH, right=1 - 0.25 / _WIDTH, top=1 - 0.75 / height, bottom=0.7 / height)
    return figure


def _title(axes: Axes, title: str, *details: str) -> None:
    axes.set_title(title, loc="left", pad=26, color=_INK)
    axes.annotate(
        " · ".join(details), (0, 1), (0, 9), "axes fraction", textcoords="offset points", color=_PALE, fontsize=10
    )


def _period(data: GraphData) -> str:
    hours = data.period_s // HOUR_S
    return "the last hour" if hours == 1 else f"the last {hours} hours"


def _counted(graph: Graph, data: GraphData) -> str:
    count = sum(getattr(point, graph.counted) for point in data.timeline)
    return f"{count:,} {graph.counted_as} in {_period(data)}"


def _draw_volume(axes: Axes, data: GraphData, line: Line, label: str) -> None:
    moments, values = _points(data.timeline, line.column)
    colour = _COLOURS[line.colour]
    axes.fill_between(moments, values, color=colour, alpha=0.35, linewidth=0)  # type: ignore[arg-type]
    axes.plot(moments, values, color=colour, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_ylim(0, max([value for value in values if not math.isnan(value)], default=0.0) * 1.15 or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_ylabel(label)


def _draw_times(axes: Axes, data: GraphData, graph: Graph) -> None:
    """Draw lines over time, with their axes and legend, or say that there are none."""
    everything: list[float] = []
    for line in graph.lines:
        moments, values = _points(data.timeline, line.column)
        known = [value for value in values if not math.isnan(value)]
        everything += known
        if known:
            _plot(axes, moments, values, color=_COLOURS[line.colour], label=f"{line.label} ({_now(known[-1], graph)})")
    positive = [value for value in everything if value > 0]
    is_log = bool(positive) and max(positive) > _LOG_RATIO * median(positive)
    if is_log:
        axes.set_yscale("log")
        axes.grid(visible=True, which="minor", axis="y", linewidth=0.4)
    else:
        axes.set_ylim(0, max(everything, default=0.0) * 1.15 or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    is_rate = graph.unit.startswith("/")
    what = graph.axis + graph.unit if is_rate else graph.axis
    unit = ", ".join(filter(None, ("" if is_rate else graph.unit, "log scale" if is_log else "")))
    axes.set_ylabel(f"{what} ({unit})" if unit else what)
    begin = min([point.at for point in data.timeline], default=data.now)
    begin = min(begin, data.now - _SPAN_S_MIN)
    margin = (data.now - begin) * 0.01
    axes.set_xlim(_moment(begin - margin), _moment(data.now + margin))  # type: ignore[arg-type]
    locator = AutoDateLocator(tz=UTC, minticks=5, maxticks=13)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    formatter.formats[5] = "%H:%M:%S"  # a lone "30" between 02:40 and 02:41 says nothing
    axes.xaxis.set_major_formatter(formatter)
    if everything:
        legend_at = (1 - 0.25 / _WIDTH, 1 - 0.08 / axes.figure.get_figheight())  # type: ignore[union-attr]
        axes.figure.legend(
            loc="upper right",
            ncols=4,
            borderaxespad=0,
            bbox_to_anchor=legend_at,
            fontsize=10,
            handlelength=1.2,
            columnspacing=1.3,
        )
    else:
        _say(axes, "Nothing was measured in this period")


def _plot(axes: Axes, moments: Sequence[datetime], values: Sequence[float], *, color: str, label: str) -> None:
    axes.plot(moments, values, color=color, linewidth=1.5, label=label)  # type: ignore[arg-type]
    padded = [math.nan, *values, math.nan]
    alone = [i for i in range(len(values)) if math.isnan(padded[i]) and math.isnan(padded[i + 2])]
    axes.plot([moments[i] for i in alone], [values[i] for i in alone], "o", color=color, markersize=3.5)  # type: ignore[arg-type]


def _points(timeline: Sequence[Sample], column: str) -> tuple[list[datetime], list[float]]:
    """One column as a line with NaN where nothing was measured and where the service was not there."""
    steps = [after.at - before.at for before, after in pairwise(timeline)]
    gap = _GAP_STEPS * median(steps) if steps else math.inf
    moments: list[datetime] = []
    values: list[float] = []
    for i, point in enumerate(timeline):
        if i and steps[i - 1] > gap:
            moments.append(_moment(point.at - steps[i - 1] / 2))
            values.append(math.nan)
        value = getattr(point, column)
        moments.append(_moment(point.at))
        values.append(math.nan if value is None else value)
    return moments, values


def _moment(at: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=15, color=_PALE)


def _short(count: int) -> str:
    """A count in at most five characters: 950, 12.3k, 1.2M."""
    for limit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{suffix}"
    return str(count)


def _now(value: float, graph: Graph) -> str:
    """The latest value, as the legend tells it."""
    if graph.unit == "ms" and value >= 1000:
        return f"latest {value / 1000:,.3g} s"
    unit = graph.unit if graph.unit.startswith("/") else f" {graph.unit}".rstrip()
    return f"latest {value:,.3g}{unit}" if value < 1000 else f"latest {value:,.0f}{unit}"
