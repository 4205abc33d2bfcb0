"""What the bus may lose, put right from the database: positions of rooms, ended memberships, presence.

Every second, and at once where the bus knows that it has lost something, the ends of all followed rooms and the newest
ended memberships are read. So a lost last message, which no jump would show, is at most so much late, and nothing but
the database is needed for that: with the bus dead this is how everything arrives that other instances write.

Presence is in no database. After a loss, and while the bus is down, the edges are asked again who is here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.rooms import store
from services.rooms.bus import Lost, MembershipEnded
from services.rooms.presence import ANNOUNCE_RACE_S
from services.rooms.stream import HEADS_MAX

if TYPE_CHECKING:
    from services.common.clock import Clock
    from services.common.db import Database
    from services.common.tasks import TaskSet
    from services.rooms.attendance import Attendance
    from services.rooms.bus import Bus, Event
    from services.rooms.counts import RoomsCounts
    from services.rooms.log import MessageLog
    from services.rooms.store import Ended
    from services.rooms.streams import Streams

CHECK_INTERVAL_S: Final = 1.0
"""Without a bus a message is late by this, half of it as a rule; a thousand followed rooms cost a read of 2 ms."""

ASK_INTERVAL_S: Final = 5.0
"""Edges say who is here at most so often: for 5,000 people that is some 50 ms of reading for each edge."""

OVERLAP: Final = 200
"""Ended memberships that are read again: a number may be given before and committed after another one."""

ENDINGS_MAX: Final = 1_000
ENDINGS_KEPT_S: Final = 6 * 3_600.0
"""Longer than an instance that is cut off from the database keeps its streams."""

_SWEEP_INTERVAL_S: Final = 600.0
_COUNT_INTERVAL_S: Final = 10.0  # as often as numbers go to metrics
_log = get_logger(__name__)


class Repair:
    """Checks, where instances share a database: one alone loses nothing."""

    def __init__(
        self,
        database: Database,
        *,
        log: MessageLog,
        streams: Streams,
        attendance: Attendance,
        bus: Bus,
        clock: Clock,
        counts: RoomsCounts,
    ) -> None:
        self._database = database
        self._message_log = log
        self._streams = streams
        self._attendance = attendance
        self._bus = bus
        self._clock = clock
        self._counts = counts
        self._counted_at = clock.monotonic()
        self._is_due = asyncio.Event()
        # Numbers of ended memberships that were heard of, within the overlap; None before the first look.
        self._heard: set[int] = set()
        self._newest: int | None = None
        self._asks_at: list[float] = []
        self._asked_at = float("-inf")
        bus.subscribe(self._on_event)

    def start(self, tasks: TaskSet, *, is_shared: bool) -> None:
        """Begins to check, if other instances may write to the database, and to sweep."""
        if is_shared:
            tasks.spawn(self._run(), name="repair")
            tasks.spawn(self._tick(), name="repair interval")
        tasks.spawn(self._sweep(), name="ended memberships")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Lost):
            now = self._clock.monotonic()
            # Once more when a session can no longer be too new to be missed from what the edge says.
            self._asks_at = [now, now + ANNOUNCE_RACE_S + ASK_INTERVAL_S]
            self._is_due.set()
        elif isinstance(event, MembershipEnded) and event.number:
            self._heard.add(event.number)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(CHECK_INTERVAL_S)
            self._is_due.set()

    async def _run(self) -> None:
        is_failing = False
        while True:
            try:
                await self.check()
                is_failing = False
            except ParleyError as error:
                if not is_failing:
                    _log.warning("followed rooms cannot be checked", code=error.code, reason=error.message)
                is_failing = True
            await self._is_due.wait()
            self._is_due.clear()

    async def check(self) -> None:
        """One look at everything. Raises ParleyError where the database fails."""
        self._ask()
        await self._check_endings()
        await self._count_rooms()
        room_ids = self._streams.followed_room_ids
        for start in range(0, len(room_ids), HEADS_MAX):
            self._streams.announce(await self._message_log.heads(room_ids[start : start + HEADS_MAX]))

    async def _count_rooms(self) -> None:
        """Others make rooms too."""
        now = self._clock.monotonic()
        if self._counted_at + _COUNT_INTERVAL_S <= now:
            self._counted_at = now
            self._counts.room_count = await self._database.read(store.count_rooms)

    def _ask(self) -> None:
        now = self._clock.monotonic()
        is_due = not self._bus.is_up or (self._asks_at and self._asks_at[0] <= now)
        if is_due and self._asked_at + ASK_INTERVAL_S <= now:
            self._asks_at = [at for at in self._asks_at if at > now]
            self._asked_at = now
            self._streams.ask_who_is_here()
            self._attendance.ask()

    async def _check_endings(self) -> None:
        is_first = self._newest is None
        newest = await self._database.read(store.last_ending) if self._newest is None else self._newest
        found = await self._database.read(lambda c: store.endings_behind(c, newest - OVERLAP, ENDINGS_MAX))
        for ended in found:
            if is_first:  # edges that attach learn of what was before from their own list of rooms
                self._heard.add(ended.number)
            elif ended.number not in self._heard:
                self._tell(ended)
        self._newest = newest = max([newest, *(ended.number for ended in found)])
        self._heard = {number for number in self._heard if number > newest - OVERLAP}

    def _tell(self, ended: Ended) -> None:
        self._heard.add(ended.number)
        self._bus.deliver(
            MembershipEnded(
                ended.room_id, ended.user_id, ended.last_seq, ended.boot_id, ended.username, number=ended.number
            )
        )

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_INTERVAL_S)
            before_ms = int((self._clock.now() - ENDINGS_KEPT_S) * 1_000)
            try:
                while await self._database.write(
                    lambda c: store.forget_endings(c, before_ms=before_ms, limit=ENDINGS_MAX)  # noqa: B023
                ):
                    pass
            except ParleyError as error:
                _log.warning("ended memberships cannot be swept", code=error.code, reason=error.message)
