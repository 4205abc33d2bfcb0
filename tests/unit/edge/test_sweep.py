from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from services.common.clock import FakeClock
from services.edge.directory import Directory
from services.edge.sweep import Sweep
from services.edge.token_bucket import UserBuckets


@dataclass(eq=False)
class Connection:
    id: int
    checks: list[float] = field(default_factory=list)

    def check(self, now: float) -> None:
        self.checks.append(now)


class Publisher:
    def __init__(self) -> None:
        self.expiries: list[float] = []

    def expire(self, now: float) -> None:
        self.expiries.append(now)


async def test_everything_is_looked_at_once_a_second() -> None:
    clock = FakeClock()
    directory: Directory[Any] = Directory()
    connections = [Connection(number) for number in range(2_500)]
    for connection in connections:
        directory.add(connection)
    publisher = Publisher()
    buckets = UserBuckets(rate=1, burst=2)
    buckets.of("u1").take(0.0)
    sweep = Sweep(directory=directory, publisher=cast("Any", publisher), buckets=buckets, clock=clock)
    task = asyncio.create_task(sweep.run())
    await clock.wait_for_sleepers()
    for _ in range(60):
        await clock.advance(1)
    assert {len(connection.checks) for connection in connections} == {60}
    assert publisher.expiries == [float(second) for second in range(1, 61)]
    assert len(buckets) == 0
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
