"""The statistics and the graphs after a load test: they say what was counted outside."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from parley.metrics.v1 import metrics_pb2

from tests.helpers.operator import Operator
from tests.helpers.stack import ROOT, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.stack import Stack

CLIENTS = 20
TEXTS = 10
COUNTED_S = 40.0
GRAPHS = {
    "processing_times", "latency_timeline", "queue_wait", "connections", "deliveries", "fan_out", "commit_batches",
    "hourly_messages",
}  # fmt: skip
CONFIG = """
[common]
metrics_interval_s = 0.5
[auth]
bcrypt_rounds = 4
throttle = false
[metrics]
stats_interval_s = 1.0
graphs_interval_s = 86_400.0 # one drawing at a time, which is the one that is asked for
stop_grace_s = 20.0
"""


@pytest.fixture(scope="module")
def loaded() -> Iterator[Stack]:
    """A stack that a load test has just been run on."""
    with running_stack(config=CONFIG) as stack:
        done = subprocess.run(
            [sys.executable, "tests/load_test.py", str(CLIENTS), "--home", str(stack.home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield stack


def last_line(stack: Stack) -> dict[str, float]:
    """The newest line of the statistics file; before the first one is written, that nothing was sent."""
    file = stack.home / "logs" / "performance_stats.json"
    lines = file.read_text().splitlines() if file.exists() else []
    return dict(json.loads(lines[-1])["stats"]) if lines else {"messages_sent": 0}


async def statistics(operator: Operator) -> dict[str, float]:
    return dict((await operator.metrics("GetStatistics", metrics_pb2.GetStatisticsRequest())).values)


async def test_statistics_agree_with_the_load_test_s_count(loaded: Stack) -> None:
    operator = Operator(loaded)
    expected = {
        "messages_sent": CLIENTS * TEXTS,
        "messages_received": CLIENTS * TEXTS,
        "messages_stored": CLIENTS * TEXTS,
        "messages_delivered": CLIENTS * TEXTS * CLIENTS,
        "registrations": CLIENTS,
        "logins": CLIENTS,
        "total_connections": CLIENTS,
        "open_connections": 0,
    }
    async with asyncio.timeout(COUNTED_S):
        while (found := await statistics(operator)) | expected != found:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.2)
        while last_line(loaded)["messages_sent"] != CLIENTS * TEXTS:  # noqa: ASYNC110 - written once a second
            await asyncio.sleep(0.2)


async def graph(operator: Operator, name: str, **more: Any) -> Any:
    return await operator.metrics("GetGraph", metrics_pb2.GetGraphRequest(name=name, **more))


async def test_graphs_show_its_data(loaded: Stack) -> None:
    operator = Operator(loaded)
    drawn = await operator.metrics("DrawGraphs", metrics_pb2.DrawGraphsRequest())
    names = {path.rpartition("/")[2] for path in drawn.paths}
    assert names >= {f"{name}.{kind}" for name in GRAPHS for kind in ("png", "svg")}
    assert names >= {f"{name}_hour.{kind}" for name in GRAPHS - {"hourly_messages"} for kind in ("png", "svg")}
    async with asyncio.timeout(COUNTED_S):
        while sum((await graph(operator, "hourly_messages")).series[0].values) != CLIENTS * TEXTS:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    for name in sorted(GRAPHS):
        shown = await graph(operator, name, period=metrics_pb2.GRAPH_PERIOD_HOUR, format=metrics_pb2.GRAPH_FORMAT_PNG)
        assert shown.title
        assert shown.picture.startswith(b"\x89PNG")
        assert shown.times_ms == sorted(shown.times_ms)
        assert all(len(series.values) == len(shown.times_ms) for series in shown.series)
        if name not in ("queue_wait", "connections"):  # nothing may have had to wait, and nobody be there by now
            assert any(value > 0 for series in shown.series for value in series.values if not math.isnan(value)), name
    svg = await graph(operator, "fan_out", format=metrics_pb2.GRAPH_FORMAT_SVG)
    assert b"<svg" in svg.picture


def test_the_last_graphs_are_drawn_at_the_end(loaded: Stack) -> None:
    """Runs last: it ends the stack."""
    before = time.time()
    assert loaded.stop() == 0
    pictures = list((loaded.home / "monitoring" / "graphs").glob("*.png"))
    assert len(pictures) == 2 * len(GRAPHS) - 1
    # On a machine that is too busy for the last pictures, that is what it says.
    assert all(picture.stat().st_mtime >= before - 1 for picture in pictures) or "last graphs not drawn" in {
        event["event"] for event in loaded.log_events()
    }
