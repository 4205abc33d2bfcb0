"""Presence in time: gives presence the clock, puts what it says onto the bus, and wakes it when something is due.

With several instances it also passes on what edges say to this one, hears what they say to others, and keeps the
leases of edges that have a stream here (see presence_news).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from services.rooms.bus import MembershipEnded, PresenceChanged, PresenceTold
from services.rooms.presence_news import LEASE_S, RENEW_S, Announced, Asked, Attached, Closed, Entered, Opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.common.clock import Clock
    from services.common.tasks import TaskSet
    from services.rooms.bus import Bus, Event
    from services.rooms.presence import Change, Presence, Session
    from services.rooms.presence_news import News

# While something is due it is looked at so often: an edge that is lost, or a count, is at most so much late.
_TICK_S: Final = 0.25
# Ended memberships by which one that is heard twice is known: more than end within the seconds that lie between.
_ENDED_KNOWN_MAX: Final = 10_000
# Sessions in one piece of news: some 60 KB, and rooms of one person at most 500.
_SESSIONS_CHUNK: Final = 200


class Attendance:
    """Who is here. Each call publishes what it changed before it returns."""

    def __init__(self, presence: Presence, *, bus: Bus, clock: Clock) -> None:
        self._presence = presence
        self._bus = bus
        self._clock = clock
        self._due = asyncio.Event()
        self._removal_count = 0
        self._ended: OrderedDict[int, None] = OrderedDict()
        bus.subscribe(self._on_event)

    def start(self, tasks: TaskSet) -> None:
        """Begins to watch what falls due."""
        tasks.spawn(self._watch(), name="presence")
        if self._bus.is_shared:
            tasks.spawn(self._renew(), name="presence leases")

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
        self._tell(Attached([(boot_id, edge_name)]))

    def detach(self, boot_id: str) -> None:
        """A stream of an edge has ended."""
        self._presence.detach(boot_id, self._clock.monotonic())
        self._publish(())

    def announce(self, boot_id: str, sessions: Sequence[tuple[Session, Iterable[str]]]) -> None:
        """An edge says who is connected to it, and where each one is. It says so to every instance."""
        self._publish(self._presence.announce(boot_id, sessions, self._clock.monotonic()))

    def open(self, session: Session, room_ids: Iterable[str]) -> None:
        """A person is connected, and present in these rooms."""
        found = list(room_ids)
        self._publish(self._presence.open(session, found, self._clock.monotonic()))
        self._tell(Opened(session, found))

    def close(self, session_ids: Iterable[str]) -> None:
        """Connections have ended."""
        ended = list(session_ids)
        self._publish(self._presence.close(ended, self._clock.monotonic()))
        self._tell(Closed(ended))

    def enter(self, session: Session, room_id: str, *, is_exclusive: bool, is_newcomer: bool) -> None:
        """A session is present in a room, which its person has perhaps just joined."""
        now = self._clock.monotonic()
        changes = self._presence.enter(session, room_id, now, is_exclusive=is_exclusive, is_newcomer=is_newcomer)
        self._publish(changes)
        self._tell(Entered(session, room_id, is_exclusive, is_newcomer))

    def ask(self) -> None:
        """Asks the other instances about edges that have no stream here."""
        self._tell(Asked([boot_id for boot_id, _ in self._presence.attached]))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, MembershipEnded):
            self._on_ended(event)
        elif isinstance(event, PresenceTold):
            self._on_news(event.news)

    def _on_ended(self, event: MembershipEnded) -> None:
        if event.number:
            if event.number in self._ended:
                return
            self._ended[event.number] = None
            if len(self._ended) > _ENDED_KNOWN_MAX:
                self._ended.popitem(last=False)
        self._removal_count += 1
        now = self._clock.monotonic()
        self._publish(self._presence.remove(event.user_id, event.username, event.room_id, now))

    def _on_news(self, news: News) -> None:
        presence, now = self._presence, self._clock.monotonic()
        changes: Sequence[Change] = ()
        match news:
            case Opened(session, room_ids) if not presence.has_ended(session.session_id):
                changes = presence.open(session, room_ids, now)
            case Entered(session, room_id, exclusive, newcomer) if not presence.has_ended(session.session_id):
                changes = presence.enter(session, room_id, now, is_exclusive=exclusive, is_newcomer=newcomer)
            case Closed(session_ids):
                changes = presence.close(session_ids, now)
            case Attached(boots):
                for boot_id, edge_name in boots:
                    presence.lease(boot_id, edge_name, now + LEASE_S, now)
            case Asked(boot_ids):
                self._answer(boot_ids)
            case Announced(boot_id, edge_name, sessions):
                presence.lease(boot_id, edge_name, now + LEASE_S, now)
                for session, room_ids in sessions:
                    if not presence.has_ended(session.session_id):
                        changes = [*changes, *presence.open(session, room_ids, now)]
        self._publish(changes)

    def _answer(self, known_boot_ids: Sequence[str]) -> None:
        for boot_id, edge_name in self._presence.attached:
            if boot_id not in known_boot_ids:
                sessions = self._presence.sessions_of(boot_id)
                for start in range(0, len(sessions), _SESSIONS_CHUNK):
                    self._tell(Announced(boot_id, edge_name, sessions[start : start + _SESSIONS_CHUNK]))

    def _tell(self, news: News) -> None:
        if self._bus.is_shared:
            self._bus.send(PresenceTold(news))

    def _publish(self, changes: Sequence[Change]) -> None:
        if changes:
            self._bus.deliver(PresenceChanged(changes))
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

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(RENEW_S)
            self._tell(Attached(self._presence.attached))
