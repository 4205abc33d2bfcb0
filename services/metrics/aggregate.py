"""aggregate: the counts of all instances, added up: totals, gauges, rates and percentiles of the current interval.

Pure: points and times come in, numbers go out. `instance` holds what makes the numbers of one instance right; here is
what concerns all of them: who still counts, how many fit, which hour something belongs to.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from services.metrics.instance import Instance
from services.metrics.room import SERIES_BYTES_MAX, Room

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from services.metrics.points import Attributes, Checkpoint, Point, Source

# A vanished instance may be forgotten, to make room for a new one, when it was silent for this long.
FORGET_AFTER_S = 3600.0
# Counters whose totals outlive their instances: many times as many as ours have names.
FORGOTTEN_MAX = 5_000
# No rate is taken over less than this: the export at a shutdown can follow a regular one by a millisecond.
WINDOW_S_MIN = 1.0
_HOUR_S = 3600
# Growth that took longer than this (this service was down) is spread over no more hours: a sender whose clock jumped
# would name any number.
SPREAD_HOURS_MAX = 48


class Traffic(NamedTuple):
    """What happened in the current window: how much and, over all instances, how much a second."""

    amount: float
    per_second: float


class Timing(NamedTuple):
    """What a histogram measured: how many times, their mean and percentiles, in the histogram's unit."""

    measured: float
    mean: float
    p50: float
    p99: float


