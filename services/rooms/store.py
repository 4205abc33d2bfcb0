"""Rooms and members in SQL. Functions that take a connection, run in a transaction, and return plain values.

The message log has its own module; what both share is a room's row.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, exists, func, insert, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import rooms as rules
from services.rooms.rooms import MEMBER, OWNER
from services.rooms.tables import endings, members, rooms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from sqlalchemy import BindParameter, ColumnElement, Connection, Row, Select

# SQLite takes up to 32,766 variables in a statement; some hundreds are as fast for each and read better in a log.
_CHUNK: Final = 500
# Sorts behind every id that has the prefix before it: `{` follows `z`, and digits go before letters.
_AFTER_ID_CHARACTERS: Final = "{"


@dataclass(frozen=True, slots=True)
class RoomRecord:
    """A room, as one person stands to it: `role` is None for who is not a member."""

    number: int
    room_id: str
    name: str
    name_key: str
    topic: str
    is_private: bool
    epoch: str
    last_seq: int
    member_count: int
    created_at_ms: int
    state: str
    role: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nobody sends and nobody new comes in."""
        return self.state == rules.CLOSED


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member of a room."""

    user_id: str
    username: str
    role: str


@dataclass(frozen=True, slots=True)
class NewRoom:
    """What a room is made of; its name is a display name, its topic a clean one."""

    room_id: str
    name: str
    topic: str
    is_private: bool
    epoch: str
    members_version: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A membership that has ended. `number` is that of its row, `boot_id` the edge that asked for it, if one did."""

    room_id: str
    user_id: str
    username: str
    last_seq: int
    boot_id: str = ""
    number: int = 0


def _select_rooms(user_id: str | BindParameter[str] | None) -> Select[Any]:
    """Rooms with the role of this person in each; for None (an operator) without roles."""
    role = members.c.role if user_id is not None else func.nullif("", "").label("role")
    columns = select(
        rooms.c.number,
        rooms.c.room_id,
        rooms.c.name,
        rooms.c.name_key,
        rooms.c.topic,
        rooms.c.is_private,
        rooms.c.epoch,
        rooms.c.last_seq,
        rooms.c.member_count,
        rooms.c.created_at_ms,
        rooms.c.state,
        role,
    ).where(rooms.c.state != rules.DELETED)
    if user_id is None:
        return columns
    mine = and_(members.c.room_number == rooms.c.number, members.c.user_id == user_id)
    visible = or_(rooms.c.is_private.is_(False), members.c.user_id.is_not(None))
    return columns.select_from(rooms.outerjoin(members, mine)).where(visible)


# Built once: when an edge dies, thousands of clients ask for it together.
_SELECT_MINE: Final = _select_rooms(bindparam("me")).where(members.c.user_id.is_not(None)).order_by(rooms.c.name_key)


def _record(row: Row[Any]) -> RoomRecord:
    return RoomRecord(*tuple(row))  # the columns are in the order of the fields


def _fetch(connection: Connection, query: Select[Any]) -> list[RoomRecord]:
    return [_record(row) for row in connection.execute(query)]


def find_room(connection: Connection, reference: str, user_id: str | None) -> RoomRecord:
    """The room that the person means (see rooms.resolve), private ones only for members and, with None, operators.

    Raises ParleyError no_such_room.
    """
    key = rules.name_key(reference)
    query = _select_rooms(user_id)
    visible = _fetch(connection, query.where(or_(rooms.c.room_id == key, rooms.c.name_key == key)))
    if not visible and rules.is_id_prefix(key):
        prefix = and_(rooms.c.room_id >= key, rooms.c.room_id < key + _AFTER_ID_CHARACTERS)
        visible = _fetch(connection, query.where(prefix).limit(2))  # two are as ambiguous as a hundred
    found = rules.resolve(reference, visible)
    if found is None:
        several = f"; {len(visible)} or more ids begin like that" if visible else ""
        raise ParleyError(ErrorCode.NO_SUCH_ROOM, f"there is no such room{several}")
    return found


