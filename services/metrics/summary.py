"""summary: which numbers the operators see, by name, and from which metrics they are made.

Pure. Counts are totals since the processes that report them started; rates, means and percentiles belong to the
current interval. A mean of nothing is no number: while nothing happens, the means and percentiles of the last interval
in which something did stay visible, and `requests_measured` and `latencies_measured` say that they are old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.metrics.graph_data import Sample

if TYPE_CHECKING:
    from services.metrics.aggregate import Aggregate, Timing

ACKNOWLEDGED = "parley.edge.messages.acknowledged"
_DELIVERED = "parley.edge.messages.delivered"
_BYTES = ("parley.edge.bytes.received", "parley.edge.bytes.sent")
_WAIT = "parley.edge.queue.wait"
_BATCH = "parley.rooms.commit.batch_size"
_COMMIT = "parley.rooms.commit.duration"
_CLASSES = ("critical", "high", "normal", "low")
_PROCESSING = "parley.edge.request.duration"
_LATENCY = "parley.edge.publish.duration"

_TOTALS = {
    "total_connections": "parley.edge.connections.accepted",
    "refused_connections": "parley.edge.connections.refused",
    "messages_received": "parley.edge.messages.received",
    "messages_sent": ACKNOWLEDGED,
    "messages_delivered": _DELIVERED,
    "messages_stored": "parley.rooms.messages.stored",
    "frames_received": "parley.edge.frames.received",
    "frames_sent": "parley.edge.frames.sent",
    "bytes_received": "parley.edge.bytes.received",
    "bytes_sent": "parley.edge.bytes.sent",
    "errors": "parley.edge.errors",
    "logins": "parley.auth.logins",
    "failed_logins": "parley.auth.logins.failed",
    "registrations": "parley.auth.registrations",
    "telemetry_sent": "parley.telemetry.sent",
    "telemetry_lost": "parley.telemetry.lost",
}
_GAUGES = {
    "open_connections": "parley.edge.connections",
    "concurrent_users": "parley.edge.sessions",
    "queued_requests": "parley.edge.queue.waiting",
}
# Each instance counts what all of them share.
_SHARED = {"rooms": "parley.rooms.count", "accounts": "parley.auth.accounts"}


class Statistics(NamedTuple):
    """Everything at one moment: `values` by name for people and programs, `sample` for the graphs."""

    at: float
    values: dict[str, float]
    sample: Sample


class Summary:
    """Names the numbers of an aggregate, and remembers the last means and percentiles."""

    def __init__(self, aggregate: Aggregate, *, monotonic: float) -> None:
        self._aggregate = aggregate
        self._started_at = monotonic
        self._interval_from = monotonic
        self._last_processing = _milliseconds(None)
        self._last_latency = _milliseconds(None)

    def statistics(self, *, now: float, monotonic: float) -> Statistics:
        """The numbers as they stand now, at Unix time `now`."""
        aggregate = self._aggregate
        messages = aggregate.traffic(ACKNOWLEDGED, monotonic=monotonic)
        deliveries = aggregate.traffic(_DELIVERED, monotonic=monotonic)
        traffic = aggregate.traffic(*_BYTES, monotonic=monotonic)
        processing = aggregate.timing(_PROCESSING)
        latency = aggregate.timing(_LATENCY)
        if processing is not None:
            self._last_processing = _milliseconds(processing)
        if latency is not None:
            self._last_latency = _milliseconds(latency)
        values: dict[str, float] = {
            "uptime_seconds": round(monotonic - self._started_at, 3),
            "interval_seconds": round(monotonic - self._interval_from, 3),
            "reporting_instances": aggregate.live_instances(monotonic=monotonic),
        }
        values |= {name: _plain(aggregate.total(metric)) for name, metric in _TOTALS.items()}
        values["bytes_transferred"] = values["bytes_received"] + values["bytes_sent"]
        values |= {name: _plain(aggregate.gauge(metric, monotonic=monotonic)) for name, metric in _GAUGES.items()}
        values |= {name: _plain(aggregate.largest(metric, monotonic=monotonic)) for name, metric in _SHARED.items()}
        values |= {
            "messages_per_second": round(messages.per_second, 3),
            "deliveries_per_second": round(deliveries.per_second, 3),
            "bandwidth_mbps": round(traffic.per_second * 8 / 1e6, 6),  # megabits, both directions
        }
        for kind, timing in (("processing_time", self._last_processing), ("latency", self._last_latency)):
            values[f"avg_{kind}_ms"], values[f"p50_{kind}_ms"], values[f"p99_{kind}_ms"] = timing
        values["fan_out"] = round(deliveries.amount / messages.amount, 3) if messages.amount else 0.0
        values["requests_measured"] = processing.measured if processing else 0
        values["latencies_measured"] = latency.measured if latency else 0
        return Statistics(now, values, self._sample(now, values))

    def _sample(self, at: float, values: dict[str, float]) -> Sample:
        requests, latencies = int(values["requests_measured"]), int(values["latencies_measured"])
        timing = self._aggregate.timing
        waits = timing(_WAIT)
        by_class = {name: timing(_WAIT, ("qos_class", name)) for name in _CLASSES}
        batch, commit = timing(_BATCH), timing(_COMMIT)
        return Sample(
            at=at,
            requests=requests,
            processing_mean_ms=values["avg_processing_time_ms"] if requests else None,
            processing_p50_ms=values["p50_processing_time_ms"] if requests else None,
            processing_p99_ms=values["p99_processing_time_ms"] if requests else None,
            latencies=latencies,
            latency_mean_ms=values["avg_latency_ms"] if latencies else None,
            latency_p50_ms=values["p50_latency_ms"] if latencies else None,
            latency_p99_ms=values["p99_latency_ms"] if latencies else None,
            messages_per_second=values["messages_per_second"],
            connections=values["open_connections"],
            users=values["concurrent_users"],
            deliveries_per_second=values["deliveries_per_second"],
            fan_out=values["fan_out"] or None,
            waits=int(waits.measured) if waits else 0,
            **{f"wait_{name}_ms": round(found.p99 * 1e3, 3) for name, found in by_class.items() if found},
            commits=int(batch.measured) if batch else 0,
            batch_mean=round(batch.mean, 3) if batch else None,
            batch_p99=round(batch.p99, 3) if batch else None,
            commit_p99_ms=round(commit.p99 * 1e3, 3) if commit else None,
        )

    def end_interval(self, *, monotonic: float) -> None:
        """Begin a new interval, here and in the aggregate."""
        self._interval_from = monotonic
        self._aggregate.end_interval(monotonic=monotonic)


def _plain(value: float) -> float:
    """Counts look like counts, also where an instance sent them as floating-point numbers."""
    return int(value) if value == int(value) else value


def _milliseconds(timing: Timing | None) -> tuple[float, float, float]:
    """Mean, median and 99th percentile of a histogram of seconds, in milliseconds."""
    if timing is None:
        return 0.0, 0.0, 0.0
    return round(timing.mean * 1e3, 3), round(timing.p50 * 1e3, 3), round(timing.p99 * 1e3, 3)
