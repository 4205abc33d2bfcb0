from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import services.metrics
from services.common.clock import FakeClock
from services.common.db import Database, migrate
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.metrics.aggregate import Aggregate
from services.metrics.graph_data import DAY_S, HOUR_S, GraphData
from services.metrics.points import Point, Source
from services.metrics.reporter import FIRST_DRAWING_S, Reporter
from services.metrics.stats_file import StatsFile
from services.metrics.store import Store
from services.metrics.summary import ACKNOWLEDGED, Summary
from tests.helpers.instances import T0


class FakePainter:
    def __init__(self) -> None:
        self.drawn: list[tuple[GraphData, float]] = []
        self.error: ParleyError | None = None
        self.is_warm = False

    def picture(self, name: str, period_s: int, picture_format: str) -> bytes | None:
        return f"{name} {period_s} {picture_format}".encode()

    async def warm_up(self) -> None:
        self.is_warm = True

    async def close(self) -> None:
        self.is_warm = False

    async def draw(self, data: list[GraphData], *, limit_s: float) -> list[Path]:
        assert [each.period_s for each in data] == [DAY_S, HOUR_S]
        self.drawn.append((data[0], limit_s))
        if self.error is not None:
            raise self.error
        return [Path("a.png")]


class Stage:
    """A reporter with a real store and file, and a clock that stands still."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(T0)
        self.path = directory / "performance_stats.json"
        url = f"sqlite:///{directory / 'metrics.db'}"
        migrate(url, Path(services.metrics.__file__).with_name("migrations"))
        self.database = Database(url, readers=1)
        self.store = Store(self.database)
        self.painter = FakePainter()
        self.aggregate = Aggregate(
            monotonic=0.0, stale_after_s=30, max_instances=5, max_series=10, hourly_metric=ACKNOWLEDGED
        )
        self.reporter = Reporter(
            aggregate=self.aggregate,
            summary=Summary(self.aggregate, monotonic=0.0),
            stats_file=StatsFile(self.path),
            store=self.store,
            painter=self.painter,
            clock=self.clock,
        )

    def count(self, messages: int) -> None:
        point = Point(ACKNOWLEDGED, (), True, messages, int(T0 * 1e9), int(self.clock.now() * 1e9))
        self.aggregate.ingest(Source("edge", "edge-1"), [point], now=self.clock.now(), monotonic=self.clock.monotonic())

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    async def hourly(self) -> int:
        return sum((await self.store.graph_data(now=self.clock.now())).hourly.values())


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.database.close()


async def test_a_line_and_a_sample_each_interval(stage: Stage) -> None:
    task = asyncio.create_task(stage.reporter.report_forever(60.0))
    for n in range(1, 4):
        await stage.clock.wait_for_sleepers()
        await stage.clock.advance(59.0)
        stage.count(n * 60)
        stage.clock.advance(1.0)
        await stage.clock.wait_for_sleepers()
        assert [line["stats"]["messages_sent"] for line in stage.lines()] == [60 * k for k in range(1, n + 1)]
    assert [line["timestamp"][11:19] for line in stage.lines()] == ["08:01:00", "08:02:00", "08:03:00"]
    assert [line["stats"]["uptime_seconds"] for line in stage.lines()] == [60.0, 120.0, 180.0]
    assert {line["stats"]["interval_seconds"] for line in stage.lines()} == {60.0}
    data = await stage.store.graph_data(now=stage.clock.now())
    assert [point.at - T0 for point in data.timeline] == [60.0, 120.0, 180.0]
    assert sum(data.hourly.values()) == 180
    task.cancel()


async def test_intervals_that_were_slept_through_are_not_made_up_for(stage: Stage) -> None:
    task = asyncio.create_task(stage.reporter.report_forever(60.0))
    await stage.clock.wait_for_sleepers()
    stage.clock.advance(3600.0)
    await stage.clock.wait_for_sleepers()
    assert len(stage.lines()) == 1
    stage.clock.advance(60.0)
    await stage.clock.wait_for_sleepers()
    assert len(stage.lines()) == 2
    task.cancel()


async def test_a_disk_that_is_full_costs_lines_only(stage: Stage) -> None:
    stage.path.mkdir()  # so that nothing can be appended
    stage.count(5)
    await stage.reporter.report()
    stage.path.rmdir()
    await stage.reporter.report()
    assert len(stage.lines()) == 1
    assert await stage.hourly() == 5


async def test_what_could_not_be_kept_is_kept_at_the_next_interval(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ParleyError(ErrorCode.UNAVAILABLE, "the storage does not answer")

    stage.count(5)
    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "keep", fail)
        await stage.reporter.report()
    assert len(stage.lines()) == 1
    assert await stage.hourly() == 0
    stage.count(7)
    await stage.reporter.report()
    assert await stage.hourly() == 7
    await stage.reporter.report()
    assert await stage.hourly() == 7


async def test_a_line_that_is_begun_is_finished_when_the_service_ends(stage: Stage) -> None:
    reached = asyncio.Event()
    keep = stage.store.keep

    async def keep_slowly(*arguments: object) -> None:
        reached.set()
        await asyncio.sleep(0.05)
        await keep(*arguments)  # type: ignore[arg-type]

    stage.store.keep = keep_slowly  # type: ignore[method-assign]
    task = asyncio.create_task(stage.reporter.report_forever(60.0))
    stage.count(5)
    await stage.clock.wait_for_sleepers()
    stage.clock.advance(60.0)
    await reached.wait()
    task.cancel()
    await stage.reporter.finish(grace_s=5.0)
    assert len(stage.lines()) == 2
    assert await stage.hourly() == 5


@pytest.mark.parametrize(("interval_s", "first_s"), [(300.0, FIRST_DRAWING_S), (5.0, 5.0), (3600.0, 180.0)])
async def test_graphs_are_drawn_at_their_interval_even_after_one_failed(
    stage: Stage, interval_s: float, first_s: float
) -> None:
    task = asyncio.create_task(stage.reporter.draw_forever(interval_s))
    stage.painter.error = ParleyError(ErrorCode.UNAVAILABLE, "a drawing is under way")
    for wait_s in (first_s, interval_s, interval_s):
        await stage.clock.wait_for_sleepers()
        stage.clock.advance(wait_s)
    await stage.clock.wait_for_sleepers()
    assert [data.now - T0 for data, _ in stage.painter.drawn] == [
        first_s, first_s + interval_s, first_s + 2 * interval_s,
    ]  # fmt: skip
    task.cancel()


@pytest.mark.parametrize(("grace_s", "limit_s"), [(5.0, 5.0), (2.0, 2.0), (60.0, 5.0)])
async def test_the_end_is_one_line_and_one_drawing_in_bounded_time(
    stage: Stage, grace_s: float, limit_s: float
) -> None:
    stage.count(5)
    stage.painter.error = ParleyError(ErrorCode.UNAVAILABLE, "too long")
    await stage.reporter.finish(grace_s=grace_s)
    assert [line["stats"]["messages_sent"] for line in stage.lines()] == [5]
    ((data, limit),) = stage.painter.drawn
    assert limit == limit_s
    assert len(data.timeline) == 1  # the sample of the last line is in the picture


async def test_statistics_are_what_the_next_line_says(stage: Stage) -> None:
    stage.count(5)
    await stage.clock.advance(10.0)
    now = stage.reporter.statistics()
    await stage.reporter.report()
    assert stage.lines()[0]["stats"] == now.values
    assert now.at == T0 + 10


async def test_drawing_on_request_says_where_or_why_not(stage: Stage) -> None:
    assert await stage.reporter.draw() == [Path("a.png")]
    stage.painter.error = ParleyError(ErrorCode.UNAVAILABLE, "a drawing is under way")
    with pytest.raises(ParleyError, match="under way"):
        await stage.reporter.draw()


async def test_the_end_is_prepared_when_it_is_near(stage: Stage) -> None:
    is_near = asyncio.Event()
    preparing = asyncio.create_task(stage.reporter.prepare_end(is_near))
    await asyncio.sleep(0)
    assert not stage.painter.is_warm
    is_near.set()
    await preparing
    assert stage.painter.is_warm
    await stage.reporter.finish(grace_s=1.0)
    assert not stage.painter.is_warm


async def test_a_graph_as_numbers_and_as_a_picture(stage: Stage) -> None:
    stage.count(60)
    await stage.reporter.report()
    shown = await stage.reporter.graph("latency_timeline", HOUR_S)
    assert shown.times == [T0]
    assert shown.series["Messages/s"] == [60.0]
    assert await stage.reporter.picture("latency_timeline", HOUR_S, "svg") == b"latency_timeline 3600 svg"
    with pytest.raises(KeyError):
        await stage.reporter.graph("nonsense", HOUR_S)
