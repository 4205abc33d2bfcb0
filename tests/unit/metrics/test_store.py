from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine as make_engine
from sqlalchemy import func, insert, inspect, select

import services.metrics
from services.common.db import Database, migrate
from services.metrics import tables
from services.metrics.graph_data import HOURS, Sample
from services.metrics.points import Checkpoint, Run, Source
from services.metrics.store import CHECKPOINT_S, PRUNE_ROWS, RETENTION_S, TIMELINE_POINTS, Store
from tests.helpers.instances import T0, sample

HOUR = int(T0 // 3600)
MIGRATIONS = Path(services.metrics.__file__).with_name("migrations")
EDGE = Source("edge", "edge-1")


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'data' / 'metrics.db'}"
    migrate(url, MIGRATIONS)
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, readers=1)
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


async def count(database: Database, table: object) -> int:
    return await database.read(
        lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
    )


def test_migrations_and_tables_say_the_same(url: str) -> None:
    engine = make_engine(url)
    found = inspect(engine)
    for table in tables.metadata.sorted_tables:
        columns = {
            column["name"]: (str(column["type"]), column["nullable"]) for column in found.get_columns(table.name)
        }
        assert columns == {
            column.name: (str(column.type.compile(engine.dialect)), column.nullable) for column in table.columns
        }
        indexes = {(index["name"], *index["column_names"]) for index in found.get_indexes(table.name)}
        assert indexes == {(index.name, *index.columns.keys()) for index in table.indexes}
    engine.dispose()


async def test_an_interval_is_read_back(store: Store) -> None:
    await store.keep(sample(T0 - 60), {HOUR - 1: 5}, [])
    await store.keep(sample(T0, None), {HOUR - 1: 2, HOUR: 1}, [])
    data = await store.graph_data(now=T0)
    assert data.timeline == [sample(T0 - 60), sample(T0, None)]
    assert data.hourly == {HOUR - 1: 7, HOUR: 1}


async def test_only_the_last_day_is_shown(store: Store) -> None:
    for at in (T0 - 86_401, T0 - 86_399, T0 + 3600):  # the last one from before the clock was set back
        await store.keep(sample(at), {int(at // 3600): 1}, [])
    data = await store.graph_data(now=T0)
    assert [point.at for point in data.timeline] == [T0 - 86_399]
    assert set(data.hourly) <= set(range(HOUR - HOURS + 1, HOUR + 1))


async def test_many_samples_are_joined_rightly(store: Store, database: Database) -> None:
    rows = [Sample(T0 - n, 10, 1.0, 1.0, 1.0, 0, None, None, None, 2.0)._asdict() for n in range(0, 86_000, 2)]
    rows.append(Sample(T0 - 0.5, 90, 11.0, 9.0, 50.0, 4, 7.0, 7.0, 7.0, 2.0)._asdict())
    await database.write(lambda connection: connection.execute(insert(tables.samples), rows) and None)
    data = await store.graph_data(now=T0)
    assert TIMELINE_POINTS - 2 <= len(data.timeline) <= TIMELINE_POINTS + 2
    assert sum(point.requests for point in data.timeline) == 43_000 * 10 + 90
    last = data.timeline[-1]
    total = last.requests
    assert last.processing_mean_ms == pytest.approx(((total - 90) * 1.0 + 90 * 11.0) / total)
    assert last.processing_p99_ms == 50.0
    assert (last.latencies, last.latency_mean_ms) == (4, 7.0)
    assert data.timeline[0].latency_mean_ms is None
    assert {point.messages_per_second for point in data.timeline} == {2.0}
    assert [point.at for point in data.timeline] == sorted(point.at for point in data.timeline)


async def test_checkpoints_are_replaced_and_read_back(store: Store) -> None:
    first = Checkpoint(EDGE, 5, (Run("a", (("le", "+Inf"),), 2**62, 7), Run("b", (), 1, 0.25)))
    await store.keep(sample(T0), {}, [first, Checkpoint(Source("rooms", "edge-1"), 1, ())])
    await store.keep(sample(T0 + 1), {}, [first._replace(time_ns=2**63 - 1)])
    kept = await store.checkpoints(limit=10)
    assert kept == [first._replace(time_ns=2**63 - 1), Checkpoint(Source("rooms", "edge-1"), 1, ())]
    assert await store.checkpoints(limit=1) == kept[:1]


async def test_an_unreadable_checkpoint_is_left_out(store: Store, database: Database) -> None:
    row = {"service": "edge", "instance": "x", "kept_at": T0, "time_ns": 1, "runs": b'[["a"]]'}
    await database.write(lambda connection: connection.execute(insert(tables.checkpoints), [row]) and None)
    assert await store.checkpoints(limit=10) == []


async def test_what_is_old_goes(store: Store, database: Database) -> None:
    old = T0 - RETENTION_S - 7200
    await store.keep(sample(old), {int(old // 3600): 3}, [Checkpoint(EDGE, 1, ())])
    await store.keep(sample(T0 - CHECKPOINT_S - 1), {}, [Checkpoint(EDGE._replace(instance="gone"), 1, ())])
    await store.keep(sample(T0), {HOUR: 1}, [])
    assert await count(database, tables.samples) == 2
    assert await count(database, tables.hourly_messages) == 1
    assert await store.checkpoints(limit=10) == []


async def test_checkpoints_are_bounded_in_bytes_and_the_newest_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.metrics.store.CHECKPOINT_BYTES_MAX", 5_000)
    run = Run("x" * 1_000, (), 1, 1)
    for turn in range(10):
        counted = [Checkpoint(Source(service, f"{turn}"), turn, (run,)) for service in ("edge", "rooms")]
        await store.keep(sample(T0 + turn), {}, counted)
    assert [one.time_ns for one in await store.checkpoints(limit=100)] == [9, 9, 8, 8]


async def test_a_clock_that_jumped_ahead_costs_little(store: Store, database: Database) -> None:
    rows = [sample(T0 - n)._asdict() for n in range(2 * PRUNE_ROWS)]
    await database.write(lambda connection: connection.execute(insert(tables.samples), rows) and None)
    await store.keep(sample(T0 + 2 * RETENTION_S), {}, [])
    assert await count(database, tables.samples) == PRUNE_ROWS + 1


async def test_everything_survives_a_restart(url: str) -> None:
    for messages in (3, 4):
        migrate(url, MIGRATIONS)
        database = Database(url)
        await Store(database).keep(sample(T0), {HOUR: messages}, [])
        await database.close()
    database = Database(url)
    data = await Store(database).graph_data(now=T0)
    await database.close()
    assert data.hourly == {HOUR: 7}
    assert sum(point.requests for point in data.timeline) == 20
