"""The numbers of a report, as ghz's JSON has them. Pure.

The average is over all calls; fastest, slowest, histogram and distribution are over those that were OK, or over all
with `count-errors`. Durations are whole nanoseconds; a histogram's marks are seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final

from tests.ghz.calls import Outcome
from tests.ghz.durations import SECOND_NS
from tests.ghz.settings import FIELDS, Settings

PERCENTAGES: Final = (10, 25, 50, 75, 90, 95, 99)
BUCKETS: Final = 10
DETAILS_MAX: Final = 1_000_000
_UNLIMITED: Final = 2**31 - 1

# What ghz's report calls differently from its configuration, leaves out, or has even when it is nothing.
_RENAMED: Final = {"connect-timeout": "dial-timeout", "cpus": "CPUs"}
_OPTIONS_LEFT_OUT: Final = frozenset({
    "duration-stop", "data-file", "binary-file", "metadata-file", "reflect-metadata", "stream-interval",
    "stream-call-duration", "stream-call-count", "stream-dynamic-messages", "disable-template-functions",
    "disable-template-data", "max-recv-message-size", "max-send-message-size", "output", "format", "max-duration",
    "tags",
})  # fmt: skip
_ALWAYS: Final = frozenset({
    "insecure", "load-schedule", "load-start", "load-end", "load-step", "load-step-duration", "load-max-duration",
    "concurrency-schedule", "concurrency-start", "concurrency-end", "concurrency-step", "concurrency-step-duration",
    "concurrency-max-duration", "CPUs",
})  # fmt: skip


def make(
    settings: Settings, outcomes: Sequence[Outcome], *, reason: str, total_ns: int, now: datetime
) -> dict[str, Any]:
    """The report of a run that took `total_ns` and ended at `now`, for `reason`."""
    counted = outcomes[settings.skipFirst :]
    latencies = sorted(outcome.latency_ns for outcome in counted if settings.count_errors or not outcome.error)
    report: dict[str, Any] = {
        "date": now.isoformat(timespec="seconds"),
        **({"name": settings.name} if settings.name else {}),
        "endReason": reason,
        "options": _options(settings),
        "count": len(counted),
        "total": total_ns,
        "average": sum(outcome.latency_ns for outcome in counted) // len(counted) if counted else 0,
        "fastest": latencies[0] if latencies else 0,
        "slowest": latencies[-1] if latencies else 0,
        "rps": len(counted) / (total_ns / SECOND_NS) if counted and total_ns else 0,
        "errorDistribution": dict(Counter(outcome.error for outcome in counted if outcome.error)),
        "statusCodeDistribution": dict(Counter(outcome.status for outcome in counted)),
        "latencyDistribution": distribution(latencies) if latencies else None,
        "histogram": histogram(latencies) if latencies else None,
        "details": [
            {
                "timestamp": outcome.ended_at.isoformat(),
                "latency": outcome.latency_ns,
                "error": outcome.error,
                "status": outcome.status,
            }
            for outcome in counted[:DETAILS_MAX]
        ]
        or None,
    }
    if settings.tags:
        report["tags"] = settings.tags
    return report


def distribution(latencies_ns: Sequence[int]) -> list[dict[str, int]]:
    """The latency that so many percent of the calls did not exceed. `latencies_ns` is sorted and not empty."""
    count = len(latencies_ns)
    return [
        {"percentage": percentage, "latency": latencies_ns[max(0, math.ceil(percentage * count / 100) - 1)]}
        for percentage in PERCENTAGES
    ]


def histogram(latencies_ns: Sequence[int]) -> list[dict[str, float]]:
    """How many calls took up to each of eleven evenly spaced marks. `latencies_ns` is sorted and not empty."""
    fastest, slowest = latencies_ns[0], latencies_ns[-1]
    marks = [fastest + (slowest - fastest) * k / BUCKETS for k in range(BUCKETS)] + [slowest]
    counts = [0] * len(marks)
    bucket = 0
    for latency in latencies_ns:
        while latency > marks[bucket]:
            bucket += 1
        counts[bucket] += 1
    return [
        {"mark": mark / SECOND_NS, "count": count, "frequency": count / len(latencies_ns)}
        for mark, count in zip(marks, counts, strict=True)
    ]


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, part in FIELDS.items():
        if key in _OPTIONS_LEFT_OUT:
            continue
        name = _RENAMED.get(key, key)
        value = getattr(settings, part.name)
        if value or name in _ALWAYS or (key == "data" and value is not None):
            options[name] = value
    if settings.proto:  # where imports are looked for
        options["import-paths"] = [str(PurePath(settings.proto).parent), ".", *settings.import_paths]
    if settings.duration:  # the number of requests has no limit then
        options["total"] = _UNLIMITED
    if settings.load_schedule == "line":
        options["load-step-duration"] = SECOND_NS
    options["binary"] = bool(settings.binary_file)
    return options
