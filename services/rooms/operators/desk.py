"""What operators do with rooms: look, close, open, delete.

A room that was deleted is taken apart in the background, by this instance or by another that finds it.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.rooms.bus import MembershipEnded
from services.rooms.operators import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from services.common.clock import Clock
    from services.common.db import Database
    from services.common.tasks import TaskSet
    from services.rooms.attendance import Attendance
    from services.rooms.bus import Bus
    from services.rooms.counts import RoomsCounts
    from services.rooms.operators.store import MemberDetails, RoomDetails
    from services.rooms.store import RoomRecord

STEP_ROWS: Final = 500
"""Rows of one transaction while a room is taken apart: a few milliseconds of the writer, between which others write."""

LOOK_INTERVAL_S: Final = 60.0
"""How long a deleted room may wait whose instance has ended before it was taken apart."""

_VERSION_BITS: Final = 62
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MembersPage:
    """Members of a room by name, who of them is online, and the name behind which there are more, or nothing."""

    room: RoomRecord
    members: Sequence[MemberDetails]
    online_ids: AbstractSet[str]
    next_name: str


class Desk:
    """Raises ParleyError no_such_room, unavailable, overloaded."""

    def __init__(
        self, database: Database, *, attendance: Attendance, bus: Bus, clock: Clock, counts: RoomsCounts
    ) -> None:
        self._database = database
        self._attendance = attendance
        self._bus = bus
        self._clock = clock
        self._counts = counts
        self._is_wanted = asyncio.Event()

    def start(self, tasks: TaskSet) -> None:
        """Takes apart what is deleted, from now on and from before."""
        tasks.spawn(self._run(), name="deleted rooms")
        tasks.spawn(self._remind(), name="deleted rooms, now and then")

    async def show(self, reference: str) -> RoomDetails:
        """One room."""
        return await self._database.read(lambda connection: store.describe(connection, reference))

    async def members(self, reference: str, *, after: str, limit: int) -> MembersPage:
        """Members by name, behind the name `after`."""
        room, found = await self._database.read(
            lambda connection: store.members_behind(connection, reference, after, limit=limit + 1)
        )
        page = found[:limit]
        online_ids = set(self._attendance.online(room.room_id))
        return MembersPage(room, page, online_ids, page[-1].username if len(found) > limit else "")

    async def set_closed(self, reference: str, *, is_closed: bool) -> RoomRecord:
        """Closes a room or opens it again."""
        return await self._database.write(
            lambda connection: store.set_closed(connection, reference, is_closed=is_closed)
        )

    async def delete(self, reference: str) -> RoomDetails:
        """Deletes a room; returns what it was. Its members are told, and its rows go, right after."""
        details = await self._database.write(lambda connection: store.mark_deleted(connection, reference))
        self._is_wanted.set()
        return details

    async def take_apart(self) -> None:
        """Removes what is left of all deleted rooms. Raises ParleyError where the database fails."""
        while True:
            now_ms, version = int(self._clock.now() * 1_000), secrets.randbits(_VERSION_BITS)
            work = partial(store.take_apart, now_ms=now_ms, version=version, limit=STEP_ROWS)
            step = await self._database.write(work)
            if step is None:
                return
            for one in step.ended:
                self._bus.publish(
                    MembershipEnded(one.room_id, one.user_id, one.last_seq, username=one.username, number=one.number)
                )
            if step.is_gone:
                self._counts.room_count -= 1

    async def _run(self) -> None:
        while True:
            self._is_wanted.clear()
            try:
                await self.take_apart()
            except ParleyError as error:
                _log.warning("a deleted room cannot be taken apart yet", code=error.code, reason=error.message)
            await self._is_wanted.wait()

    async def _remind(self) -> None:
        while True:
            await self._clock.sleep(LOOK_INTERVAL_S)
            self._is_wanted.set()
