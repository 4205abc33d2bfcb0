"""The catalogue: every workload by the name that `--only` takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.files import files
from tests.bench.overload import classes, overload
from tests.bench.server import Server
from tests.bench.tracing_cost import tracing
from tests.bench.without_metrics import without_metrics
from tests.bench.workloads import Figures, closed_loop, idle, login_storm, paced, reconnect_storm


@dataclass(frozen=True)
class Workload:
    """A workload, what it is called, and which of its figures leads."""

    title: str
    run: Callable[[Server, float], Awaitable[Figures]]
    headline: str
    is_more_better: bool = True
    connections: int = 250
    peers: bool = True
    """Whether the other servers are asked too."""


WORKLOADS: dict[str, Workload] = {
    "fanout-1": Workload(
        "1 room x 200, 1 in flight: deliveries per CPU-second",
        lambda server, seconds: closed_loop(server, seconds, count=1, size=200, window=1),
        "deliveries_per_cpu_s",
    ),
    "fanout-64": Workload(
        "1 room x 200, 64 in flight: deliveries per CPU-second",
        lambda server, seconds: closed_loop(server, seconds, count=1, size=200, window=64),
        "deliveries_per_cpu_s",
    ),
    "rooms": Workload(
        "50 rooms x 4, 16 in flight each: messages per CPU-second",
        lambda server, seconds: closed_loop(server, seconds, count=50, size=4, window=16),
        "messages_per_cpu_s",
    ),
    "latency": Workload(
        "20 rooms x 20 at 200 messages/s: p99 of the latency to delivery, ms",
        lambda server, seconds: paced(server, seconds, count=20, size=20, rate=200.0),
        "p99_ms",
        is_more_better=False,
        connections=420,
    ),
    "idle-1000": Workload(
        "1,000 idle connections: resident KiB each",
        lambda server, seconds: idle(server, seconds, count=1000),
        "kib_per_connection",
        is_more_better=False,
        connections=1050,
    ),
    "idle-5000": Workload(
        "5,000 idle connections: resident KiB each",
        lambda server, seconds: idle(server, seconds, count=5000),
        "kib_per_connection",
        is_more_better=False,
        connections=5050,
    ),
    "logins": Workload(
        "500 logins, 64 at a time: logins per CPU-second",
        lambda server, seconds: login_storm(server, seconds, count=500),
        "logins_per_cpu_s",
        connections=500,
    ),
    "reconnect": Workload(
        "1,000 clients come back at once: seconds until all are back",
        lambda server, seconds: reconnect_storm(server, seconds, count=1000),
        "back_after_s",
        is_more_better=False,
        connections=1000,
    ),
    "files": Workload(
        "a file of 200 MB up and down, beside 200 messages/s to 20 rooms x 20: MB per CPU-second",
        files,
        "mb_per_cpu_s",
        connections=420,
        peers=False,
    ),
    "overload": Workload(
        "50 rooms x 4 are offered 10 times the peak: acknowledged, as a share of the peak",
        lambda server, seconds: overload(server, seconds, rooms=50, times=10.0),
        "goodput_share",
        peers=False,
    ),
    "overload-600": Workload(
        "150 rooms x 4 are offered 10 times the peak: acknowledged, as a share of the peak",
        lambda server, seconds: overload(server, seconds, rooms=150, times=10.0),
        "goodput_share",
        peers=False,
    ),
    "tracing": Workload(
        "what sampling by default costs beside none, in the chat of `rooms`: percent of CPU",
        tracing,
        "cost_percent",
        is_more_better=False,
        peers=False,
    ),
    "without-metrics": Workload(
        "the chat of `latency` with metrics frozen, slow and killed: its p99 as a multiple of that with metrics alive",
        without_metrics,
        "p99_times_alive",
        is_more_better=False,
        connections=420,
        peers=False,
    ),
    "classes": Workload(
        "heartbeats while history pages saturate, then history pages while texts do: p99 of heartbeats, ms",
        classes,
        "critical_p99_ms",
        is_more_better=False,
        peers=False,
    ),
}
