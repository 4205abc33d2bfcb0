"""instance: the counters and gauges of one service instance, through restarts, repeats and crooked clocks.

Pure. A counter is cumulative and carries the moment at which its process began to count. One (series, start) is a
*run*. A run can only grow, so its value is the largest one that was seen, which makes repeated and overtaken exports
harmless; a start that was not seen before is a new run, whatever the clocks say, and is added to the earlier ones. So
an instance that is killed and comes back loses nothing and counts nothing twice.

Rates belong to a *window*: from the last export before the current interval began to the newest one. The windows of
an instance follow each other without gap or overlap, so a rate is never made of ten seconds of messages and one second
of time, however exports and intervals fall together. Windows are measured with the monotonic time at which exports
arrive; the times inside the points are the sender's, and are only compared with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from services.metrics.points import Checkpoint, Run
from services.metrics.room import SERIES_BYTES_MAX, Room, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.metrics.points import Attributes, Point, Source

# Starts that are remembered for a series, so that an export of a process that is gone, overtaken by its successor's,
# is recognised. An exporter retries for seconds, a process lives longer than that.
RUNS_REMEMBERED = 4
# How long a newer value of a gauge keeps out an older one. Longer than an exporter's retries, short enough that a
# sender whose clock was set back is believed again soon.
REORDER_WINDOW_S = 30.0


@dataclass(slots=True)
class Series:
    """A counter with one set of attributes: its total over all runs, and the total when the window began."""

    total: float = 0
    base: float = 0
    runs: dict[int, float] = field(default_factory=dict)

    def record(self, start_ns: int, value: float) -> float:
        """Take in a cumulative value and return by how much the total grew."""
        known = self.runs.get(start_ns)
        if known is None:
            if len(self.runs) >= RUNS_REMEMBERED:
                del self.runs[next(iter(self.runs))]
            known = 0
        self.runs[start_ns] = max(known, value)
        growth = max(0, value - known)
        self.total += growth
        return growth


@dataclass(slots=True)
class Gauge:
    """A gauge with one set of attributes. `taken_at` is when this value arrived, `seen_at` when any did."""

    value: float
    time_ns: int
    taken_at: float
    seen_at: float

    def record(self, value: float, time_ns: int, monotonic: float) -> None:
        """Take in a value, unless a newer one overtook it."""
        self.seen_at = monotonic
        if time_ns >= self.time_ns or monotonic - self.taken_at > REORDER_WINDOW_S:
            self.value, self.time_ns, self.taken_at = value, time_ns, monotonic


class Ingested(NamedTuple):
    """What an export brought: points refused for want of room, growth of the watched counter, and in how long."""

    refused: int
    growth: float
    span_s: float


class Instance:
    """One instance.

    Args:
        max_series: So many series and gauges are kept; points of further ones are refused.
        checkpoint: How far the instance had counted when this service ended last, where it is known.
        room: What all instances share; where it is taken up, points of further series are refused.
    """

    def __init__(self, *, max_series: int, checkpoint: Checkpoint | None = None, room: Room | None = None) -> None:
        self._max_series = max_series
        self._room = room or Room(SERIES_BYTES_MAX)
        self._bytes = 0
        self._size = 0
        self._series: dict[str, dict[Attributes, Series]] = {}
        self._gauges: dict[str, dict[Attributes, Gauge]] = {}
        self._restored = {(run.metric, run.attributes): run for run in checkpoint.runs} if checkpoint else {}
        self._restored_ns = checkpoint.time_ns if checkpoint else 0
        self._window_from = -math.inf
        self._is_window_over = False
        self._started_ns = 0
        self._time_ns = 0
        self.last_seen = -math.inf

    @property
    def has_reported(self) -> bool:
        """Whether an export came since the current interval began."""
        return not self._is_window_over

    @property
    def window_s(self) -> float:
        """How long the window is, from export to export."""
        return self.last_seen - self._window_from

    def ingest(self, points: Sequence[Point], *, watched: str, monotonic: float, interval_from: float) -> Ingested:
        """Take in an export that arrives at `monotonic`, in the interval that began at `interval_from`."""
        span_s = self._begin_window(points, monotonic, interval_from)
        refused = 0
        growth: float = 0
        for point in points:
            if not point.is_sum:
                refused += not self._ingest_gauge(point, monotonic)
                continue
            series = self._find_series(point)
            if series is None:
                refused += 1
                continue
            grown = series.record(point.start_ns, point.value)
            if point.metric == watched:
                growth += grown
        self.last_seen = monotonic
        return Ingested(refused, growth, span_s)

    def give_back(self) -> None:
        """Leaves the room that it took to others; it is not used after that."""
        self._room.give_back(self._bytes)
        self._bytes = 0

    def end_window(self) -> None:
        """Let the next export begin a new window."""
        self._is_window_over = True

    def totals(self) -> Iterator[tuple[str, float]]:
        """Every counter's total over its runs and attributes."""
        for metric, by_attributes in self._series.items():
            yield metric, sum(series.total for series in by_attributes.values())

    def total(self, metric: str) -> float:
        """A counter's total over its runs and attributes."""
        return sum(series.total for series in self._series.get(metric, {}).values())

    def growths(self, metric: str) -> Iterator[tuple[Attributes, float]]:
        """By how much a counter grew in the window, by attributes."""
        for attributes, series in self._series.get(metric, {}).items():
            yield attributes, series.total - series.base

    def gauge(self, metric: str, *, seen_after: float) -> float:
        """A gauge, summed over its attributes, as far as it was reported after that time."""
        return sum(gauge.value for gauge in self._gauges.get(metric, {}).values() if gauge.seen_at >= seen_after)

    def checkpoint(self, source: Source) -> Checkpoint:
        """What another `Instance` needs to go on from here."""
        runs = tuple(
            Run(metric, attributes, start_ns, series.runs[start_ns])
            for metric, by_attributes in self._series.items()
            for attributes, series in by_attributes.items()
            for start_ns in list(series.runs)[-1:]
        )
        return Checkpoint(source, self._time_ns, runs)

    def _begin_window(self, points: Sequence[Point], monotonic: float, interval_from: float) -> float:
        """Start a window with this export, if it is the first one there; return the time that the export covers."""
        sums = [point for point in points if point.is_sum]
        if not sums:
            return 0.0
        start_ns = min(point.start_ns for point in sums)
        self._time_ns = max(point.time_ns for point in sums)
        # From here on the process counts, as far as this service knows; by the sender's clock.
        since_ns = self._restored_ns if self._continues(sums) else start_ns
        begun = monotonic - max(0, self._time_ns - since_ns) / 1e9
        if not self._started_ns:
            # Nothing was counted before, so the whole interval belongs to the window.
            self._window_from = min(begun, interval_from)
            span_s = monotonic - begun
        else:
            span_s = monotonic - self.last_seen
            if self._is_window_over:
                is_new_process = start_ns > self._started_ns
                # The time in which an instance was not there is no time without messages.
                self._window_from = max(self.last_seen, min(begun, interval_from)) if is_new_process else self.last_seen
                for by_attributes in self._series.values():
                    for series in by_attributes.values():
                        series.base = series.total
        self._is_window_over = False
        self._started_ns = max(self._started_ns, start_ns)
        return span_s

    def _continues(self, sums: Sequence[Point]) -> bool:
        restored = self._restored
        return any((run := restored.get((p.metric, p.attributes))) and run.start_ns == p.start_ns for p in sums)

    def _find_series(self, point: Point) -> Series | None:
        series = self._series.get(point.metric, {}).get(point.attributes)
        if series is None and self._has_room(point):
            run = self._restored.pop((point.metric, point.attributes), None)
            if run is not None and run.start_ns == point.start_ns:
                series = Series(total=run.value, base=run.value, runs={run.start_ns: run.value})
            else:
                series = Series()
            self._series.setdefault(point.metric, {})[point.attributes] = series
        return series

    def _has_room(self, point: Point) -> bool:
        """Takes room for one more series, where there is any. What is refused must leave nothing behind."""
        size = size_of(point)
        if self._size >= self._max_series or not self._room.take(size):
            return False
        self._size += 1
        self._bytes += size
        return True

    def _ingest_gauge(self, point: Point, monotonic: float) -> bool:
        gauge = self._gauges.get(point.metric, {}).get(point.attributes)
        if gauge is not None:
            gauge.record(point.value, point.time_ns, monotonic)
        elif self._has_room(point):
            gauge = Gauge(point.value, point.time_ns, monotonic, monotonic)
            self._gauges.setdefault(point.metric, {})[point.attributes] = gauge
        else:
            return False
        return True
