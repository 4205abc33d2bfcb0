from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import services.metrics
from services.common.db import Database, migrate
from services.metrics.logs.records import LEVELS, LogQuery, Record
from services.metrics.logs.store import LogStore
from services.metrics.store import Bounds
from tests.helpers.instances import T0

TRACE = "ab" * 16


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'metrics.db'}"
    migrate(url, Path(services.metrics.__file__).with_name("migrations"))
    database = Database(url, readers=1)
    yield database
    await database.close()


def record(number: int, *, level: str = "info", instance: str = "edge-1", trace_id: str = "") -> Record:
    return Record(
        time_ns=number, service="edge", instance=instance, level=LEVELS[level], body=f"line {number}", trace_id=trace_id
    )


def numbers(found: list[Record]) -> list[int]:
    return [one.time_ns for one in found]


async def test_the_newest_come_first_and_can_be_searched(database: Database) -> None:
    store = LogStore(database, Bounds(100, 10**6, 3600))
    kept = [record(1, level="error"), record(2, instance="rooms-1"), record(3, trace_id=TRACE), record(4)]
    assert await store.keep(kept, now=T0) == 0
    assert await store.newest(LogQuery(10)) == kept[::-1]
    assert numbers(await store.newest(LogQuery(2))) == [4, 3]
    assert numbers(await store.newest(LogQuery(10, level_min=LEVELS["warning"]))) == [1]
    assert numbers(await store.newest(LogQuery(10, instance="rooms-1"))) == [2]
    assert numbers(await store.newest(LogQuery(10, trace_id=TRACE))) == [3]
    assert numbers(await store.newest(LogQuery(10, trace_id=TRACE, level_min=LEVELS["error"]))) == []


async def test_number_bytes_and_age_are_bounded(database: Database) -> None:
    store = LogStore(database, Bounds(5, 10**6, 100))
    assert await store.keep([record(n) for n in range(8)], now=T0) == 3
    assert numbers(await store.newest(LogQuery(100))) == [7, 6, 5, 4, 3]
    assert await store.keep([record(8)], now=T0 + 200) == 0  # they were old
    assert numbers(await store.newest(LogQuery(100))) == [8]
    small = LogStore(database, Bounds(1000, 2_000, 1e9))
    await small.keep([record(n) for n in range(9, 60)], now=T0 + 200)
    assert 1 <= len(await small.newest(LogQuery(100))) < 10


@pytest.mark.parametrize(("level", "name"), [(1, "debug"), (9, "info"), (14, "warning"), (24, "critical")])
def test_levels_have_names(level: int, name: str) -> None:
    assert Record(time_ns=1, service="edge", instance="edge-1", level=level, body="x").level_name == name
