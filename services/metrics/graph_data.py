"""graph_data: what the graphs are drawn from, and how it travels to the process that draws them.

Pure, and free of matplotlib, so that the service can make it without loading a hundred megabytes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
"""What the graphs show: the last hour and the last day."""

HOURS: Final = 24


class Sample(NamedTuple):
    """One interval, or several joined. Times are in milliseconds, None where nothing was measured.

    `at` is the end of the interval in Unix time; `requests`, `latencies`, `waits` and `commits` say how many were
    measured. `fan_out` is deliveries per message; `batch_…` are messages per commit.
    """

    at: float
    requests: int
    processing_mean_ms: float | None
    processing_p50_ms: float | None
    processing_p99_ms: float | None
    latencies: int
    latency_mean_ms: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    messages_per_second: float
    connections: float | None = None
    users: float | None = None
    deliveries_per_second: float | None = None
    fan_out: float | None = None
    waits: int = 0
    wait_critical_ms: float | None = None
    wait_high_ms: float | None = None
    wait_normal_ms: float | None = None
    wait_low_ms: float | None = None
    commits: int = 0
    batch_mean: float | None = None
    batch_p99: float | None = None
    commit_p99_ms: float | None = None


class GraphData(msgspec.Struct, frozen=True):
    """Everything that all graphs of a period need. `hourly` has the messages of each hour since 1970 that had any."""

    now: float
    timeline: list[Sample]
    hourly: dict[int, int]
    period_s: int = DAY_S

    @property
    def hours(self) -> range:
        """The hours since 1970 that bars are drawn for, the current one last."""
        last = int(self.now // HOUR_S)
        return range(last - HOURS + 1, last + 1)


def encode(data: list[GraphData]) -> bytes:
    """As JSON."""
    return msgspec.json.encode(data)


def decode(text: bytes) -> list[GraphData]:
    """From JSON. Raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=list[GraphData])
