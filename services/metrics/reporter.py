"""reporter: at each interval, one line in the statistics file and one sample in the store; now and then, the graphs.

What fails here is logged and tried again at the next interval: a full disk costs lines, never the service.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.metrics.catalogue import numbers
from services.metrics.graph_data import DAY_S, HOUR_S
from services.metrics.painter import DRAW_S_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from services.common.clock import Clock
    from services.metrics.aggregate import Aggregate
    from services.metrics.catalogue import Numbers
    from services.metrics.graph_data import GraphData
    from services.metrics.stats_file import StatsFile
    from services.metrics.store import Store
    from services.metrics.summary import Statistics, Summary

# The first drawing comes soon, so that there are pictures, and matplotlib has looked through the fonts, before somebody
# ends a stack that ran for a minute; not at once, when all the services are starting.
FIRST_DRAWING_S = 15.0
# Who wants drawings seldom is not in such a hurry: then it is this part of the interval.
_FIRST_PART = 20
# How long the last graphs may hold up a shutdown, where the configured grace is not shorter.
LAST_DRAWING_S_MAX = 5.0
_log = get_logger(__name__)


class GraphPainter(Protocol):
    """Draws the graphs."""

    async def draw(self, data: list[GraphData], *, limit_s: float) -> list[Path]:
        """Draw all graphs of these periods, within that time, and return their paths. Raises ParleyError."""
        ...

    def picture(self, name: str, period_s: int, picture_format: str) -> bytes | None:
        """The picture that was drawn last; None where there is none."""
        ...

    async def warm_up(self) -> None:
        """A drawing will be wanted soon."""
        ...

    async def close(self) -> None:
        """There will be no more drawings."""
        ...


class Reporter:
    """Reports at regular times, once more at the end, and on request."""

    def __init__(
        self,
        *,
        aggregate: Aggregate,
        summary: Summary,
        stats_file: StatsFile,
        store: Store,
        painter: GraphPainter,
        clock: Clock,
    ) -> None:
        self._aggregate = aggregate
        self._summary = summary
        self._stats_file = stats_file
        self._store = store
        self._painter = painter
        self._clock = clock
        self._reporting = asyncio.Lock()

    def statistics(self) -> Statistics:
        """The numbers as they stand now."""
        return self._summary.statistics(now=self._clock.now(), monotonic=self._clock.monotonic())

    async def report_forever(self, interval_s: float) -> None:
        """Write a line at the end of every interval."""
        due = self._clock.monotonic()
        while True:
            due += interval_s
            if due <= self._clock.monotonic():
                # Intervals that were slept through, by a laptop for example, are not made up for.
                due = self._clock.monotonic() + interval_s
            await self._clock.sleep(due - self._clock.monotonic())
            # A line that is begun is finished, also when this task is ended: half of it would count messages twice.
            await asyncio.shield(self.report())

    async def draw_forever(self, interval_s: float) -> None:
        """Draw the graphs soon, and then at the end of every interval."""
        await self._clock.sleep(max(min(interval_s, FIRST_DRAWING_S), interval_s / _FIRST_PART))
        while True:
            try:
                await self.draw()
            except ParleyError as error:
                _log.warning("graphs not drawn", code=error.code, reason=error.message)
            await self._clock.sleep(interval_s)

    async def report(self) -> None:
        """End the interval: write its line, keep its sample."""
        async with self._reporting:
            statistics = self.statistics()
            hourly, counted = self._aggregate.hourly(), self._aggregate.checkpoints()
            self._summary.end_interval(monotonic=self._clock.monotonic())
            try:
                timestamp = datetime.fromtimestamp(statistics.at, UTC)
                await asyncio.to_thread(self._stats_file.append, timestamp, statistics.values)
            except OSError as error:
                _log.error("statistics not written", exc_info=error)
            try:
                await self._store.keep(statistics.sample, hourly, counted)
            except ParleyError as error:
                _log.error("sample not kept", code=error.code, reason=error.message)
            else:
                self._aggregate.strike_hourly(hourly)

    async def draw(self, *, limit_s: float = DRAW_S_MAX) -> Sequence[Path]:
        """Draw the graphs now. Raises ParleyError, `unavailable` while a drawing is under way."""
        now = self._clock.now()
        data = [await self._store.graph_data(now=now, period_s=period_s) for period_s in (DAY_S, HOUR_S)]
        return await self._painter.draw(data, limit_s=limit_s)

    async def graph(self, name: str, period_s: int) -> Numbers:
        """What a graph shows, as numbers. Raises KeyError, ParleyError."""
        return numbers(name, await self._store.graph_data(now=self._clock.now(), period_s=period_s))

    async def picture(self, name: str, period_s: int, picture_format: str) -> bytes | None:
        """The picture that was drawn last; None where there is none."""
        return await asyncio.to_thread(self._painter.picture, name, period_s, picture_format)

    async def prepare_end(self, is_near: asyncio.Event) -> None:
        """Once the end is near, see to it that the last graphs are ready sooner."""
        await is_near.wait()
        try:
            await self._painter.warm_up()
        except OSError as error:
            _log.warning("drawing cannot be prepared", exc_info=error)

    async def finish(self, *, grace_s: float) -> None:
        """Write the last line and draw the last graphs, in bounded time."""
        await self.report()
        limit_s = min(grace_s, LAST_DRAWING_S_MAX)
        try:
            await self.draw(limit_s=limit_s)
        except ParleyError as error:
            _log.warning("last graphs not drawn", code=error.code, reason=error.message)
        finally:
            await self._painter.close()
