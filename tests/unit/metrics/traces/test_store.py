from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

import services.metrics
from services.common.db import Database, migrate
from services.common.errors import ParleyError
from services.metrics.store import Bounds
from services.metrics.traces.spans import Link, Span, TraceQuery
from services.metrics.traces.store import TraceStore
from tests.helpers.instances import T0

MIGRATIONS = Path(services.metrics.__file__).with_name("migrations")
NS = 1_000_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'metrics.db'}"
    migrate(url, MIGRATIONS)
    database = Database(url, readers=1)
    yield database
    await database.close()


def open_store(
    database: Database, *, rows_max: int = 100, bytes_max: int = 10**6, age_s_max: float = 3600
) -> TraceStore:
    return TraceStore(database, Bounds(rows_max, bytes_max, age_s_max))


def disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("metrics.db*"))


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span(number: int, trace: int = 1, *, parent: str = "", start_s: float = 0, **fields: Any) -> Span:
    start_ns = int((T0 + start_s) * NS)
    given = {"service": "edge", "instance": "edge-1", "name": "text_message", "kind": "server"} | fields
    given.setdefault("end_ns", start_ns + NS // 100)
    ids = {"trace_id": trace_id(trace), "span_id": f"{number:016x}", "parent_span_id": parent}
    return Span(start_ns=start_ns, **ids, **given)


def numbers(found: list[Span]) -> list[int]:
    return [int(one.span_id, 16) for one in found]


async def test_a_trace_comes_back_as_it_was_reported_in_the_order_of_beginnings(database: Database) -> None:
    store = open_store(database)
    late = span(2, parent=f"{1:016x}", start_s=0.5, attributes={"a": "ä\x00"}, is_error=True, status_message="no")
    early = span(1, links=[Link(trace_id(9), f"{9:016x}")])
    assert await store.keep([late], now=T0) == 0
    assert await store.keep([early, span(3, trace=2)], now=T0) == 0
    assert await store.trace(trace_id(1)) == [early, late]
    assert await store.trace(trace_id(4)) == []


async def test_a_span_that_links_to_traces_is_found_in_each_of_them_once(database: Database) -> None:
    store = open_store(database)
    batch = span(1, links=[Link(trace_id(2), "b" * 16), Link(trace_id(2), "c" * 16), Link(trace_id(1), "d" * 16)])
    await store.keep([batch], now=T0)
    assert await store.trace(trace_id(1)) == await store.trace(trace_id(2)) == [batch]


async def test_a_message_is_found_by_its_id_in_its_latest_trace(database: Database) -> None:
    store = open_store(database)
    attributes = {"parley.message.id": "room-e1-7"}
    await store.keep([span(1, trace=5, attributes=attributes), span(2, trace=6, attributes=attributes)], now=T0)
    assert await store.find_message("room-e1-7") == trace_id(6)
    assert await store.find_message("room-e1-8") is None


async def test_traces_are_listed_by_what_they_began_with(database: Database) -> None:
    store = open_store(database)
    slow = span(2, trace=2, end_ns=int((T0 + 2) * NS), attributes={"parley.room.id": "r2", "parley.user.id": "u2"})
    failed = span(3, trace=3, is_error=True, attributes={"parley.user.id": "u2"})
    await store.keep([span(1), slow, failed, span(4, parent="a" * 16, service="rooms")], now=T0)
    assert numbers(await store.entries(TraceQuery(10))) == [3, 2, 1]
    assert numbers(await store.entries(TraceQuery(2))) == [3, 2]
    assert numbers(await store.entries(TraceQuery(10, duration_min_ns=NS))) == [2]
    assert numbers(await store.entries(TraceQuery(10, only_errors=True))) == [3]
    assert numbers(await store.entries(TraceQuery(10, room_id="r2"))) == [2]
    assert numbers(await store.entries(TraceQuery(10, user_id="u2", only_errors=True))) == [3]


async def test_the_oldest_make_room_and_are_counted(database: Database) -> None:
    store = open_store(database, rows_max=3)
    assert await store.keep([span(1, trace=1), span(2, trace=2)], now=T0) == 0
    assert await store.keep([span(3, trace=3), span(4, trace=4), span(5, trace=5)], now=T0 + 1) == 2
    assert numbers(await store.entries(TraceQuery(10))) == [5, 4, 3]
    assert await store.trace(trace_id(2)) == []


async def test_bytes_are_bounded_too(database: Database) -> None:
    store = open_store(database, bytes_max=20_000)
    evicted = 0
    for number in range(1, 60):
        evicted += await store.keep([span(number, trace=number, attributes={"a": "x" * 1_000})], now=T0)
    kept = await store.entries(TraceQuery(100))
    assert evicted == 59 - len(kept)
    assert 5 <= len(kept) <= 18
    assert numbers(kept)[0] == 59


async def test_a_bound_holds_at_once_however_many_have_to_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.metrics.store._BOUNDED_PRUNE_ROWS", 3)
    store = open_store(database, bytes_max=10_000)
    await store.keep([span(number, trace=number) for number in range(1, 19)], now=T0)
    assert await store.keep([span(20, trace=20, attributes={"a": "x" * 9_000})], now=T0) == 18
    assert numbers(await store.entries(TraceQuery(100))) == [20]
    orphans = "SELECT count(*) FROM span_traces WHERE span_row NOT IN (SELECT id FROM spans)"
    assert await database.read(lambda connection: connection.exec_driver_sql(orphans).scalar()) == 0


async def test_ids_by_which_spans_are_found_take_room_too(database: Database, tmp_path: Path) -> None:
    store = open_store(database, rows_max=100_000, bytes_max=2_000_000)
    names = ("parley.message.id", "parley.room.id", "parley.user.id")
    for turn in range(60):
        for text in ("x" * 140, "x" * 250, "\N{DESERET CAPITAL LETTER EW}" * 250):
            many = range(turn * 25, turn * 25 + 25)
            batch = [span(n, trace=n + 1, attributes=dict.fromkeys(names, f"{n}{text}")) for n in many]
            await store.keep(batch, now=T0)
    assert (tmp_path / "metrics.db").stat().st_size < 1.5 * 2_000_000


async def test_what_is_too_old_goes_and_is_not_counted_as_lost(database: Database) -> None:
    store = open_store(database, age_s_max=60)
    await store.keep([span(1), span(2)], now=T0)
    assert await store.keep([span(3)], now=T0 + 61) == 0
    assert numbers(await store.entries(TraceQuery(10))) == [3]


async def test_bounds_hold_over_a_restart(database: Database) -> None:
    await open_store(database, rows_max=3).keep([span(1), span(2), span(3)], now=T0)
    assert await open_store(database, rows_max=3).keep([span(4)], now=T0) == 1


async def test_a_clock_that_was_set_back_keeps_nothing_for_ever(database: Database) -> None:
    store = open_store(database, rows_max=2)
    await store.keep([span(1)], now=T0 + 10**9)
    assert await store.keep([span(2), span(3)], now=T0) == 1
    assert numbers(await store.entries(TraceQuery(10))) == [3, 2]


async def test_a_failure_leaves_nothing_and_the_bounds_as_they_were(database: Database) -> None:
    store = open_store(database, rows_max=2)
    await store.keep([span(1)], now=T0)
    engine = database._write_engine

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO span_traces"):
            raise OSError("the disk is full")

    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises((ParleyError, OSError)):
        await store.keep([span(2)], now=T0)
    event.remove(engine, "before_cursor_execute", fail)
    assert numbers(await store.entries(TraceQuery(10))) == [1]
    assert await store.keep([span(3), span(4)], now=T0) == 1


async def test_the_file_stays_bounded_whatever_is_reported(database: Database, tmp_path: Path) -> None:
    store = open_store(database, rows_max=10_000, bytes_max=300_000)
    sizes = []
    for turn in range(30):
        batch = [span(turn * 100 + n, trace=turn * 100 + n + 1, attributes={"a": "x" * 200}) for n in range(100)]
        await store.keep(batch, now=T0 + turn)
        sizes.append(disk_bytes(tmp_path))
    assert max(sizes[20:]) <= max(sizes[10:20]) * 1.25
    orphans = "SELECT count(*) FROM span_traces WHERE span_row NOT IN (SELECT id FROM spans)"
    assert await database.read(lambda connection: connection.exec_driver_sql(orphans).scalar()) == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exports=st.lists(st.tuples(st.integers(0, 12), st.integers(-50, 200)), max_size=12))
