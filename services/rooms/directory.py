"""What people do with rooms: create, join, leave, list, read. The store, presence and the bus together.

Changes go through the writer thread, in one order with the messages: who has joined can publish at once, and who has
left cannot. What others must know is published when the change is durable.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import log, store
from services.rooms import rooms as rules
from services.rooms.bus import MembershipEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from services.common.clock import Clock
    from services.common.db import Database
    from services.rooms.attendance import Attendance
    from services.rooms.bus import Bus
    from services.rooms.counts import RoomsCounts
    from services.rooms.log import History
    from services.rooms.presence import Session
    from services.rooms.store import Ended, MemberRecord, RoomRecord

T = TypeVar("T")

MEMBERS_MAX: Final = 1_000
"""Members in a list; longer ones serve nobody and fill a frame."""

# Names the kind of a cursor, so that another kind can come one day.
_CURSOR_PREFIX: Final = b"1:"
# A version of a room's members; see tables.
_VERSION_BITS: Final = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How many rooms one person may own and be in."""

    owned_max: int
    joined_max: int


@dataclass(frozen=True, slots=True)
class RoomPage:
    """Rooms by name, and where the next page begins; empty on the last page."""

    rooms: Sequence[RoomRecord]
    next_cursor: str


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Members of a room, and the ids of the people who are online in it."""

    room: RoomRecord
    members: Sequence[MemberRecord]
    online_ids: AbstractSet[str]


class Directory:
    """The rooms of the installation as people and operators see them. Raises ParleyError."""

    def __init__(
        self,
        database: Database,
        *,
        attendance: Attendance,
        bus: Bus,
        clock: Clock,
        quotas: Quotas,
        counts: RoomsCounts,
    ) -> None:
        self._database = database
        self._attendance = attendance
        self._bus = bus
        self._clock = clock
        self._quotas = quotas
        self._counts = counts

    async def open_session(self, session: Session, *, enter_rooms: bool) -> list[RoomRecord]:
        """A person is here; returns the rooms that they are a member of."""
        while True:
            removal_count = self._attendance.removal_count
            found = await self._database.read(lambda connection: store.rooms_of(connection, session.user_id))
            if removal_count == self._attendance.removal_count:
                break
        self._attendance.open(session, [room.room_id for room in found] if enter_rooms else ())
        return found

    async def announce(self, boot_id: str, sessions: Sequence[tuple[Session, Sequence[str]]]) -> list[MembershipEnded]:
        """An edge says who is connected to it, and where.

        Returns what it cannot know yet: memberships that ended while nobody could tell it.
        """
        user_ids = {session.user_id for session, _ in sessions}
        while True:
            removal_count = self._attendance.removal_count
            members = await self._database.read(lambda connection: store.memberships(connection, user_ids))
            gone = sorted(
                {
                    (room_id, session.user_id)
                    for session, room_ids in sessions
                    for room_id in room_ids
                    if (room_id, session.user_id) not in members
                }
            )
            seqs = await self._last_seqs(room_id for room_id, _ in gone)
            if removal_count == self._attendance.removal_count:
                break
        present = [
            (session, [room_id for room_id in room_ids if (room_id, session.user_id) in members])
            for session, room_ids in sessions
        ]
        self._attendance.announce(boot_id, present)
        return [MembershipEnded(room_id, user_id, seqs.get(room_id, 0)) for room_id, user_id in gone]

    async def _last_seqs(self, room_ids: Iterable[str]) -> dict[str, int]:
        wanted = set(room_ids)
        if not wanted:
            return {}
        return await self._database.read(lambda connection: store.last_seqs(connection, wanted))

    def close_sessions(self, session_ids: Iterable[str]) -> None:
        """Connections have ended."""
        self._attendance.close(session_ids)

    async def create_room(
        self, session: Session, *, name: str, topic: str, is_private: bool, is_exclusive: bool
    ) -> RoomRecord:
        """A new room with the person as owner, member and present."""
        display_name = rules.display_name(name)
        if display_name is None:
            raise ParleyError(ErrorCode.BAD_ROOM_NAME, "a room name has 1 to 64 printable characters")
        clean_topic = rules.clean_topic(topic)
        if clean_topic is None:
            raise ParleyError(ErrorCode.BAD_REQUEST, "a topic is one line of at most 256 characters")
        new = store.NewRoom(
            room_id=rules.new_room_id(secrets.choice),
            name=display_name,
            topic=clean_topic,
            is_private=is_private,
            epoch=rules.new_epoch(secrets.choice),
            members_version=_new_version(),
        )
        now_ms = self._now_ms()

        def enter(room: RoomRecord) -> None:
            self._counts.room_count += 1
            self._attendance.enter(session, room.room_id, is_exclusive=is_exclusive, is_newcomer=True)

        return await self._change(
            lambda connection: store.create_room(
                connection,
                new,
                owner_id=session.user_id,
                username=session.username,
                now_ms=now_ms,
                owned_max=self._quotas.owned_max,
                joined_max=self._quotas.joined_max,
            ),
            then=enter,
        )

    async def join_room(self, session: Session, reference: str, *, is_exclusive: bool) -> RoomRecord:
        """The person is a member of the room, and present."""
        now_ms = self._now_ms()

        def enter(joined: tuple[RoomRecord, bool]) -> None:
            room, is_newcomer = joined
            self._attendance.enter(session, room.room_id, is_exclusive=is_exclusive, is_newcomer=is_newcomer)

        room, _ = await self._change(
            lambda connection: store.join_room(
                connection,
                reference,
                user_id=session.user_id,
                username=session.username,
                now_ms=now_ms,
                version=_new_version(),
                joined_max=self._quotas.joined_max,
            ),
            then=enter,
        )
        return room

    async def leave_room(self, session: Session, reference: str) -> str:
        """The person is no longer a member; returns the room's id. The session's edge draws the conclusion itself."""
        ended = await self._change(
            lambda connection: store.leave_room(
                connection,
                reference,
                user_id=session.user_id,
                version=_new_version(),
                boot_id=session.boot_id,
                now_ms=self._now_ms(),
            ),
            then=lambda ended: self._tell(ended, except_boot_id=session.boot_id),
        )
        return ended.room_id

    async def remove_member(self, reference: str, username: str) -> Ended:
        """The person of that name is no longer a member, on any edge."""
        return await self._change(
            lambda connection: store.remove_member(
                connection, reference, username=username, version=_new_version(), now_ms=self._now_ms()
            ),
            then=self._tell,
        )

    async def _change(self, work: Callable[[Any], T], *, then: Callable[[T], None]) -> T:
        """Makes a change; when it is durable, `then` is called, even if whoever asked for it has gone meanwhile."""
        future = self._database.submit(work)

        def on_done(done: asyncio.Future[T]) -> None:
            if done.exception() is None:
                then(done.result())

        future.add_done_callback(on_done)
        return await asyncio.shield(future)

    def _tell(self, ended: Ended, *, except_boot_id: str = "") -> None:
        self._bus.publish(
            MembershipEnded(
                ended.room_id, ended.user_id, ended.last_seq, except_boot_id, ended.username, number=ended.number
            )
        )

    async def list_rooms(self, user_id: str | None, *, query: str, cursor: str, limit: int) -> RoomPage:
        """Rooms that the person may see (None: all), whose name contains `query`."""
        after = _read_cursor(cursor) if cursor else None
        found = await self._database.read(
            lambda connection: store.list_rooms(connection, user_id, query=query, after_room_id=after, limit=limit + 1)
        )
        page = found[:limit]
        return RoomPage(page, _make_cursor(page[-1].room_id) if len(found) > limit else "")

    async def list_members(self, user_id: str, reference: str) -> MemberPage:
        """The members of the room, and who of them is online."""
        room, found = await self._database.read(
            lambda connection: store.read_members(connection, user_id, reference, limit=MEMBERS_MAX)
        )
        # Presence belongs to this thread, so a crowd, of which the online ones go first, is read in a second step.
        online_ids = set(self._attendance.online(room.room_id))
        if found is None:
            found = await self._database.read(
                lambda connection: store.read_crowd(connection, room, online_ids=online_ids, limit=MEMBERS_MAX)
            )
        return MemberPage(room, found, online_ids)

    async def list_messages(
        self, user_id: str, reference: str, *, after_seq: int | None, before_seq: int | None, limit: int
    ) -> History:
        """A page of the room's log: behind `after_seq`, or before `before_seq`, or the newest messages."""
        return await self._database.read(
            lambda connection: log.read_history(
                connection, user_id, reference, after_seq=after_seq, before_seq=before_seq, limit=limit
            )
        )

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1_000)


def _new_version() -> int:
    """Made when the work runs, since it may run twice: what was cached of the first time has another one then."""
    return secrets.randbits(_VERSION_BITS)


def _make_cursor(room_id: str) -> str:
    return base64.urlsafe_b64encode(_CURSOR_PREFIX + room_id.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    """The id of the room behind which the page begins. Raises ParleyError bad_request."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        room_id = raw.removeprefix(_CURSOR_PREFIX).decode("ascii")
    except (UnicodeError, binascii.Error, ValueError):
        room_id = ""
    if not rules.is_room_id(room_id) or _make_cursor(room_id) != cursor:
        raise ParleyError(ErrorCode.BAD_REQUEST, "the cursor is not one that this server gave")
    return room_id
