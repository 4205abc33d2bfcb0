"""The core: the parts that every message passes on its way in and out, and the circle in which they call each other.

connection → pump → publisher → (feed) → hub → flusher → connection
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from functools import partial

from services.common.clock import Clock
from services.edge.client_traces import WishedTraces
from services.edge.config import EdgeConfig
from services.edge.connection import Connection
from services.edge.decisions import Command
from services.edge.flusher import Flusher
from services.edge.hub import Hub
from services.edge.instances import Instances
from services.edge.message_spans import MessageSpans
from services.edge.publisher import Publisher
from services.edge.qos.pump import Pump
from services.edge.routes import Routes
from services.edge.sampling import Sampler
from services.edge.traffic import Traffic


class Core:
    """Pump, publisher, hub and flusher. `bell` is rung when the feed has something to write.

    With several rooms instances there are several publishers, and bells, in `instances`; `publisher` is all of them.
    `start_command(command, done)` begins a command, `number` gives the ids of version-1 frames, `send_file` brings a
    file to a version-1 connection.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        start_command: Callable[[Command, Callable[[], None]], object],
        send_file: Callable[[Connection, str, str, str], object],
        traffic: Traffic,
        number: Callable[[], int],
        clock: Clock,
        boot_id: str,
        routes: Routes,
    ) -> None:
        self._clock = clock
        self.call_soon = asyncio.get_running_loop().call_soon
        self.bell = asyncio.Event()
        wake, wake_feed, delivered = self._wake_flusher, self._wake_feeds, traffic.delivered
        self.hub = Hub(wake=wake, wake_feed=wake_feed, number=number, delivered=delivered, send_file=send_file)
        self.flusher = Flusher(
            call_soon=self.call_soon, deliver=self._deliver, frames=traffic.frames_sent, bytes_=traffic.bytes_sent
        )
        self.wished_traces = WishedTraces()
        self.spans = self._make_spans(config)
        make_publisher = partial(
            Publisher,
            boot_id=boot_id,
            texts_max=config.publish_texts_max,
            bytes_max=config.publish_bytes_max,
            batches_max=config.publish_batches_max,
            timeout_s=config.publish_timeout_s,
            count_stored=traffic.count_stored,
            next_number=itertools.count(1).__next__,
            spans=self.spans,
        )
        self.instances: Instances | None = None
        self.publisher: Publisher | Instances
        if len(routes.targets) == 1:
            self.publisher = make_publisher(wake_feed=self.bell.set, on_room=self._kick_pump)
        else:
            self.publisher = self.instances = Instances(
                routes,
                hub=self.hub,
                make_publisher=lambda wake, on_room: make_publisher(wake_feed=wake, on_room=on_room),
                on_room=self._kick_pump,
                texts_max=config.publish_texts_max,
                bytes_max=config.publish_bytes_max,
                clock=clock,
            )
        self.pump = Pump(
            config.classes,
            concurrency=config.concurrency,
            texts=self.publisher,
            start_command=start_command,
            call_soon=self.call_soon,
            clock=clock,
            waits=traffic.queue_waits,
            accepted=traffic.queue_accepted,
            refused=traffic.queue_refused,
        )

    def _make_spans(self, config: EdgeConfig) -> MessageSpans:
        return MessageSpans(
            Sampler(ratio=config.trace_ratio, rate_max=config.trace_rate_max, uniform=random.random),
            clock=self._clock,
            recipients=lambda room_id: len(self.hub.subscribers(room_id)),
            has_given=self.hub.has_given,
            after_turn=self.call_soon,
            on_wish=self.wished_traces.add,
        )

    def _wake_feeds(self) -> None:
        if self.instances is None:
            self.bell.set()
        else:
            self.instances.wake()

    def _wake_flusher(self) -> None:
        self.flusher.wake()

    def _kick_pump(self) -> None:
        self.pump.kick()

    def _deliver(self) -> bool:
        return self.hub.deliver(self._clock.now())