class Aggregate:
    """The counts of every instance. Times are monotonic; only `now` is Unix time.

    Args:
        monotonic: The time now.
        stale_after_s: An instance that was silent for longer has vanished: its gauges no longer count.
        max_instances: So many instances are kept; one more is refused.
        max_series: So many series of an instance are kept; points of further ones are refused.
        hourly_metric: The counter whose growth is given to the hours of the day.
        max_bytes: So much memory the series of all instances may take, about; points of further ones are refused.
    """

    def __init__(
        self,
        *,
        monotonic: float,
        stale_after_s: float,
        max_instances: int,
        max_series: int,
        hourly_metric: str,
        max_bytes: int = SERIES_BYTES_MAX,
    ) -> None:
        self._room = Room(max_bytes)
        self._interval_from = monotonic
        self._stale_after_s = stale_after_s
        self._max_instances = max_instances
        self._max_series = max_series
        self._hourly_metric = hourly_metric
        self._instances: dict[Source, Instance] = {}
        self._restored: dict[Source, Checkpoint] = {}
        self._forgotten: defaultdict[str, float] = defaultdict(int)
        self._hourly: defaultdict[int, int] = defaultdict(int)

    def ingest(self, source: Source, points: Sequence[Point], *, now: float, monotonic: float) -> int:
        """Take in one export of one instance and return how many of its points were refused for want of room.

        `now` only decides which hour the growth belongs to.
        """
        if not points:
            return 0
        instance = self._instances.get(source)
        if instance is None:
            if len(self._instances) >= self._max_instances and not self._forget_one(monotonic):
                return len(points)
            checkpoint = self._restored.pop(source, None)
            instance = Instance(max_series=self._max_series, checkpoint=checkpoint, room=self._room)
            self._instances[source] = instance
        ingested = instance.ingest(
            points, watched=self._hourly_metric, monotonic=monotonic, interval_from=self._interval_from
        )
        for hour, count in _by_hour(int(ingested.growth), now, ingested.span_s):
            self._hourly[hour] += count
        return ingested.refused

    def _forget_one(self, monotonic: float) -> bool:
        """Forget the instance that vanished longest ago, but not what it counted."""
        source, instance = min(self._instances.items(), key=lambda item: item[1].last_seen)
        if monotonic - instance.last_seen < FORGET_AFTER_S:
            return False
        for metric, total in instance.totals():
            if metric in self._forgotten or len(self._forgotten) < FORGOTTEN_MAX:
                self._forgotten[metric] += total
        instance.give_back()
        del self._instances[source]
        return True

    def end_interval(self, *, monotonic: float) -> None:
        """Begin a new interval. Each instance's window lasts until its next export."""
        self._interval_from = monotonic
        for instance in self._instances.values():
            instance.end_window()

    def hourly(self) -> dict[int, int]:
        """The growth of the hourly metric that was not yet struck out, by hour since 1970."""
        return dict(self._hourly)

    def strike_hourly(self, kept: Mapping[int, int]) -> None:
        """Strike out growth that is now kept elsewhere."""
        for hour, count in kept.items():
            self._hourly[hour] -= count
            if not self._hourly[hour]:
                del self._hourly[hour]

    def checkpoints(self) -> list[Checkpoint]:
        """What `restore` needs to go on from here after a restart of this service."""
        return [instance.checkpoint(source) for source, instance in self._instances.items()]

    def restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Go on from an earlier life: a process that is met again counts as far as it has counted since."""
        self._restored = {checkpoint.source: checkpoint for checkpoint in checkpoints}

    def total(self, metric: str) -> float:
        """A counter over all instances, with those that are gone, all their runs, and all attributes."""
        return self._forgotten.get(metric, 0) + sum(instance.total(metric) for instance in self._instances.values())

    def gauge(self, metric: str, *, monotonic: float) -> float:
        """A gauge, summed over the instances that have not vanished."""
        seen_after = monotonic - self._stale_after_s
        return sum(instance.gauge(metric, seen_after=seen_after) for instance in self._instances.values())

    def largest(self, metric: str, *, monotonic: float) -> float:
        """A gauge of something that instances share, which each of them knows: the largest of what they say."""
        seen_after = monotonic - self._stale_after_s
        return max((instance.gauge(metric, seen_after=seen_after) for instance in self._instances.values()), default=0)

    def traffic(self, *metrics: str, monotonic: float) -> Traffic:
        """How much counters grew in the current window, and how fast, over all instances."""
        amount: float = 0
        per_second = 0.0
        for instance in self._current(monotonic):
            growth = sum(growth for metric in metrics for _, growth in instance.growths(metric))
            amount += growth
            per_second += growth / self._window_s(instance, monotonic)
        return Traffic(amount, per_second)

    def timing(self, histogram: str, only: tuple[str, str] | None = None) -> Timing | None:
        """A histogram's windows of those who reported in this interval, or None where nothing was measured.

        A histogram arrives as the counters `<name>.count`, `<name>.sum` and `<name>.bucket`, the last with the
        attribute `le`: how many were at most that much. All instances are put together, and all attributes but those
        that lack the pair `only`, where it is given.
        """
        measured = sum(growth for _, growth in self._growths(f"{histogram}.count", only))
        if measured <= 0:
            return None
        total = sum(growth for _, growth in self._growths(f"{histogram}.sum", only))
        buckets: defaultdict[float, float] = defaultdict(int)
        for attributes, growth in self._growths(f"{histogram}.bucket", only):
            buckets[_upper_bound(attributes)] += growth
        ordered = sorted(buckets.items())
        p50, p99 = percentile(ordered, measured, 0.50), percentile(ordered, measured, 0.99)
        return Timing(measured, total / measured, p50, p99)

    def _growths(self, metric: str, only: tuple[str, str] | None) -> Iterator[tuple[Attributes, float]]:
        for instance in self._instances.values():
            if instance.has_reported:
                for attributes, growth in instance.growths(metric):
                    if only is None or only in attributes:
                        yield attributes, growth

    def live_instances(self, *, monotonic: float) -> int:
        """How many instances have not vanished."""
        return sum(not self._is_stale(instance, monotonic) for instance in self._instances.values())

    def _is_stale(self, instance: Instance, monotonic: float) -> bool:
        return monotonic - instance.last_seen > self._stale_after_s

    def _current(self, monotonic: float) -> Iterator[Instance]:
        """The instances whose window tells about now: they are there, or were in this interval."""
        for instance in self._instances.values():
            if instance.has_reported or not self._is_stale(instance, monotonic):
                yield instance

    def _window_s(self, instance: Instance, monotonic: float) -> float:
        length = instance.window_s
        if self._is_stale(instance, monotonic):  # it was there for a part of the interval only
            length = max(length, monotonic - self._interval_from)
        return max(length, WINDOW_S_MIN)


def percentile(buckets: Sequence[tuple[float, float]], count: float, fraction: float) -> float:
    """The value below which `fraction` of `count` measurements lie, from ascending cumulative buckets.

    Inside a bucket the measurements are taken as evenly spread. Above the last finite bound nothing is known but that
    bound, so it is the answer there.
    """
    rank = fraction * count
    lower = below = 0.0
    for bound, cumulative in buckets:
        if math.isinf(bound):
            break
        reached = max(below, float(cumulative))
        if reached >= rank and reached > below:
            return lower + (bound - lower) * (rank - below) / (reached - below)
        lower, below = bound, reached
    return lower


def _upper_bound(attributes: Attributes) -> float:
    try:
        return float(dict(attributes)["le"])
    except (KeyError, ValueError):
        return math.inf


def _by_hour(growth: int, now: float, span_s: float) -> Iterator[tuple[int, int]]:
    """Give growth that took `span_s` until now to the hours in which it happened, evenly where it took several."""
    if growth <= 0:
        return
    last = int(now // _HOUR_S)
    hours = 1
    if span_s > _HOUR_S:
        hours = min(last - int((now - span_s) // _HOUR_S) + 1, SPREAD_HOURS_MAX)
    share, rest = divmod(growth, hours)
    for hour in range(last - hours + 1, last + 1):
        if count := share + (rest if hour == last else 0):
            yield hour, count
