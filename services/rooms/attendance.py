"""Presence in time: gives presence the clock, puts what it says onto the bus, and wakes it when something is due."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from services.rooms.bus import PresenceChanged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.common.clock import Clock
    from services.common.tasks import TaskSet
    from services.rooms.bus import Bus
    from services.rooms.presence import Change, Presence, Session

# While something is due it is looked at so often: an edge that is lost, or a count, is at most so much late.
_TICK_S: Final = 0.25


class Attendance:
    """Who is here. Each call publishes what it changed before it returns."""

    def __init__(self, presence: Presence, *, bus: Bus, clock: Clock) -> None:
        self._presence = presence
        self._bus = bus
        self._clock = clock
        self._due = asyncio.Event()
        self._removal_count = 0

    def start(self, tasks: TaskSet) -> None:
        """Begins to watch what falls due."""
        tasks.spawn(self._watch(), name="presence")

    @property
    def removal_count(self) -> int:
        """Counts ended memberships. Whoever reads memberships and finds this changed afterwards must read again."""
        return self._removal_count

    def online_count(self, room_id: str) -> int:
        """How many people are present in the room."""
        return self._presence.online_count(room_id)

    def online(self, room_id: str) -> Mapping[str, str]:
        """Who is present in the room: user id → name."""
        return self._presence.online(room_id)

    def attach(self, boot_id: str, edge_name: str) -> None:
        """An edge has opened a stream."""
        self._publish(self._presence.attach(boot_id, edge_name, self._clock.monotonic()))

    def detach(self, boot_id: str) -> None:
        """A stream of an edge has ended."""
        self._presence.detach(boot_id, self._clock.monotonic())
        self._publish(())

    def announce(self, boot_id: str, sessions: Sequence[tuple[Session, Iterable[str]]]) -> None:
        """An edge says who is connected to it, and where each one is."""
        self._publish(self._presence.announce(boot_id, sessions, self._clock.monotonic()))

    def open(self, session: Session, room_ids: Iterable[str]) -> None:
        """A person is connected, and present in these rooms."""
        self._publish(self._presence.open(session, room_ids, self._clock.monotonic()))

    def close(self, session_ids: Iterable[str]) -> None:
        """Connections have ended."""
        self._publish(self._presence.close(session_ids, self._clock.monotonic()))

    def enter(self, session: Session, room_id: str, *, is_exclusive: bool, is_newcomer: bool) -> None:
        """A session is present in a room, which its person has perhaps just joined."""
        now = self._clock.monotonic()
        changes = self._presence.enter(session, room_id, now, is_exclusive=is_exclusive, is_newcomer=is_newcomer)
        self._publish(changes)

    def remove(self, user_id: str, username: str, room_id: str) -> None:
        """A membership has ended."""
        self._removal_count += 1
        self._publish(self._presence.remove(user_id, username, room_id, self._clock.monotonic()))

    def _publish(self, changes: Sequence[Change]) -> None:
        if changes:
            self._bus.publish(PresenceChanged(changes))
        if self._presence.next_tick_at() is not None:
            self._due.set()

    async def _watch(self) -> None:
        while True:
            due_at = self._presence.next_tick_at()
            if due_at is None:
                self._due.clear()
                await self._due.wait()
                continue
            now = self._clock.monotonic()
            if due_at <= now:
                self._publish(self._presence.tick(now))
            else:
                await self._clock.sleep(min(due_at - now, _TICK_S))