def find_room_of_member(connection: Connection, reference: str, user_id: str) -> RoomRecord:
    """As find_room, for members only. Raises ParleyError no_such_room, not_a_member."""
    room = find_room(connection, reference, user_id)
    if room.role is None:
        raise ParleyError(ErrorCode.NOT_A_MEMBER, "not a member of this room")
    return room


def create_room(
    connection: Connection, new: NewRoom, *, owner_id: str, username: str, now_ms: int, owned_max: int, joined_max: int
) -> RoomRecord:
    """A room with its owner as the only member. Raises ParleyError room_exists, quota_exceeded."""
    key = rules.name_key(new.name)
    owned = select(func.count()).where(members.c.user_id == owner_id, members.c.role == OWNER)
    if connection.execute(owned).scalar_one() >= owned_max:
        raise ParleyError(ErrorCode.QUOTA_EXCEEDED, f"one person may own {owned_max} rooms")
    _check_joined(connection, owner_id, joined_max)
    if connection.execute(select(rooms.c.number).where(rooms.c.name_key == key)).first() is not None:
        raise ParleyError(ErrorCode.ROOM_EXISTS, "a room of this name exists")
    values = {
        "room_id": new.room_id,
        "name": new.name,
        "name_key": key,
        "topic": new.topic,
        "is_private": new.is_private,
        "epoch": new.epoch,
        "last_seq": 0,
        "last_sent_at_ms": 0,
        "members_version": new.members_version,
        "member_count": 0,
        "join_count": 0,
        "created_at_ms": now_ms,
    }
    try:
        connection.execute(insert(rooms).values(values))
    except IntegrityError as error:
        raise ParleyError(ErrorCode.ROOM_EXISTS, "a room of this name exists") from error
    room = find_room(connection, new.room_id, None)
    _add_member(connection, room, owner_id, username, role=OWNER, now_ms=now_ms, version=new.members_version)
    return find_room(connection, new.room_id, owner_id)


def join_room(
    connection: Connection,
    reference: str,
    *,
    user_id: str,
    username: str,
    now_ms: int,
    version: int,
    joined_max: int,
) -> tuple[RoomRecord, bool]:
    """The room with the person in it, and whether they have just become a member.

    Raises ParleyError no_such_room, forbidden (it is closed), quota_exceeded.
    """
    room = find_room(connection, reference, user_id)
    if room.role is not None:
        return room, False
    room = _lock(connection, room, user_id)
    if room.role is not None:
        return room, False
    if room.is_closed:
        raise ParleyError(ErrorCode.FORBIDDEN, "this room is closed")
    _check_joined(connection, user_id, joined_max)
    role = rules.role_of_newcomer(member_count=room.member_count)
    _add_member(connection, room, user_id, username, role=role, now_ms=now_ms, version=version)
    return find_room(connection, room.room_id, user_id), True


def _lock(connection: Connection, room: RoomRecord, user_id: str | None) -> RoomRecord:
    """The room as it is when other instances can no longer change it or its members, until the transaction ends."""
    locked = select(rooms.c.number).where(rooms.c.number == room.number).with_for_update(key_share=True)
    connection.execute(locked)
    return find_room(connection, room.room_id, user_id)


def _check_joined(connection: Connection, user_id: str, joined_max: int) -> None:
    joined = select(func.count()).where(members.c.user_id == user_id)
    if connection.execute(joined).scalar_one() >= joined_max:
        raise ParleyError(ErrorCode.QUOTA_EXCEEDED, f"one person may be in {joined_max} rooms")


def _add_member(
    connection: Connection, room: RoomRecord, user_id: str, username: str, *, role: str, now_ms: int, version: int
) -> None:
    counted = {"member_count": rooms.c.member_count + 1, "join_count": rooms.c.join_count + 1}
    connection.execute(update(rooms).where(rooms.c.number == room.number).values(members_version=version, **counted))
    order = connection.execute(select(rooms.c.join_count).where(rooms.c.number == room.number)).scalar_one()
    values = {
        "room_number": room.number,
        "user_id": user_id,
        "username": username,
        "role": role,
        "join_order": order,
        "joined_at_ms": now_ms,
    }
    connection.execute(insert(members).values(values))


