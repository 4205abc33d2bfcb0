"""The sweep: one timer for everything that ends by the clock, instead of one timer per connection."""

from __future__ import annotations

from typing import Final

from services.common.clock import Clock
from services.edge.connection import Connection
from services.edge.directory import Directory
from services.edge.instances import Instances
from services.edge.publisher import Publisher
from services.edge.token_bucket import UserBuckets

INTERVAL_S: Final = 1.0
"""How late a time-out may be."""

_SLICE: Final = 1_000
"""Connections looked at in one turn of the loop: less than a millisecond of work."""

_BUCKETS_EVERY: Final = 60


class Sweep:
    """Looks at every connection, text and bucket once a second."""

    def __init__(
        self, *, directory: Directory[Connection], publisher: Publisher | Instances, buckets: UserBuckets, clock: Clock
    ) -> None:
        self._directory = directory
        self._publisher = publisher
        self._buckets = buckets
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        count = 0
        while True:
            await self._clock.sleep(INTERVAL_S)
            count += 1
            now = self._clock.monotonic()
            self._publisher.expire(now)
            if count % _BUCKETS_EVERY == 0:
                self._buckets.sweep(now)
            connections = list(self._directory)
            for start in range(0, len(connections), _SLICE):
                for connection in connections[start : start + _SLICE]:
                    connection.check(now)
                await self._clock.sleep(0)
