"""store: what has to outlive this process: samples for the graphs, messages by hour, and how far each source counted.

An interval is kept in one transaction. Growth by hour and the checkpoint that says what has been counted into it
cannot part, so a crash of this service neither loses a message from the graphs nor counts one twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from services.common.logs import get_logger
from services.metrics.graph_data import DAY_S, HOURS, GraphData, Sample
from services.metrics.points import Checkpoint, Run, Source
from services.metrics.room import SERIES_BYTES_MAX
from services.metrics.tables import checkpoints, hourly_messages, samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table

    from services.common.db import Database

RETENTION_S = 31 * 86_400
# A process that was not heard of for a day is not expected back with the same counters.
CHECKPOINT_S = 86_400
# And where many went and came within a day, so many bytes of the newest are kept: twice what all that count at a time
# may take.
CHECKPOINT_BYTES_MAX = 2 * SERIES_BYTES_MAX
# Old samples that one interval deletes at most: a transaction stays short, and a clock that jumped ahead for a moment
# costs little.
PRUNE_ROWS = 500
# Samples are joined where there are more than a picture has room for.
TIMELINE_POINTS = 360
_HOUR_S = 3600
# Rows that one statement deletes at most of what is bounded.
_BOUNDED_PRUNE_ROWS = 5_000
_log = get_logger(__name__)


class Bounds(NamedTuple):
    """How much of something is kept: rows, bytes with what the database needs for each, and for how long."""

    rows_max: int
    bytes_max: int
    age_s_max: float


class Held(NamedTuple):
    """How much of it there is."""

    rows: int
    size: int


def count_rows(connection: Connection, table: Table) -> Held:
    """How much a table holds. It has the columns `id`, `kept_at` and `size`."""
    return Held(
        *connection.execute(select(func.count(), func.coalesce(func.sum(table.c.size), 0)).select_from(table)).one()
    )


def prune(
    connection: Connection, table: Table, held: Held, bounds: Bounds, *, now: float
) -> tuple[Held, int, int | None]:
    """Delete the oldest rows until the bounds hold.

    Returns what is left, how many went before their time, and the id up to which all are gone, where any are.
    """
    evicted, last = 0, None
    while True:
        before = held
        held, gone, reached = _prune_some(connection, table, held, bounds, now=now)
        evicted, last = evicted + gone, reached or last
        # Old ones that are too many for one transaction may wait for the next; a bound holds at once.
        if held == before or (held.rows <= bounds.rows_max and held.size <= bounds.bytes_max):
            return held, evicted, last


def _prune_some(
    connection: Connection, table: Table, held: Held, bounds: Bounds, *, now: float
) -> tuple[Held, int, int | None]:
    count, size = held
    is_over = count > bounds.rows_max or size > bounds.bytes_max
    first_kept_at = connection.execute(select(table.c.kept_at).order_by(table.c.id).limit(1)).scalar()
    if not is_over and (first_kept_at is None or now - first_kept_at <= bounds.age_s_max):
        return held, 0, None
    oldest = select(table.c.id, table.c.kept_at, table.c.size).order_by(table.c.id).limit(_BOUNDED_PRUNE_ROWS)
    evicted, last = 0, None
    for row_id, kept_at, row_size in connection.execute(oldest):
        is_old = now - kept_at > bounds.age_s_max
        if not is_old and count <= bounds.rows_max and size <= bounds.bytes_max:
            break
        evicted += not is_old
        last, count, size = row_id, count - 1, size - row_size
    if last is not None:
        connection.execute(delete(table).where(table.c.id <= last))
    return Held(count, size), evicted, last


class Store:
    """Samples, hours and checkpoints in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, sample: Sample, hourly: Mapping[int, int], counted: Sequence[Checkpoint]) -> None:
        """Keep one interval: its sample, the messages that it adds to hours, and how far the sources have counted.

        Raises ParleyError when the storage fails.
        """

        def work(connection: Connection) -> None:
            connection.execute(insert(samples), [sample._asdict()])
            if hourly:
                _add_hours(connection, hourly)
            if counted:
                _set_checkpoints(connection, counted, kept_at=sample.at)
            _prune(connection, now=sample.at)

        await self._database.write(work)

    async def checkpoints(self, *, limit: int) -> list[Checkpoint]:
        """The newest checkpoints. One that cannot be read is left out and logged."""
        query = select(checkpoints).order_by(checkpoints.c.kept_at.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        found = []
        for row in rows:
            try:
                runs = tuple(msgspec.json.decode(row.runs, type=list[Run]))
            except msgspec.MsgspecError as error:
                _log.warning("a checkpoint cannot be read", source=f"{row.service}/{row.instance}", error=str(error))
                continue
            found.append(Checkpoint(Source(row.service, row.instance), row.time_ns, runs))
        return found

    async def graph_data(self, *, now: float, period_s: int = DAY_S) -> GraphData:
        """What the graphs of a period show, joined to at most about `TIMELINE_POINTS` samples."""

        def work(connection: Connection) -> GraphData:
            is_shown = samples.c.at.between(now - period_s, now)
            first = connection.execute(select(func.min(samples.c.at)).where(is_shown)).scalar()
            timeline = [] if first is None else _read_timeline(connection, first, now)
            last_hour = int(now // _HOUR_S)
            is_recent = hourly_messages.c.hour.between(last_hour - HOURS + 1, last_hour)
            rows = connection.execute(select(hourly_messages.c.hour, hourly_messages.c.messages).where(is_recent))
            hourly = {hour: messages for hour, messages in rows}  # noqa: C416 - rows, not pairs
            return GraphData(now, timeline, hourly, period_s)

        return await self._database.read(work)


def _read_timeline(connection: Connection, first: float, now: float) -> list[Sample]:
    step_s = (now - first + 1) / TIMELINE_POINTS
    requests, latencies = func.sum(samples.c.requests), func.sum(samples.c.latencies)
    columns = [
        func.avg(samples.c.at),
        requests,
        func.sum(samples.c.processing_mean_ms * samples.c.requests) / requests,
        func.avg(samples.c.processing_p50_ms),
        func.max(samples.c.processing_p99_ms),
        latencies,
        func.sum(samples.c.latency_mean_ms * samples.c.latencies) / latencies,
        func.avg(samples.c.latency_p50_ms),
        func.max(samples.c.latency_p99_ms),
        func.avg(samples.c.messages_per_second),
        func.avg(samples.c.connections),
        func.avg(samples.c.users),
        func.avg(samples.c.deliveries_per_second),
        func.avg(samples.c.fan_out),
        func.sum(samples.c.waits),
        *(func.max(column) for column in (samples.c.wait_critical_ms, samples.c.wait_high_ms)),
        *(func.max(column) for column in (samples.c.wait_normal_ms, samples.c.wait_low_ms)),
        func.sum(samples.c.commits),
        func.avg(samples.c.batch_mean),
        func.max(samples.c.batch_p99),
        func.max(samples.c.commit_p99_ms),
    ]
    place = func.cast((samples.c.at - first) / step_s, samples.c.id.type)
    query = select(*columns).where(samples.c.at.between(first, now)).group_by(place).order_by(place)
    return [Sample(*row) for row in connection.execute(query)]


def _add_hours(connection: Connection, hourly: Mapping[int, int]) -> None:
    statement = upsert(hourly_messages)
    added = {"messages": hourly_messages.c.messages + statement.excluded.messages}
    statement = statement.on_conflict_do_update(index_elements=["hour"], set_=added)
    connection.execute(statement, [{"hour": hour, "messages": count} for hour, count in hourly.items()])


def _set_checkpoints(connection: Connection, counted: Sequence[Checkpoint], *, kept_at: float) -> None:
    statement = upsert(checkpoints)
    changed = {name: statement.excluded[name] for name in ("kept_at", "time_ns", "runs")}
    statement = statement.on_conflict_do_update(index_elements=["service", "instance"], set_=changed)
    rows = [
        {
            "service": checkpoint.source.service,
            "instance": checkpoint.source.instance,
            "kept_at": kept_at,
            "time_ns": checkpoint.time_ns,
            "runs": msgspec.json.encode(checkpoint.runs),
        }
        for checkpoint in counted
    ]
    connection.execute(statement, rows)


def _prune(connection: Connection, *, now: float) -> None:
    old = select(samples.c.id).where(samples.c.at < now - RETENTION_S).order_by(samples.c.at).limit(PRUNE_ROWS)
    connection.execute(delete(samples).where(samples.c.id.in_(old)))
    _prune_checkpoints(connection, now=now)
    old_hour = int((now - RETENTION_S) // _HOUR_S)
    old_hours = select(hourly_messages.c.hour).where(hourly_messages.c.hour < old_hour).limit(PRUNE_ROWS)
    connection.execute(delete(hourly_messages).where(hourly_messages.c.hour.in_(old_hours)))


def _prune_checkpoints(connection: Connection, *, now: float) -> None:
    connection.execute(delete(checkpoints).where(checkpoints.c.kept_at < now - CHECKPOINT_S))
    newest = select(checkpoints.c.kept_at, func.sum(func.length(checkpoints.c.runs))).group_by(checkpoints.c.kept_at)
    size = 0
    for kept_at, bytes_then in connection.execute(newest.order_by(checkpoints.c.kept_at.desc())).all():
        size += bytes_then
        if size > CHECKPOINT_BYTES_MAX:
            connection.execute(delete(checkpoints).where(checkpoints.c.kept_at <= kept_at))
            return
