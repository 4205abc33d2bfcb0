"""store: what has to outlive this process: samples for the graphs, messages by hour, and how far each source counted.

An interval is kept in one transaction. Growth by hour and the checkpoint that says what has been counted into it
cannot part, so a crash of this service neither loses a message from the graphs nor counts one twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from services.common.logs import get_logger
from services.metrics.graph_data import HOURS, PERIOD_S, GraphData, Sample
from services.metrics.points import Checkpoint, Run, Source
from services.metrics.tables import checkpoints, hourly_messages, samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from services.common.db import Database

RETENTION_S = 31 * 86_400
# A process that was not heard of for a day is not expected back with the same counters.
CHECKPOINT_S = 86_400
# Old samples that one interval deletes at most: a transaction stays short, and a clock that jumped ahead for a moment
# costs little.
PRUNE_ROWS = 500
# Samples are joined where there are more than a picture has room for.
TIMELINE_POINTS = 360
_HOUR_S = 3600
_log = get_logger(__name__)


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

    async def graph_data(self, *, now: float) -> GraphData:
        """What the graphs show: the last day, joined to at most about `TIMELINE_POINTS` samples."""

        def work(connection: Connection) -> GraphData:
            is_shown = samples.c.at.between(now - PERIOD_S, now)
            first = connection.execute(select(func.min(samples.c.at)).where(is_shown)).scalar()
            timeline = [] if first is None else _read_timeline(connection, first, now)
            last_hour = int(now // _HOUR_S)
            is_recent = hourly_messages.c.hour.between(last_hour - HOURS + 1, last_hour)
            rows = connection.execute(select(hourly_messages.c.hour, hourly_messages.c.messages).where(is_recent))
            return GraphData(now, timeline, {hour: messages for hour, messages in rows})  # noqa: C416 - rows, not pairs

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
    connection.execute(delete(checkpoints).where(checkpoints.c.kept_at < now - CHECKPOINT_S))
    old_hour = int((now - RETENTION_S) // _HOUR_S)
    old_hours = select(hourly_messages.c.hour).where(hourly_messages.c.hour < old_hour).limit(PRUNE_ROWS)
    connection.execute(delete(hourly_messages).where(hourly_messages.c.hour.in_(old_hours)))