def leave_room(
    connection: Connection, reference: str, *, user_id: str, version: int, now_ms: int, boot_id: str = ""
) -> Ended:
    """Ends the person's membership. Raises ParleyError no_such_room, not_a_member."""
    _lock(connection, find_room_of_member(connection, reference, user_id), user_id)
    room = find_room_of_member(connection, reference, user_id)
    found = connection.execute(select(members.c.username).where(*_is_member(room, user_id))).scalar_one()
    member = MemberRecord(user_id, found, room.role or MEMBER)
    return _end_membership(connection, room, member, version, boot_id=boot_id, now_ms=now_ms)


def remove_member(connection: Connection, reference: str, *, username: str, version: int, now_ms: int) -> Ended:
    """Ends the membership of the person of that name. Raises ParleyError no_such_room, not_a_member."""
    room = _lock(connection, find_room(connection, reference, None), None)
    query = select(members.c.user_id, members.c.username, members.c.role)
    names = {username, unicodedata.normalize("NFC", username.casefold())}  # stored names are folded
    row = connection.execute(
        query.where(members.c.room_number == room.number, members.c.username.in_(sorted(names)))
    ).first()
    if row is None:
        raise ParleyError(ErrorCode.NOT_A_MEMBER, "nobody of this name is a member of this room")
    return _end_membership(connection, room, MemberRecord(*row), version, boot_id="", now_ms=now_ms)


def _end_membership(
    connection: Connection, room: RoomRecord, member: MemberRecord, version: int, *, boot_id: str, now_ms: int
) -> Ended:
    connection.execute(delete_from(members).where(*_is_member(room, member.user_id)))
    less = {"member_count": rooms.c.member_count - 1, "members_version": version}
    connection.execute(update(rooms).where(rooms.c.number == room.number).values(less))
    if member.role == OWNER:
        first = select(members.c.user_id, members.c.role, members.c.join_order)
        first = first.where(members.c.room_number == room.number).order_by(members.c.join_order).limit(1)
        heir = rules.heir(rules.Seat(*row) for row in connection.execute(first))
        if heir is not None:
            connection.execute(update(members).where(*_is_member(room, heir)).values(role=OWNER))
    values = {
        "room_id": room.room_id,
        "user_id": member.user_id,
        "username": member.username,
        "last_seq": room.last_seq,
        "boot_id": boot_id,
        "ended_at_ms": now_ms,
    }
    key = connection.execute(insert(endings).values(values)).inserted_primary_key
    assert key is not None, "one row was inserted"
    return Ended(room.room_id, member.user_id, member.username, room.last_seq, boot_id, key[0])


def endings_behind(connection: Connection, number: int, limit: int) -> list[Ended]:
    """Memberships that have ended, behind that number and in the order of theirs, but for those that began again."""
    is_member = and_(members.c.room_number == rooms.c.number, members.c.user_id == endings.c.user_id)
    again = exists().where(rooms.c.room_id == endings.c.room_id, is_member)
    ended = (endings.c.room_id, endings.c.user_id, endings.c.username, endings.c.last_seq, endings.c.boot_id)
    query = select(*ended, endings.c.number)
    query = query.where(endings.c.number > number, ~again).order_by(endings.c.number).limit(limit)
    return [Ended(*row) for row in connection.execute(query)]


def last_ending(connection: Connection) -> int:
    """The highest number of an ended membership; 0 where there is none."""
    newest: int = connection.execute(select(func.coalesce(func.max(endings.c.number), 0))).scalar_one()
    return newest


