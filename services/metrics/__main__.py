"""The metrics service: `python -m services.metrics [--config FILE]`. Wires, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from services.common.clock import Clock, SystemClock
from services.common.config import load_from_command_line
from services.common.db import Database, migrate
from services.common.process import Stop, run, write_ready
from services.common.rpc_server import RpcServer
from services.common.telemetry import Telemetry
from services.metrics import collectors, otlp, servicer
from services.metrics.aggregate import Aggregate
from services.metrics.config import MetricsConfig
from services.metrics.forwarder import forwarding
from services.metrics.gate import ExportGate
from services.metrics.logs.store import LogStore
from services.metrics.painter import Painter
from services.metrics.reporter import Reporter
from services.metrics.stats_file import StatsFile
from services.metrics.store import Store
from services.metrics.summary import ACKNOWLEDGED, Summary
from services.metrics.traces.store import TraceStore

# Calls that are under way at the end get this long; they answer in milliseconds, but for streams of health checks.
_CALLS_S = 0.2


async def serve(config: MetricsConfig, stop: Stop) -> None:
    """Build everything, serve until `stop` is set, take everything down in order."""
    clock = SystemClock()
    await asyncio.to_thread(migrate, config.database, Path(__file__).with_name("migrations"))
    async with AsyncExitStack() as stack:
        database = Database(config.database, readers=1)
        stack.push_async_callback(database.close)
        aggregate = _make_aggregate(config, clock)
        reporter = await _make_reporter(config, aggregate, Store(database), clock)
        traces, logs = TraceStore(database, config.span_bounds), LogStore(database, config.log_bounds)
        telemetry = Telemetry(config, "metrics")
        counters = telemetry.counters
        server = RpcServer(config, allow={**otlp.ALLOW, **servicer.ALLOW}, interceptors=[ExportGate(counters)])
        servicer.register(server.grpc, reporter, traces, logs, clock=clock)
        forward = await stack.enter_async_context(forwarding(config.receiver, counters=counters, clock=clock))
        collectors.register(
            server.grpc,
            aggregate=aggregate,
            traces=traces,
            logs=logs,
            counters=counters,
            clock=clock,
            max_points=config.max_points_per_export,
            forward=forward,
        )
        await server.start()
        stack.push_async_callback(server.stop, _CALLS_S)
        # The last line and the last graphs come when this process's own last numbers are in.
        stack.push_async_callback(reporter.finish, grace_s=config.stop_grace_s)
        prometheus = telemetry.start()
        stack.push_async_callback(telemetry.shutdown)
        write_ready(config, {"grpc": server.address, "prometheus": prometheus})
        # A loop that fails is a defect: it ends the process, which is then started again.
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(reporter.report_forever(config.stats_interval_s), name="report"),
                tasks.create_task(reporter.draw_forever(config.graphs_interval_s), name="draw"),
                tasks.create_task(reporter.prepare_end(stop.is_near), name="prepare end"),
            ]
            await stop.wait()
            for loop in loops:
                loop.cancel()


def _make_aggregate(config: MetricsConfig, clock: Clock) -> Aggregate:
    return Aggregate(
        monotonic=clock.monotonic(),
        stale_after_s=config.stale_after_s,
        max_instances=config.max_instances,
        max_series=config.max_series_per_instance,
        max_bytes=config.max_series_bytes,
        hourly_metric=ACKNOWLEDGED,
    )


async def _make_reporter(config: MetricsConfig, aggregate: Aggregate, store: Store, clock: Clock) -> Reporter:
    aggregate.restore(await store.checkpoints(limit=config.max_instances))
    files = StatsFile(config.statistics_path)
    await asyncio.to_thread(files.repair)
    painter = Painter(config.graphs_path, cache=config.home / "data" / "matplotlib")
    summary = Summary(aggregate, monotonic=clock.monotonic())
    return Reporter(aggregate=aggregate, summary=summary, stats_file=files, store=store, painter=painter, clock=clock)


if __name__ == "__main__":
    loaded = load_from_command_line(MetricsConfig, service="metrics")
    run(partial(serve, loaded), service="metrics", config=loaded)
