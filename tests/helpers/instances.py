"""Service instances as the metrics service sees them, with clocks that a test can set, stop and start anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.metrics.aggregate import Aggregate
from services.metrics.graph_data import Sample
from services.metrics.points import Attributes, Point, Source
from services.metrics.summary import ACKNOWLEDGED

T0 = 1_800_000_000.0  # a full hour


def sample(at: float, ms: float | None = 2.0) -> Sample:
    """What is kept of an interval in which every request took about `ms`, or in which there were none."""
    many = 0 if ms is None else 10
    three = (None, None, None) if ms is None else (ms, ms * 0.8, ms * 4)
    return Sample(at, many, *three, many, *three, many / 60)


@dataclass
class Process:
    """One life of an instance. `skew_s` is how far its clock is off."""

    source: Source
    started_at: float
    skew_s: float = 0.0
    sums: dict[tuple[str, Attributes], float] = field(default_factory=dict)
    gauges: dict[tuple[str, Attributes], float] = field(default_factory=dict)

    def add(self, metric: str, amount: float = 1, **attributes: str) -> None:
        """Count something."""
        series = (metric, tuple(sorted(attributes.items())))
        self.sums[series] = self.sums.get(series, 0) + amount

    def observe(self, histogram: str, value: float, bounds: tuple[float, ...], **attributes: str) -> None:
        """Count a value in a histogram as telemetry exports it."""
        self.add(f"{histogram}.count", **attributes)
        self.add(f"{histogram}.sum", value, **attributes)
        for bound in (*bounds, float("inf")):
            self.add(
                f"{histogram}.bucket", int(value <= bound), **attributes, le="+Inf" if bound > 1e300 else repr(bound)
            )

    def set(self, metric: str, value: float) -> None:
        """Set a gauge."""
        self.gauges[metric, ()] = value

    def points(self, now: float) -> list[Point]:
        """What it would export now."""
        start_ns, time_ns = int((self.started_at) * 1e9), int((now + self.skew_s) * 1e9)
        sums = [Point(metric, attributes, True, v, start_ns, time_ns) for (metric, attributes), v in self.sums.items()]
        return sums + [Point(metric, a, False, v, 0, time_ns) for (metric, a), v in self.gauges.items()]


class World:
    """An aggregate, and one true time that all clocks derive from."""

    def __init__(self, *, max_instances: int = 20, max_series: int = 100, stale_after_s: float = 30.0) -> None:
        self.elapsed = 0.0
        self.limits = {"max_instances": max_instances, "max_series": max_series}
        self.stale_after_s = stale_after_s
        self.wall_skew_s = 0.0  # of the metrics service's own clock
        self.aggregate = self.new_aggregate()

    def new_aggregate(self) -> Aggregate:
        """An empty one, as after a restart of the metrics service."""
        return Aggregate(
            monotonic=self.monotonic, stale_after_s=self.stale_after_s, hourly_metric=ACKNOWLEDGED, **self.limits
        )

    @property
    def now(self) -> float:
        """The true Unix time."""
        return T0 + self.elapsed

    @property
    def monotonic(self) -> float:
        """The metrics service's monotonic clock."""
        return 5_000.0 + self.elapsed

    def start(self, name: str, *, service: str = "edge", skew_s: float = 0.0) -> Process:
        """A new process of an instance."""
        return Process(Source(service, name), self.now + skew_s, skew_s)

    def export(self, *processes: Process) -> int:
        """Let processes export what they have now; returns how many points were refused."""
        return sum(self.send(process.source, process.points(self.now)) for process in processes)

    def send(self, source: Source, points: list[Point]) -> int:
        """Deliver points now, whenever they were made."""
        return self.aggregate.ingest(source, points, now=self.now + self.wall_skew_s, monotonic=self.monotonic)

    def end_interval(self) -> None:
        """Begin a new interval."""
        self.aggregate.end_interval(monotonic=self.monotonic)

    def rate(self, *metrics: str) -> float:
        """How fast counters grow."""
        return self.aggregate.traffic(*metrics, monotonic=self.monotonic).per_second

    def gauge(self, metric: str) -> float:
        """A gauge's sum."""
        return self.aggregate.gauge(metric, monotonic=self.monotonic)
