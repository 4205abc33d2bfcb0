"""graph_data: what the graphs are drawn from, and how it travels to the process that draws them.

Pure, and free of matplotlib, so that the service can make it without loading a hundred megabytes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

# What the graphs show.
PERIOD_S = 24 * 3600
HOURS = 24


class Sample(NamedTuple):
    """One interval, or several joined. Times are in milliseconds, None where nothing was measured.

    `at` is the end of the interval in Unix time; `requests` and `latencies` say how many were measured.
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


class GraphData(msgspec.Struct, frozen=True):
    """Everything that all graphs need. `hourly` has the messages of each hour since 1970 that had any."""

    now: float
    timeline: list[Sample]
    hourly: dict[int, int]


def encode(data: GraphData) -> bytes:
    """As JSON."""
    return msgspec.json.encode(data)


def decode(text: bytes) -> GraphData:
    """From JSON. Raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=GraphData)