async def test_never_more_than_allowed(
    tmp_path_factory: pytest.TempPathFactory, exports: list[tuple[int, int]]
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('traces') / 'metrics.db'}"
    migrate(url, MIGRATIONS)
    database = Database(url, readers=1)
    try:
        store = open_store(database, rows_max=7, age_s_max=100)
        number, evicted = 1, 0
        for count, at in exports:
            evicted += await store.keep([span(number + n, trace=number + n) for n in range(count)], now=T0 + at)
            number += count
            kept = numbers(await store.entries(TraceQuery(100)))
            assert len(kept) <= 7
            assert kept == sorted(kept, reverse=True)
            assert evicted <= number - 1 - len(kept)
    finally:
        await database.close()


async def test_a_search_looks_at_the_newest_traces_only(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.metrics.traces.store.SCAN_ENTRIES_MAX", 3)
    store = open_store(database)
    await store.keep([span(n, trace=n, attributes={"parley.room.id": f"r{n % 2}"}) for n in range(1, 9)], now=T0)
    assert numbers(await store.entries(TraceQuery(10, room_id="r0"))) == [8, 6]
    assert numbers(await store.entries(TraceQuery(10))) == [8, 7, 6]


async def test_a_trace_that_a_client_began_is_listed_by_what_the_edge_did(database: Database) -> None:
    store = open_store(database)
    client = span(1, service="client", name="send", kind="client")
    edge = span(2, parent=f"{1:016x}")
    rooms = span(3, parent=f"{2:016x}", service="rooms", instance="rooms-1")
    await store.keep([rooms, edge, client], now=T0)
    assert numbers(await store.entries(TraceQuery(10))) == [2]
