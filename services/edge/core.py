"""The core: the parts that every message passes on its way in and out, and the circle in which they call each other.

connection → pump → publisher → (feed) → hub → flusher → connection
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.common.clock import Clock
from services.edge.config import EdgeConfig
from services.edge.decisions import Command
from services.edge.flusher import Flusher
from services.edge.hub import Hub
from services.edge.publisher import Publisher
from services.edge.qos.pump import Pump
from services.edge.traffic import Traffic


class Core:
    """Pump, publisher, hub and flusher. `bell` is rung when the feed has something to write.

    `start_command(command, done)` begins a command; `number` gives the ids of version-1 frames.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        start_command: Callable[[Command, Callable[[], None]], object],
        traffic: Traffic,
        number: Callable[[], int],
        clock: Clock,
        boot_id: str,
    ) -> None:
        self._clock = clock
        self.call_soon = asyncio.get_running_loop().call_soon
        self.bell = asyncio.Event()
        self.hub = Hub(wake=self._wake_flusher, wake_feed=self.bell.set, number=number, delivered=traffic.delivered)
        self.flusher = Flusher(
            call_soon=self.call_soon, deliver=self._deliver, frames=traffic.frames_sent, bytes_=traffic.bytes_sent
        )
        self.publisher = Publisher(
            boot_id=boot_id,
            texts_max=config.publish_texts_max,
            bytes_max=config.publish_bytes_max,
            batches_max=config.publish_batches_max,
            timeout_s=config.publish_timeout_s,
            wake_feed=self.bell.set,
            on_room=self._kick_pump,
            count_stored=traffic.count_stored,
        )
        self.pump = Pump(
            config.classes,
            concurrency=config.concurrency,
            texts=self.publisher,
            start_command=start_command,
            call_soon=self.call_soon,
            clock=clock,
            waits=traffic.queue_waits,
        )

    def _wake_flusher(self) -> None:
        self.flusher.wake()

    def _kick_pump(self) -> None:
        self.pump.kick()

    def _deliver(self) -> None:
        self.hub.deliver(self._clock.now())
