"""The message log: group commit of what is published, and pages of what was.

Whatever is published while a commit is under way goes into the next one together (see appender). The order is the same
everywhere: first the publisher learns what became of its messages, then the bus carries them to everyone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.rooms.appender import Appender
from services.rooms.appender_sql import POSTGRES, SQLITE
from services.rooms.messages import File, Head, Message, Outcome, runs
from services.rooms.store import find_room_of_member
from services.rooms.tables import files, messages, rooms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from services.common.clock import Clock
    from services.common.db import Database
    from services.rooms.bus import Bus
    from services.rooms.counts import RoomsCounts
    from services.rooms.messages import Publish
    from services.rooms.store import RoomRecord

    # Told once what became of each message of an append; None when the commit itself failed and nobody knows.
    Answer = Callable[[Sequence[Publish], Sequence[Outcome] | None], None]

OVERLOADED_RETRY_S: Final = 0.5
"""A full queue is worked off in less."""

_OVERLOADED: Final = ParleyError(ErrorCode.OVERLOADED, "too much waits to be stored", retry_after_s=OVERLOADED_RETRY_S)
_INTERNAL: Final = ParleyError(ErrorCode.INTERNAL, "internal error")
# Rooms in one SELECT.
_CHUNK: Final = 500
_log = get_logger(__name__)


_COLUMNS: Final = (
    messages.c.seq,
    messages.c.sender_id,
    messages.c.username,
    messages.c.text,
    messages.c.sent_at_ms,
)


FILE_COLUMNS: Final = (
    files.c.file_id,
    files.c.name,
    files.c.size,
    files.c.sha256,
    files.c.mime,
    files.c.transfer_id,
    files.c.piece_bytes,
)
"""The columns of a `File`, in the order of its fields."""


class History(NamedTuple):
    """A page of a room's log, ascending. `more`: there are more in the direction in which they were asked for."""

    room: RoomRecord
    messages: list[Message]
    more: bool


class Page(NamedTuple):
    """Messages of a room, ascending, and where the room's log ended when they were read."""

    head: Head
    messages: list[Message]


class MessageLog:
    """The log of all rooms. Used from one event loop.

    `pending_max` bounds the messages that wait to be stored.
    """

    def __init__(self, database: Database, *, bus: Bus, clock: Clock, counts: RoomsCounts, pending_max: int) -> None:
        self._database = database
        self._bus = bus
        self._counts = counts
        self._pending_max = pending_max
        self._pending = 0
        self._writer = database.writer(
            Appender(clock.now, counts.batch_size.observe, POSTGRES if database.is_postgres else SQLITE)
        )
        self._last: asyncio.Future[list[Outcome]] | None = None

    @property
    def pending_count(self) -> int:
        """Messages that are queued or being stored."""
        return self._pending

    def append(self, publishes: Sequence[Publish], answer: Answer) -> None:
        """Queues messages to be stored in this order. `answer` is called once for each part of them, in order.

        What does not fit into the queue is refused at once with `overloaded`. The call never waits; the messages are
        stored whether or not anybody still wants the answer.
        """
        room = self._pending_max - self._pending
        refused = publishes[room:] if room < len(publishes) else ()
        if refused:
            publishes = publishes[:room]
        if publishes:
            self._submit(publishes, answer)
        if refused:
            self._refuse(refused, _OVERLOADED, answer)

    def _submit(self, publishes: Sequence[Publish], answer: Answer) -> None:
        try:
            future = self._writer.submit(publishes)
        except ParleyError as error:
            self._refuse(publishes, error, answer)
            return
        self._pending += len(publishes)
        self._last = future
        future.add_done_callback(lambda done: self._on_done(done, publishes, answer))

    def _refuse(self, publishes: Sequence[Publish], error: ParleyError, answer: Answer) -> None:
        self._counts.refused.add(len(publishes))
        answer(publishes, [Outcome(code=error.code, retry_after_s=error.retry_after_s or 0.0)] * len(publishes))

    def _on_done(self, done: asyncio.Future[list[Outcome]], publishes: Sequence[Publish], answer: Answer) -> None:
        self._pending -= len(publishes)
        if self._last is done:
            self._last = None
        error = done.exception()
        if error is None:
            outcomes = done.result()
            self._count(outcomes)
            answer(publishes, outcomes)
            for run in runs(publishes, outcomes):
                self._bus.publish(run)
        elif not isinstance(error, ParleyError):
            _log.error("messages could not be stored", count=len(publishes), exc_info=error)
            self._refuse(publishes, _INTERNAL, answer)
        elif error.code is ErrorCode.UNKNOWN_OUTCOME:
            answer(publishes, None)
        else:
            self._refuse(publishes, error, answer)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        refused = sum(outcome.code is not None for outcome in outcomes)
        duplicates = sum(outcome.is_duplicate for outcome in outcomes)
        self._counts.refused.add(refused)
        self._counts.duplicates.add(duplicates)
        self._counts.stored.add(len(outcomes) - refused - duplicates)

    async def settled(self) -> None:
        """Returns when all that was queued before has been answered and published on the bus.

        Whoever reads the log and then waits for this has not read anything that the bus will announce later.
        """
        if self._last is not None:
            await asyncio.wait([self._last])

    async def heads(self, room_ids: Iterable[str]) -> dict[str, Head]:
        """Where the logs of these rooms end, nothing of which is still to be announced. Unknown rooms are left out.

        Raises ParleyError unavailable, overloaded.
        """
        wanted = sorted(set(room_ids))
        heads = await self._database.read(lambda connection: read_heads(connection, wanted))
        await self.settled()
        return heads

    async def page(self, room_id: str, *, after_seq: int, up_to_seq: int, limit: int) -> Page | None:
        """Up to `limit` messages behind `after_seq`, none behind `up_to_seq`. None where there is no such room.

        What is on the page and was published here has been answered: another writer may have announced a position
        behind a message whose commit this loop had not heard of. Raises ParleyError unavailable, overloaded.
        """
        page = await self._database.read(
            lambda connection: _read_page_of(connection, room_id, after_seq, up_to_seq, limit)
        )
        await self.settled()
        return page


