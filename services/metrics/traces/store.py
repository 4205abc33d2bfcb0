"""store: spans for as long as there is room for them: bounded in number, bytes and age, the oldest go first.

A span is a row with its body as one piece; beside it stands, for each trace that it concerns (its own and those that
it links to), a row by which it is found. Everything of one export is one transaction, together with what it displaces,
and two plain statements: one for each span took most of what tracing cost (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import delete, select

from services.metrics.store import Bounds, Held, count_rows, prune
from services.metrics.tables import span_traces, spans
from services.metrics.traces.spans import MESSAGE_ID, ROOM_ID, TRACE_SPANS_MAX, USER_ID, Span, TraceQuery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Connection, Select

    from services.common.db import Database

_ROW_BYTES: Final = 250
"""What a row costs beside its body: ids, indexes, SQLite's own; measured with spans of ours."""

SCAN_ENTRIES_MAX: Final = 20_000
"""Traces, the newest, in which a search looks: milliseconds of work, and more than anybody pages through."""

_ID_CHARS_MAX: Final = 150
"""The longest is a message's: a room's id and an epoch of 64 characters each, and a number."""

_SIZE: Final = -2
_NEXT_ID: Final = "SELECT coalesce(max(id), 0) + 1 FROM spans"
_INSERT_SPAN: Final = (
    "INSERT INTO spans (id, trace_id, kept_at, is_entry, is_error, duration_ns, message_id, room_id, user_id, size, "
    "body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_TRACE: Final = "INSERT INTO span_traces (trace_id, span_row) VALUES (?, ?)"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Span).decode


class TraceStore:
    """Spans in a database."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self._bounds = bounds
        self._held: Held | None = None  # only the writer's thread looks at it; None: to be counted

    async def keep(self, reported: Sequence[Span], *, now: float) -> int:
        """Keep spans; return how many had to go before their time. Raises ParleyError when the storage fails."""
        bodies = [_encode(span) for span in reported]  # not on the writer's thread: it holds the lock
        rows = [_row(span, body, now) for span, body in zip(reported, bodies, strict=True)]
        traces = [{span.trace_id, *(link.trace_id for link in span.links)} for span in reported]
        size = sum(row[_SIZE] for row in rows)

        def work(connection: Connection) -> int:
            held, self._held = self._held, None  # counted anew, should this fail
            held = held or count_rows(connection, spans)
            first: int = connection.exec_driver_sql(_NEXT_ID).scalar_one()
            if rows:
                connection.exec_driver_sql(_INSERT_SPAN, [(first + index, *row) for index, row in enumerate(rows)])
                concerned = [(one, first + index) for index, ones in enumerate(traces) for one in ones]
                connection.exec_driver_sql(_INSERT_TRACE, concerned)
            held = Held(held.rows + len(rows), held.size + size)
            self._held, evicted, last = prune(connection, spans, held, self._bounds, now=now)
            if last is not None:
                connection.execute(delete(span_traces).where(span_traces.c.span_row <= last))
            return evicted

        return await self._database.write(work)

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace and those that link to it, in the order of their beginnings."""
        query = (
            select(spans.c.body)
            .join(span_traces, span_traces.c.span_row == spans.c.id)
            .where(span_traces.c.trace_id == trace_id)
            .order_by(spans.c.id)
            .limit(TRACE_SPANS_MAX)
        )
        bodies = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return sorted(map(_decode, bodies), key=lambda span: span.start_ns)

    async def find_message(self, message_id: str) -> str | None:
        """The id of the trace that shows the way of a message; the latest, where it was sent more than once."""
        query = select(spans.c.trace_id).where(spans.c.message_id == message_id).order_by(spans.c.id.desc()).limit(1)
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def entries(self, wanted: TraceQuery) -> list[Span]:
        """The spans with which traces began, the newest first; a search looks at the newest 20,000 traces only."""
        query = _entries_query(wanted)
        bodies = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return list(map(_decode, bodies))


def _row(span: Span, body: bytes, now: float) -> tuple[Any, ...]:
    """The values of _INSERT_SPAN, without the id."""
    message_id, room_id, user_id = (_id(span, name) for name in (MESSAGE_ID, ROOM_ID, USER_ID))
    # Beside what the body has of them; a message's stands in an index, too.
    ids = sum(len(one or "") for one in (message_id, message_id, room_id, user_id))
    return (
        span.trace_id,
        now,
        span.is_entry,
        span.is_error,
        span.end_ns - span.start_ns,
        message_id,
        room_id,
        user_id,
        len(body) + ids + _ROW_BYTES * (1 + len(span.links)),
        body,
    )


def _id(span: Span, name: str) -> str | None:
    """An id by which the span can be found; what cannot be one stands in the body alone."""
    value = span.attributes.get(name, "")
    return value if value.isascii() and 0 < len(value) <= _ID_CHARS_MAX else None


def _entries_query(wanted: TraceQuery) -> Select[Any]:
    newest = select(spans).where(spans.c.is_entry).order_by(spans.c.id.desc()).limit(SCAN_ENTRIES_MAX).subquery()
    query = select(newest.c.body)
    if wanted.duration_min_ns > 0:
        query = query.where(newest.c.duration_ns >= wanted.duration_min_ns)
    if wanted.only_errors:
        query = query.where(newest.c.is_error)
    if wanted.room_id:
        query = query.where(newest.c.room_id == wanted.room_id)
    if wanted.user_id:
        query = query.where(newest.c.user_id == wanted.user_id)
    return query.order_by(newest.c.id.desc()).limit(wanted.limit)
