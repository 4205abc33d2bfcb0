"""Stores a batch of messages in one transaction: the hottest loop of the service. Runs on the writer thread.

For each room of the batch its row is read (which life, which number was the last, which state of its members), each
message gets the next number, all are inserted by one statement, and the rows of the rooms are written back. Numbers
have no gaps because they are given here, in the transaction that stores them, to messages that are stored.

A key is stored once for each sender and room. Nearly always a batch holds no key that was stored before, so it is
inserted as if that were sure; only when the count of rows says otherwise it is taken back and done again with a look
at every key. The statements are plain SQL on the driver's cursor: compiling and wrapping costs more than storing.

Where several instances write to one database (PostgreSQL) the rows of the rooms are locked as they are read, always in
the same order: a number is given by one instance at a time, and no two can wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.common.wire.codes import ErrorCode
from services.common.wire.limits import MAX_TEXT_CHARS
from services.rooms.appender_sql import SQLITE
from services.rooms.messages import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.rooms.appender_sql import Statements
    from services.rooms.messages import Publish

KEY_CHARS_MAX: Final = 80
"""A client's key of 64 characters, and room for the edge to make its own; stored with every message for ever."""

# Each entry is two short strings' worth of pointers: some 20 MB at most. Past it the cache starts anew.
_CACHED_MEMBERS_MAX: Final = 200_000


