"""config: what the metrics service is told. Paths that are left out are under the home directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.common.config import ServiceConfig
from services.metrics.forwarder import QUEUE_BYTES_MAX, Receiver, parse_url
from services.metrics.room import SERIES_BYTES_MAX
from services.metrics.store import Bounds

# An instance that missed so many of its exports has vanished.
MISSED_EXPORTS = 3


@dataclass(frozen=True, kw_only=True)
class MetricsConfig(ServiceConfig):
    """The common keys and these.

    `stats_interval_s` is the time between two lines of `stats_file`, `graphs_interval_s` that between two drawings.
    An export with more than `max_points_per_export` points is refused whole: ours have some hundreds. So are points of
    new series of an instance that has `max_series_per_instance`, or when the series of all instances take
    `max_series_bytes`, and exports of new instances when there are `max_instances`. Spans and log records are kept as
    long as all three of their bounds allow, the oldest go first.

    `forward_url` (http://HOST:PORT, or https:// and then verified with `forward_ca_file` or what the machine trusts) is
    another OTLP receiver over gRPC that gets everything that comes in; `forward_queue_bytes` may wait for it.
    """

    stats_interval_s: float = 60.0
    graphs_interval_s: float = 300.0
    stats_file: Path | None = None
    graphs_dir: Path | None = None
    database_url: str | None = None
    max_instances: int = 200
    max_series_per_instance: int = 1_000
    max_series_bytes: int = SERIES_BYTES_MAX
    max_points_per_export: int = 10_000
    max_spans: int = 200_000
    max_span_bytes: int = 200_000_000
    max_span_age_s: float = 86_400.0
    max_log_records: int = 200_000
    max_log_bytes: int = 100_000_000
    max_log_age_s: float = 86_400.0
    forward_url: str | None = None
    forward_ca_file: Path | None = None
    forward_queue_bytes: int = QUEUE_BYTES_MAX

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("stats_interval_s", "graphs_interval_s"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")
        for key in (
            "max_instances",
            "max_series_per_instance",
            "max_series_bytes",
            "max_points_per_export",
            "max_spans",
            "max_span_bytes",
            "max_span_age_s",
            "max_log_records",
            "max_log_bytes",
            "max_log_age_s",
            "forward_queue_bytes",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")
        if self.forward_url is not None:
            try:
                parse_url(self.forward_url)
            except ValueError as error:
                raise ValueError(f"forward_url: {error}") from None

    @property
    def span_bounds(self) -> Bounds:
        """How many spans are kept."""
        return Bounds(self.max_spans, self.max_span_bytes, self.max_span_age_s)

    @property
    def log_bounds(self) -> Bounds:
        """How many log records are kept."""
        return Bounds(self.max_log_records, self.max_log_bytes, self.max_log_age_s)

    @property
    def receiver(self) -> Receiver | None:
        """Who else gets what comes in."""
        if self.forward_url is None:
            return None
        return Receiver(self.forward_url, self.forward_ca_file, self.forward_queue_bytes)

    @property
    def statistics_path(self) -> Path:
        """Where the statistics go."""
        return self.stats_file or self.home / "logs" / "performance_stats.json"

    @property
    def graphs_path(self) -> Path:
        """The directory of the graphs."""
        return self.graphs_dir or self.home / "monitoring" / "graphs"

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'data' / 'metrics.db'}"

    @property
    def stale_after_s(self) -> float:
        """How long an instance may be silent until it no longer counts."""
        return MISSED_EXPORTS * self.metrics_interval_s
