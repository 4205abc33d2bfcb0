"""graphs: draws processing_times.png, latency_timeline.png and hourly_messages.png.

`python -m services.metrics.graphs DIRECTORY NICENESS` reads graph data as JSON from its standard input, draws, prints
the paths and ends. It runs as a process of its own because matplotlib takes a second and 80 MB: the service's event
loop never waits for it, and the memory goes back when the pictures are done. A picture appears under its name when it
is whole.
"""

from __future__ import annotations

import math
import os
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from services.metrics.graph_data import HOURS, PERIOD_S, GraphData, Sample, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN = "#1f5fa8"
_MEDIAN = "#2a9d6f"
_SLOWEST = "#d1495b"
_VOLUME = "#8a8fa3"
_INK = "#22252e"
_PALE = "#6b7080"
_STYLE: dict[Any, Any] = {
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
}
# The shortest time axis: one point on an axis without width says nothing.
_SPAN_S_MIN = 180.0
# Two points that are further apart than so many usual steps are not joined: there was nothing in between.
_GAP_STEPS = 3
# Above this ratio of the largest to the usual value a linear axis shows one spike and a flat line.
_LOG_RATIO = 25.0


def draw_all(data: GraphData, directory: Path) -> list[Path]:
    """Draw all graphs into the directory and return their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    directory.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[GraphData], Figure]] = {
        "processing_times.png": draw_processing_times,
        "latency_timeline.png": draw_latency_timeline,
        "hourly_messages.png": draw_hourly_messages,
    }
    paths = []
    with mpl.rc_context(_STYLE):
        for name, draw in pictures.items():
            path = directory / name
            partial = directory / f".{name}.partial"
            draw(data).savefig(partial, format="png", dpi=110)
            partial.replace(path)
            paths.append(path)
    return paths


def draw_processing_times(data: GraphData) -> Figure:
    """How long requests take in the server, over the last day."""
    figure = _new_figure(5.2)
    axes = figure.subplots()
    _title(axes, "Request processing time", _total(data, "requests"), "frame received → reply queued")
    columns = [("p99", "processing_p99_ms", _SLOWEST), ("mean", "processing_mean_ms", _MEAN)]
    columns.append(("median", "processing_p50_ms", _MEDIAN))
    _draw_times(axes, data, columns, "Processing time")
    axes.set_xlabel("Time (UTC)")
    return figure


def draw_latency_timeline(data: GraphData) -> Figure:
    """How long it takes until a message is acknowledged, and how many there were, over the last day."""
    figure = _new_figure(6.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    _title(above, "Message latency", _total(data, "latencies"), "message received → stored and acknowledged")
    columns = [("p99", "latency_p99_ms", _SLOWEST), ("mean", "latency_mean_ms", _MEAN)]
    columns.append(("median", "latency_p50_ms", _MEDIAN))
    _draw_times(above, data, columns, "Latency")
    moments, rates = _line(data.timeline, "messages_per_second")
    below.fill_between(moments, rates, color=_VOLUME, alpha=0.35, linewidth=0)
    below.plot(moments, rates, color=_VOLUME, linewidth=0.8)
    below.set_ylim(0, max([r for r in rates if not math.isnan(r)], default=0.0) * 1.15 or 1.0)
    below.set_ylabel("Messages/s")
    below.set_xlabel("Time (UTC)")
    figure.align_ylabels()
    return figure


def draw_hourly_messages(data: GraphData) -> Figure:
    """How many messages were sent in each of the last hours."""
    figure = _new_figure(5.2)
    axes = figure.subplots()
    last = int(data.now // 3600)
    hours = range(last - HOURS + 1, last + 1)
    counts = [data.hourly.get(hour, 0) for hour in hours]
    colours = [_MEAN] * (HOURS - 1) + ["#9dbbe0"]
    bars = axes.bar(range(HOURS), counts, color=colours, width=0.78)
    axes.bar_label(bars, [_short(count) if count else "" for count in counts], padding=3, color=_INK, fontsize=9)
    labels = [datetime.fromtimestamp(hour * 3600, UTC) for hour in hours]
    axes.set_xticks(
        range(HOURS), [f"{at:%H}\n{at:%d %b}" if at.hour == 0 or i == 0 else f"{at:%H}" for i, at in enumerate(labels)]
    )
    axes.set_xlim(-0.7, HOURS - 0.3)
    axes.set_ylim(0, max(max(counts) * 1.15, 1.0))
    axes.grid(visible=False, axis="x")
    _thousands(axes)
    _title(
        axes,
        "Messages per hour",
        f"{sum(counts):,} messages in the last {HOURS} hours",
        "the pale bar is still counting",
    )
    axes.set_xlabel("Hour (UTC)")
    axes.set_ylabel("Messages acknowledged")
    if not any(counts):
        _say(axes, "No messages in this period")
    return figure


def _new_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(11.5, height), layout="constrained", facecolor="white")


def _title(axes: Axes, title: str, *details: str) -> None:
    axes.set_title(title, loc="left", pad=26, color=_INK)
    axes.annotate(
        " · ".join(details), (0, 1), (0, 9), "axes fraction", textcoords="offset points", color=_PALE, fontsize=10
    )


def _total(data: GraphData, column: str) -> str:
    count = sum(getattr(point, column) for point in data.timeline)
    return f"{count:,} measured in the last {PERIOD_S // 3600} hours"


def _draw_times(axes: Axes, data: GraphData, columns: Sequence[tuple[str, str, str]], label: str) -> None:
    """Draw lines of milliseconds over time, with their axes and legend, or say that there are none."""
    import matplotlib.dates as mdates
    from matplotlib.ticker import FuncFormatter

    everything: list[float] = []
    for name, column, colour in columns:
        moments, values = _line(data.timeline, column)
        known = [value for value in values if not math.isnan(value)]
        everything += known
        if known:
            _plot(axes, moments, values, color=colour, label=f"{name} (latest {_duration(known[-1])})")
    positive = [value for value in everything if value > 0]
    is_log = bool(positive) and max(positive) > _LOG_RATIO * median(positive)
    if is_log:
        axes.set_yscale("log")
        axes.grid(visible=True, which="minor", axis="y", linewidth=0.4)
    else:
        axes.set_ylim(0, max(everything, default=0.0) * 1.15 or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylabel(f"{label} (ms{', log scale' if is_log else ''})")
    begin = min([point.at for point in data.timeline], default=data.now)
    begin = min(begin, data.now - _SPAN_S_MIN)
    margin = (data.now - begin) * 0.01
    axes.set_xlim(_moment(begin - margin), _moment(data.now + margin))  # type: ignore[arg-type]
    locator = mdates.AutoDateLocator(tz=UTC, minticks=5, maxticks=13)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    if everything:
        figure = axes.figure
        figure.legend(loc="upper right", ncols=3, borderaxespad=0.1)
    else:
        _say(axes, "Nothing was measured in this period")


def _plot(axes: Axes, moments: Sequence[datetime], values: Sequence[float], *, color: str, label: str) -> None:
    axes.plot(moments, values, color=color, linewidth=1.5, label=label)  # type: ignore[arg-type]
    padded = [math.nan, *values, math.nan]
    alone = [i for i in range(len(values)) if math.isnan(padded[i]) and math.isnan(padded[i + 2])]
    axes.plot([moments[i] for i in alone], [values[i] for i in alone], "o", color=color, markersize=3.5)  # type: ignore[arg-type]


def _line(timeline: Sequence[Sample], column: str) -> tuple[list[datetime], list[float]]:
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


def _thousands(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _short(count: int) -> str:
    """A count in at most five characters: 950, 12.3k, 1.2M."""
    for limit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{suffix}"
    return str(count)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.3g} s"


def main() -> None:
    """Draw what is told on the standard input into the directory that is the first argument."""
    os.nice(int(sys.argv[2]))
    data = decode(sys.stdin.buffer.read())
    for path in draw_all(data, Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
