"""Feeds: one stream to each rooms instance, and the watch over those that stall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from services.edge.core import Core
from services.edge.feed import Feed, Stream
from services.edge.instances import Lane


class Feeds:
    """The feeds of an edge. `make_feed` is given what differs between them; `open_stream(target)` begins a stream."""

    def __init__(
        self, core: Core, targets: Sequence[str], make_feed: Callable[..., Feed], open_stream: Callable[[str], Stream]
    ) -> None:
        self._instances = core.instances
        self._feeds: dict[str, Feed] = {}
        if core.instances is None:
            self._feeds[targets[0]] = make_feed(
                open_stream=partial(open_stream, targets[0]), bell=core.bell, publisher=core.publisher, hub=core.hub
            )
            return
        for lane in core.instances.lanes:
            self._feeds[lane.target] = make_feed(
                open_stream=partial(open_stream, lane.target),
                bell=lane.bell,
                publisher=lane.publisher,
                hub=lane,
                on_live=partial(core.instances.set_live, lane),
            )

    async def run(self) -> None:
        """Keep the streams open until cancelled; raises what one of them failed with."""
        async with asyncio.TaskGroup() as vital:
            for target, feed in self._feeds.items():
                vital.create_task(feed.run(), name=f"feed of {target}")
            if self._instances is not None:
                vital.create_task(self._instances.watch(self._heard_at, self._cut), name="rooms watch")

    def cut(self, target: str) -> None:
        """End the stream to an instance, which does not answer any more; another one is opened at once."""
        self._feeds[target].cut()

    def _heard_at(self, lane: Lane) -> float | None:
        return self._feeds[lane.target].heard_at

    def _cut(self, lane: Lane) -> None:
        self.cut(lane.target)
