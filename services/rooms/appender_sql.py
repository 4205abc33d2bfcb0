"""The statements of the appender, for each kind of database: plain SQL on the driver's cursor.

SQLite is a function call away and is asked row by row; every question to PostgreSQL is a way there and back, so that
rows go there in columns, and one statement stores a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Rooms in one SELECT; SQLite takes up to 32,766 variables.
_ROOMS_CHUNK: Final = 256

_SELECT_ROOMS: Final = (
    "SELECT room_id, number, epoch, last_seq, last_sent_at_ms, members_version, is_private, state = 'open' FROM rooms "
    "WHERE state <> 'deleted' AND room_id "
)
_INSERT: Final = "INSERT INTO messages (room_number, seq, sender_id, username, text, sent_at_ms, key) "
_ONCE: Final = " ON CONFLICT (room_number, key, sender_id) DO NOTHING"


class Statements:
    """SQLite's."""

    select_member = "SELECT 1 FROM members WHERE room_number = ? AND user_id = ?"
    select_key = "SELECT seq, sent_at_ms, text FROM messages WHERE room_number = ? AND key = ? AND sender_id = ?"
    delete_behind = "DELETE FROM messages WHERE room_number = ? AND seq > ?"
    select_whole = "SELECT 1 FROM files WHERE file_id = ? AND state = 'whole'"
    update_file = "UPDATE files SET state = 'posted', seq = ?, changed_at_ms = ? WHERE file_id = ?"
    update_room = "UPDATE rooms SET last_seq = ?, last_sent_at_ms = ? WHERE number = ?"
    _insert = f"{_INSERT}VALUES (?, ?, ?, ?, ?, ?, ?){_ONCE}"

    def select_rooms(self, cursor: Any, room_ids: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of these rooms, in parts, kept from other writers until the transaction ends."""
        for start in range(0, len(room_ids), _ROOMS_CHUNK):
            chunk = list(room_ids[start : start + _ROOMS_CHUNK])
            # Padded to a power of two, so that the driver finds the few statements that there are in its cache.
            chunk += [chunk[0]] * ((1 << (len(chunk) - 1).bit_length()) - len(chunk))
            cursor.execute(f"{_SELECT_ROOMS}IN ({', '.join('?' * len(chunk))})", chunk)
            yield cursor.fetchall()

    def insert_messages(self, cursor: Any, rows: Sequence[tuple[Any, ...]]) -> int:
        """Inserts the rows whose keys are new; returns how many these were."""
        cursor.executemany(self._insert, rows)
        count: int = cursor.rowcount
        return count


class PostgresStatements(Statements):
    """PostgreSQL's."""

    select_member = Statements.select_member.replace("?", "%s")
    select_key = Statements.select_key.replace("?", "%s")
    delete_behind = Statements.delete_behind.replace("?", "%s")
    select_whole = Statements.select_whole.replace("?", "%s")
    update_file = Statements.update_file.replace("?", "%s")
    update_room = Statements.update_room.replace("?", "%s")
    # Locked in the order of the ids, byte by byte, whatever the database's language: so nobody waits in a circle.
    _select_rooms = f'{_SELECT_ROOMS}= ANY(%s) ORDER BY room_id COLLATE "C" FOR NO KEY UPDATE'
    _columns = "%s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[]"
    _insert = f"{_INSERT}SELECT * FROM unnest({_columns}){_ONCE}"  # noqa: S608 - made of constants

    def select_rooms(self, cursor: Any, room_ids: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of these rooms, kept from other writers until the transaction ends."""
        cursor.execute(self._select_rooms, (list(room_ids),))
        yield cursor.fetchall()

    def insert_messages(self, cursor: Any, rows: Sequence[tuple[Any, ...]]) -> int:
        """Inserts the rows whose keys are new; returns how many these were."""
        cursor.execute(self._insert, [list(column) for column in zip(*rows, strict=True)])
        count: int = cursor.rowcount
        return count


SQLITE: Final = Statements()
POSTGRES: Final = PostgresStatements()
