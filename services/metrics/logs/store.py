"""store: log records for as long as there is room for them: bounded in number, bytes and age, the oldest go first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import insert, select

from services.metrics.logs.records import LogQuery, Record
from services.metrics.store import Bounds, Held, count_rows, prune
from services.metrics.tables import log_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from services.common.db import Database

SCAN_ROWS_MAX: Final = 20_000
"""Rows, the newest, in which a query looks: some hours of a busy installation, and milliseconds of work."""

_ROW_BYTES: Final = 150
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class LogStore:
    """Log records in a database."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self._bounds = bounds
        self._held: Held | None = None  # only the writer's thread looks at it; None: to be counted

    async def keep(self, records: Sequence[Record], *, now: float) -> int:
        """Keep records; return how many had to go before their time. Raises ParleyError when the storage fails."""
        rows = [_row(record, now) for record in records]

        def work(connection: Connection) -> int:
            held, self._held = self._held, None  # counted anew, should this fail
            held = held or count_rows(connection, log_records)
            connection.execute(insert(log_records), rows)
            held = Held(held.rows + len(rows), held.size + sum(row["size"] for row in rows))
            self._held, evicted, _ = prune(connection, log_records, held, self._bounds, now=now)
            return evicted

        return await self._database.write(work)

    async def newest(self, wanted: LogQuery) -> list[Record]:
        """The newest records that fit, the newest first; a search looks at the newest 20,000 only."""
        query = select(log_records)
        if wanted.trace_id:
            query = query.where(log_records.c.trace_id == wanted.trace_id)
        newest = query.order_by(log_records.c.id.desc()).limit(SCAN_ROWS_MAX).subquery()
        found = select(newest.c.body).order_by(newest.c.id.desc()).limit(wanted.limit)
        if wanted.level_min:
            found = found.where(newest.c.level >= wanted.level_min)
        if wanted.instance:
            found = found.where(newest.c.instance == wanted.instance)
        bodies = await self._database.read(lambda connection: connection.execute(found).scalars().all())
        return list(map(_decode, bodies))


def _row(record: Record, now: float) -> dict[str, Any]:
    body = _encode(record)
    return {
        "kept_at": now,
        "level": record.level,
        "instance": record.instance,
        "trace_id": record.trace_id or None,
        "size": len(body) + _ROW_BYTES,
        "body": body,
    }