def read_heads(connection: Connection, room_ids: Sequence[str]) -> dict[str, Head]:
    """Where the logs of these rooms end; unknown rooms are left out."""
    heads: dict[str, Head] = {}
    query = select(rooms.c.room_id, rooms.c.epoch, rooms.c.last_seq)
    for start in range(0, len(room_ids), _CHUNK):
        rows = connection.execute(query.where(rooms.c.room_id.in_(room_ids[start : start + _CHUNK])))
        heads |= {room_id: Head(epoch, last_seq) for room_id, epoch, last_seq in rows}
    return heads


def _read_page_of(connection: Connection, room_id: str, after_seq: int, up_to_seq: int, limit: int) -> Page | None:
    query = select(rooms.c.number, rooms.c.epoch, rooms.c.last_seq).where(rooms.c.room_id == room_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    number, epoch, last_seq = row
    return Page(Head(epoch, last_seq), read_after(connection, number, after_seq, up_to_seq, limit))


def read_history(
    connection: Connection,
    user_id: str,
    reference: str,
    *,
    after_seq: int | None,
    before_seq: int | None,
    limit: int,
) -> History:
    """Up to `limit` messages behind `after_seq`, or before `before_seq`, or the newest ones, for a member of the room.

    Raises ParleyError no_such_room, not_a_member.
    """
    room = find_room_of_member(connection, reference, user_id)
    if after_seq is not None:
        found = read_after(connection, room.number, after_seq, room.last_seq, limit)
        return History(room, found, more=bool(found) and found[-1].seq < room.last_seq)
    before = room.last_seq + 1 if before_seq is None else before_seq
    found = read_before(connection, room.number, before, limit)
    return History(room, found, more=bool(found) and found[0].seq > 1)


def read_after(connection: Connection, number: int, after_seq: int, up_to_seq: int, limit: int) -> list[Message]:
    """Up to `limit` messages of the room with this number, behind `after_seq`, none behind `up_to_seq`; ascending."""
    query = select(*_COLUMNS).where(messages.c.room_number == number, messages.c.seq > after_seq)
    query = query.where(messages.c.seq <= up_to_seq).order_by(messages.c.seq).limit(limit)
    return _with_files(connection, number, [Message(*row) for row in connection.execute(query)])


def read_before(connection: Connection, number: int, before_seq: int, limit: int) -> list[Message]:
    """The last `limit` messages before `before_seq`, ascending."""
    query = select(*_COLUMNS).where(messages.c.room_number == number, messages.c.seq < before_seq)
    query = query.order_by(messages.c.seq.desc()).limit(limit)
    return _with_files(connection, number, [Message(*row) for row in connection.execute(query)][::-1])


def _with_files(connection: Connection, number: int, page: list[Message]) -> list[Message]:
    """The page with the files that its messages post. Only a message without text can be one of these."""
    if all(message.text for message in page):
        return page
    query = select(files.c.seq, *FILE_COLUMNS).where(
        files.c.room_number == number, files.c.seq.between(page[0].seq, page[-1].seq)
    )
    posted = {seq: File(*columns) for seq, *columns in connection.execute(query)}
    for message in page:
        message.file = posted.get(message.seq)
    return page
