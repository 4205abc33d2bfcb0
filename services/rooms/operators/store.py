"""Rooms as operators see and change them, in SQL. Functions that take a connection.

A room is deleted in two parts: at once it is there for nobody and its name is free; then it is taken apart in steps,
each a short transaction, by whichever instance, and however often that is interrupted. Its row goes last: the number
that its messages carry is not given to another room before they are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete as delete_from
from sqlalchemy import func, insert, select, update

from services.rooms import rooms as rules
from services.rooms.rooms import OWNER
from services.rooms.store import Ended, RoomRecord, find_room
from services.rooms.tables import endings, files, members, messages, rooms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# No name of a room has a control character, so that this is nobody's.
_DELETED_NAME: Final = "\x7f"
_POSTED: Final = "posted"


@dataclass(frozen=True, slots=True)
class RoomDetails:
    """A room and what is in it. `owner` is a user name, empty in a room without members."""

    room: RoomRecord
    last_sent_at_ms: int
    owner: str
    file_count: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class MemberDetails:
    """A member of a room."""

    user_id: str
    username: str
    role: str
    joined_at_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of taking rooms apart has done: memberships that ended, and whether a room is gone for good."""

    ended: Sequence[Ended] = ()
    is_gone: bool = False


def describe(connection: Connection, reference: str) -> RoomDetails:
    """The room that an operator means. Raises ParleyError no_such_room."""
    room = find_room(connection, reference, None)
    sent = select(rooms.c.last_sent_at_ms).where(rooms.c.number == room.number)
    owner = select(members.c.username).where(members.c.room_number == room.number, members.c.role == OWNER)
    kept = select(func.count(), func.coalesce(func.sum(files.c.size), 0))
    count, size = connection.execute(kept.where(files.c.room_number == room.number, files.c.state == _POSTED)).one()
    return RoomDetails(
        room,
        connection.execute(sent).scalar_one(),
        connection.execute(owner.limit(1)).scalar_one_or_none() or "",
        count,
        int(size),
    )


def members_behind(
    connection: Connection, reference: str, username: str, *, limit: int
) -> tuple[RoomRecord, list[MemberDetails]]:
    """Up to `limit` members by name, behind this one. Raises ParleyError no_such_room."""
    room = find_room(connection, reference, None)
    query = select(members.c.user_id, members.c.username, members.c.role, members.c.joined_at_ms)
    query = query.where(members.c.room_number == room.number, members.c.username > username)
    rows = connection.execute(query.order_by(members.c.username).limit(limit))
    return room, [MemberDetails(*row) for row in rows]


def set_closed(connection: Connection, reference: str, *, is_closed: bool) -> RoomRecord:
    """Closes a room or opens it. Raises ParleyError no_such_room."""
    room = find_room(connection, reference, None)
    state = rules.CLOSED if is_closed else rules.OPEN
    connection.execute(update(rooms).where(rooms.c.number == room.number).values(state=state))
    return find_room(connection, room.room_id, None)


def mark_deleted(connection: Connection, reference: str) -> RoomDetails:
    """From now on the room is there for nobody. Returns what it was. Raises ParleyError no_such_room."""
    details = describe(connection, reference)
    room = details.room
    gone: dict[str, Any] = {"state": rules.DELETED, "name_key": f"{_DELETED_NAME}{room.room_id}"}
    connection.execute(update(rooms).where(rooms.c.number == room.number).values(gone))
    return details


def take_apart(connection: Connection, *, now_ms: int, version: int, limit: int) -> Step | None:
    """One step, of at most `limit` rows, on some deleted room; None where there is none."""
    query = select(rooms.c.number, rooms.c.room_id, rooms.c.last_seq).where(rooms.c.state == rules.DELETED)
    found = connection.execute(query.order_by(rooms.c.number).limit(1).with_for_update(skip_locked=True)).first()
    if found is None:
        return None
    number, room_id, last_seq = found
    ended = _end_memberships(connection, number, room_id, last_seq, now_ms=now_ms, limit=limit)
    if ended:
        connection.execute(update(rooms).where(rooms.c.number == number).values(members_version=version))
        return Step(ended)
    oldest = select(messages.c.seq).where(messages.c.room_number == number).order_by(messages.c.seq).limit(limit)
    some = connection.execute(oldest).scalars().all()
    if some:
        behind = messages.c.seq <= some[-1]
        connection.execute(delete_from(messages).where(messages.c.room_number == number, behind))
        return Step()
    few = select(files.c.number).where(files.c.room_number == number).limit(limit)
    if connection.execute(delete_from(files).where(files.c.number.in_(few.scalar_subquery()))).rowcount:
        return Step()
    connection.execute(delete_from(rooms).where(rooms.c.number == number))
    return Step(is_gone=True)


def _end_memberships(
    connection: Connection, number: int, room_id: str, last_seq: int, *, now_ms: int, limit: int
) -> list[Ended]:
    query = select(members.c.user_id, members.c.username).where(members.c.room_number == number)
    some = connection.execute(query.order_by(members.c.user_id).limit(limit)).all()
    ended = []
    for user_id, username in some:
        values = {
            "room_id": room_id,
            "user_id": user_id,
            "username": username,
            "last_seq": last_seq,
            "boot_id": "",
            "ended_at_ms": now_ms,
        }
        key = connection.execute(insert(endings).values(values)).inserted_primary_key
        assert key is not None, "one row was inserted"
        ended.append(Ended(room_id, user_id, username, last_seq, "", key[0]))
    user_ids = [one.user_id for one in ended]
    gone = delete_from(members).where(members.c.room_number == number, members.c.user_id.in_(user_ids))
    connection.execute(gone)
    return ended