class _Room:
    """A room's row during a batch. `seq` is the last number given, `sent_at_ms` the time of what is stored now."""

    __slots__ = ("before_seq", "epoch", "is_open", "is_private", "members", "number", "sent_at_ms", "seq")

    def __init__(
        self, number: int, epoch: str, seq: int, sent_at_ms: int, *, is_private: bool, is_open: bool, members: set[str]
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.seq = self.before_seq = seq
        self.sent_at_ms = sent_at_ms
        self.is_private = is_private
        self.is_open = is_open
        # In a closed room nobody passes as known, so that the way of an ordinary message needs no look at the state.
        self.members = members if is_open else set()


class Appender:
    """The `handle_batch` of the log's writer. `now` gives Unix seconds; `on_batch` is told how many were published."""

    def __init__(
        self, now: Callable[[], float], on_batch: Callable[[int], None], statements: Statements = SQLITE
    ) -> None:
        self._sql = statements
        self._now = now
        self._on_batch = on_batch
        # room number -> (state of its members, who is known to be one in that state)
        self._members: dict[int, tuple[int, set[str]]] = {}
        self._cached_count = 0

    def __call__(self, connection: Any, items: list[Sequence[Publish]]) -> list[list[Outcome]]:
        """Stores the messages of all items, in order; one list of outcomes for each item."""
        publishes = [publish for item in items for publish in item] if len(items) > 1 else items[0]
        self._on_batch(len(publishes))
        cursor = connection.connection.cursor()
        try:
            rooms = self._load_rooms(cursor, {publish.room_id for publish in publishes})
            outcomes = self._store_new(cursor, publishes, rooms)
            if outcomes is None:
                outcomes = self._store_each(cursor, publishes, rooms)
            posted = [
                (outcome.seq, outcome.sent_at_ms, publish.file.file_id)
                for publish, outcome in zip(publishes, outcomes, strict=True)
                if publish.file is not None and outcome.code is None and not outcome.is_duplicate
            ]
            if posted:
                cursor.executemany(self._sql.update_file, posted)
            touched = [room for room in rooms.values() if room.seq != room.before_seq]
            if touched:
                cursor.executemany(
                    self._sql.update_room, [(room.seq, room.sent_at_ms, room.number) for room in touched]
                )
        finally:
            cursor.close()
        if len(items) == 1:
            return [outcomes]
        ends = iter(outcomes)
        return [[next(ends) for _ in item] for item in items]

    def _load_rooms(self, cursor: Any, room_ids: Iterable[str]) -> dict[str, _Room]:
        now_ms = int(self._now() * 1_000)
        rooms: dict[str, _Room] = {}
        wanted = list(room_ids)
        if self._cached_count > _CACHED_MEMBERS_MAX:
            self._members.clear()
            self._cached_count = 0
        for chunk in self._sql.select_rooms(cursor, wanted):
            for room_id, number, epoch, seq, sent_at_ms, version, is_private, is_open in chunk:
                known = self._members.get(number)
                if known is None or known[0] != version:
                    known = self._members[number] = (version, set())
                rooms[room_id] = _Room(
                    number,
                    epoch,
                    seq,
                    max(now_ms, sent_at_ms),
                    is_private=bool(is_private),
                    is_open=bool(is_open),
                    members=known[1],
                )
        return rooms

    def _store_new(self, cursor: Any, publishes: Sequence[Publish], rooms: dict[str, _Room]) -> list[Outcome] | None:
        """Stores the batch on the assumption that all keys are new; None, without a trace, where they are not."""
        rows = []
        outcomes = []
        for publish in publishes:
            room = rooms.get(publish.room_id)
            if (
                room is None
                or publish.user_id not in room.members
                or not 0 < len(publish.key) <= KEY_CHARS_MAX
                or len(publish.text) > MAX_TEXT_CHARS
                or "\0" in publish.text
                or publish.file is not None
            ):
                refusal = self._refusal(cursor, publish, room)
                if refusal is not None:
                    outcomes.append(refusal)
                    continue
                assert room is not None, "a publish to an unknown room is refused"
            room.seq = seq = room.seq + 1
            user_id = publish.user_id
            rows.append((room.number, seq, user_id, publish.username, publish.text, room.sent_at_ms, publish.key))
            outcomes.append(Outcome(room.epoch, seq, room.sent_at_ms))
        if rows and self._sql.insert_messages(cursor, rows) != len(rows):
            touched = [room for room in rooms.values() if room.seq != room.before_seq]
            cursor.executemany(self._sql.delete_behind, [(room.number, room.before_seq) for room in touched])
            for room in touched:
                room.seq = room.before_seq
            return None
        return outcomes

    def _store_each(self, cursor: Any, publishes: Sequence[Publish], rooms: dict[str, _Room]) -> list[Outcome]:
        """Stores the batch with a look at every key first."""
        outcomes = []
        for publish in publishes:
            room = rooms.get(publish.room_id)
            outcome = self._refusal(cursor, publish, room)
            if outcome is None:
                assert room is not None, "a publish to an unknown room is refused"
                outcome = _earlier(self._sql, cursor, publish, room)
            if outcome is None:
                assert room is not None, "a publish to an unknown room is refused"
                seq = room.seq + 1
                outcome = Outcome(room.epoch, seq, room.sent_at_ms)
                row = (room.number, seq, publish.user_id, publish.username, publish.text, room.sent_at_ms, publish.key)
                self._sql.insert_messages(cursor, [row])
                room.seq = seq
            outcomes.append(outcome)
        return outcomes

    def _refusal(self, cursor: Any, publish: Publish, room: _Room | None) -> Outcome | None:
        """Why the message cannot be stored, or None.

        Who is no member any more may still be asking about a message that was stored while they were one: to call
        that refused would be a lie.
        """
        if not 0 < len(publish.key) <= KEY_CHARS_MAX or "\0" in publish.text:  # which PostgreSQL cannot hold
            return Outcome(code=ErrorCode.BAD_REQUEST)
        if len(publish.text) > MAX_TEXT_CHARS:
            return Outcome(code=ErrorCode.TOO_LARGE)
        if room is None:
            return Outcome(code=ErrorCode.NO_SUCH_ROOM)
        if self._is_member(cursor, room, publish.user_id):
            if not room.is_open:
                return _earlier(self._sql, cursor, publish, room) or Outcome(code=ErrorCode.FORBIDDEN)
            return None if publish.file is None else _file_refusal(self._sql, cursor, publish, room)
        earlier = _earlier(self._sql, cursor, publish, room)
        if earlier is not None and earlier.is_duplicate:
            return earlier
        return Outcome(code=ErrorCode.NO_SUCH_ROOM if room.is_private else ErrorCode.NOT_A_MEMBER)

    def _is_member(self, cursor: Any, room: _Room, user_id: str) -> bool:
        if user_id in room.members:
            return True
        cursor.execute(self._sql.select_member, (room.number, user_id))
        if cursor.fetchone() is None:
            return False
        room.members.add(user_id)
        self._cached_count += 1
        return True


def _file_refusal(sql: Statements, cursor: Any, publish: Publish, room: _Room) -> Outcome | None:
    """A file is posted once, and only while its content is whole: it may have been given up in the meantime."""
    assert publish.file is not None, "only messages with a file come here"
    earlier = _earlier(sql, cursor, publish, room)
    if earlier is not None:
        return earlier
    cursor.execute(sql.select_whole, (publish.file.file_id,))
    return Outcome(code=ErrorCode.NO_SUCH_FILE) if cursor.fetchone() is None else None


def _earlier(sql: Statements, cursor: Any, publish: Publish, room: _Room) -> Outcome | None:
    """What an earlier publish with the same key has left: the same message, or a conflict with another one."""
    cursor.execute(sql.select_key, (room.number, publish.key, publish.user_id))
    row = cursor.fetchone()
    if row is None:
        return None
    seq, sent_at_ms, text = row
    if text != publish.text:
        return Outcome(code=ErrorCode.CONFLICT)
    return Outcome(room.epoch, seq, sent_at_ms, is_duplicate=True)
