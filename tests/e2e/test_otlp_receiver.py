"""The trace of one message arrives in the real Jaeger, straight and through the real OpenTelemetry collector."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from deploy.local.certificates import ensure_storage
from tests.helpers.operator import traceparent
from tests.helpers.people import People
from tests.helpers.stack import FAST_CONFIG, Stack, eventually, running_stack
from tests.helpers.tracing_programs import running_collector, running_jaeger

if TYPE_CHECKING:
    from pathlib import Path

# Nothing by chance: what is traced here was asked for.
COMMON = "[common]\ntrace_ratio = 0.0\nmetrics_interval_s = 1.0\n"
ARRIVES_S = 60.0
WAY = {
    ("edge-1", "text_message"), ("edge-1", "queue"), ("edge-1", "publish batch"), ("rooms-1", "store"),
    ("rooms-1", "commit"), ("edge-1", "deliver"),
}  # fmt: skip


async def _say_something(stack: Stack) -> str:
    """One message from one person to another; its trace id."""
    context, trace_id, _ = traceparent()
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice, bob = await people.person(), await people.person()
        room_id = await people.room(alice, bob)
        await alice.expect("text_message", {"text": "traced"}, room_id=room_id, traceparent=context)
        await bob.messages(room_id, 1)
    return trace_id


def test_jaeger_has_the_way_of_a_message(tmp_path: Path) -> None:
    with (
        running_jaeger(tmp_path / "jaeger") as jaeger,
        running_stack(config=FAST_CONFIG + COMMON, extra=["--otlp", f"http://{jaeger.otlp}"]) as stack,
    ):
        trace_id = asyncio.run(_say_something(stack))
        eventually(
            lambda: jaeger.spans(trace_id) >= WAY, timeout_s=ARRIVES_S, why=f"not all of {WAY} in Jaeger's trace"
        )
        assert jaeger.spans(trace_id) == WAY


def test_the_collector_takes_all_over_tls_and_hands_it_on(tmp_path: Path) -> None:
    authority, leaves = ensure_storage(tmp_path / "certificates", ["localhost"])
    certificate, key = leaves["localhost"]
    with (
        running_jaeger(tmp_path / "jaeger") as jaeger,
        running_collector(tmp_path / "collector", certificate=certificate, key=key, jaeger=jaeger.otlp) as collector,
        running_stack(
            config=f'{FAST_CONFIG}forward_ca_file = "{authority}"\n{COMMON}', extra=["--otlp", collector.url]
        ) as stack,
    ):
        trace_id = asyncio.run(_say_something(stack))
        eventually(lambda: jaeger.spans(trace_id) >= WAY, timeout_s=ARRIVES_S, why="the collector lost the trace")
        eventually(
            lambda: all(f'instance="{name}"' in collector.metrics() for name in stack.pids()),
            timeout_s=ARRIVES_S,
            why=f"the collector shows Prometheus not all of {stack.pids()}",
        )
        assert "\nparley_edge_" in collector.metrics()
        log = (tmp_path / "collector" / "log").read_text()
        assert '"kind": "exporter", "data_type": "logs"' in log
        assert "\terror\t" not in log


def test_a_receiver_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    _, leaves = ensure_storage(tmp_path / "theirs", ["localhost"])
    ours, _ = ensure_storage(tmp_path / "ours", ["localhost"])
    certificate, key = leaves["localhost"]
    with (
        running_collector(tmp_path / "collector", certificate=certificate, key=key, jaeger="127.0.0.1:9") as collector,
        running_stack(
            config=f'{FAST_CONFIG}forward_ca_file = "{ours}"\n{COMMON}', extra=["--otlp", collector.url]
        ) as stack,
    ):
        asyncio.run(_say_something(stack))
        eventually(
            lambda: [line for line in stack.log_events() if line["event"] == "telemetry cannot be sent on"],
            timeout_s=ARRIVES_S,
        )
        assert "parley" not in collector.metrics()