def forget_endings(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Removes rows of memberships that ended before that time, but for the newest; returns how many."""
    old = select(endings.c.number).where(endings.c.ended_at_ms < before_ms, endings.c.number < last_ending(connection))
    removed: int = connection.execute(delete_from(endings).where(endings.c.number.in_(old.limit(limit)))).rowcount
    return removed


def _is_member(room: RoomRecord, user_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return members.c.room_number == room.number, members.c.user_id == user_id


def rooms_of(connection: Connection, user_id: str) -> list[RoomRecord]:
    """The rooms that a person is a member of, by name."""
    return [_record(row) for row in connection.execute(_SELECT_MINE, {"me": user_id})]


def list_rooms(
    connection: Connection, user_id: str | None, *, query: str, after_room_id: str | None, limit: int
) -> list[RoomRecord]:
    """Up to `limit` rooms that the person may see (None: all rooms) by name, behind `after_room_id`.

    `query` is a part of the name, regardless of case. Raises ParleyError bad_request where `after_room_id` is no room.
    """
    page = _select_rooms(user_id)
    if query:
        page = page.where(rooms.c.name_key.contains(rules.name_key(query), autoescape=True))
    if after_room_id is not None:
        after = connection.execute(
            select(rooms.c.name_key).where(rooms.c.room_id == after_room_id)
        ).scalar_one_or_none()
        if after is None:
            raise ParleyError(ErrorCode.BAD_REQUEST, "the cursor is not one that this server gave")
        page = page.where(rooms.c.name_key > after)
    return _fetch(connection, page.order_by(rooms.c.name_key).limit(limit))


def read_members(
    connection: Connection, user_id: str, reference: str, *, limit: int
) -> tuple[RoomRecord, list[MemberRecord] | None]:
    """A room of the person's and its members by name; None in their place where there are more than `limit`.

    Raises ParleyError no_such_room, not_a_member.
    """
    room = find_room_of_member(connection, reference, user_id)
    if room.member_count > limit:
        return room, None
    return room, [MemberRecord(*row) for row in connection.execute(_select_members(room).limit(limit))]


def read_crowd(
    connection: Connection, room: RoomRecord, *, online_ids: AbstractSet[str], limit: int
) -> list[MemberRecord]:
    """`limit` members of a room that has more: those who are online first, each part by name."""
    query = _select_members(room)
    online: list[MemberRecord] = []
    for chunk in _chunks(sorted(online_ids)):
        online += [MemberRecord(*row) for row in connection.execute(query.where(members.c.user_id.in_(chunk)))]
    online = sorted(online, key=lambda member: member.username)[:limit]
    rest = [MemberRecord(*row) for row in connection.execute(query.limit(limit))]
    return online + [member for member in rest if member.user_id not in online_ids][: limit - len(online)]


def _select_members(room: RoomRecord) -> Select[Any]:
    query = select(members.c.user_id, members.c.username, members.c.role)
    return query.where(members.c.room_number == room.number).order_by(members.c.username)


def memberships(connection: Connection, user_ids: Iterable[str]) -> set[tuple[str, str]]:
    """The (room id, user id) pairs of these people."""
    found: set[tuple[str, str]] = set()
    query = select(rooms.c.room_id, members.c.user_id).join(rooms, rooms.c.number == members.c.room_number)
    for chunk in _chunks(sorted(set(user_ids))):
        found |= {(row[0], row[1]) for row in connection.execute(query.where(members.c.user_id.in_(chunk)))}
    return found


def last_seqs(connection: Connection, room_ids: Iterable[str]) -> dict[str, int]:
    """The newest message's number of each of these rooms; unknown rooms are left out."""
    found: dict[str, int] = {}
    query = select(rooms.c.room_id, rooms.c.last_seq)
    for chunk in _chunks(sorted(set(room_ids))):
        found |= {row[0]: row[1] for row in connection.execute(query.where(rooms.c.room_id.in_(chunk)))}
    return found


def count_rooms(connection: Connection) -> int:
    """How many rooms there are."""
    return connection.execute(select(func.count()).select_from(rooms)).scalar_one()


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
