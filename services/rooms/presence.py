"""Who is here: sessions of edges, and in which rooms they are. Pure: every call is given the time.

A person is in a room through the sessions of their connections; through one or through three, they are there once.
Presence lives in memory only. Each session belongs to one run of one edge (a boot); an edge whose stream is lost
gets a grace period to come back, and then its people are offline. When it comes back it announces everyone again,
which also repairs what was missed while it was away. An edge that has a stream to another instance is not lost: that
instance renews its lease here.

Every call that changes something returns the changes that the others in the room should see. A crowded room gets a
count at most once a second instead, because one change in a room of 1,000 costs 1,000 deliveries.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GRACE_S: Final = 5.0
"""An edge reconnects within a second or two; who is gone for longer is gone."""

CROWD: Final = 100
"""Protocol section 5: with more present than this, changes are counted and not named."""

COUNT_INTERVAL_S: Final = 1.0
"""Protocol section 5: at most one count a second and room."""

CLOSED_S: Final = 60.0
"""How long the end of a session is remembered, so that older news of it, which came by another way, does not open it
again."""

ANNOUNCE_RACE_S: Final = 10.0
"""An edge's list of everyone may be this old when it arrives: a session heard of since is kept without being on it."""


class Action(Enum):
    """What a change says."""

    JOIN = "join"
    LEAVE = "leave"
    ONLINE = "online"
    OFFLINE = "offline"
    COUNT = "count"


class Change(NamedTuple):
    """One thing that those in a room should see. `online_count` is how many are present after it."""

    room_id: str
    action: Action
    username: str
    online_count: int


class Session(NamedTuple):
    """A person's connection, and the run of the edge that holds it."""

    session_id: str
    user_id: str
    username: str
    boot_id: str


@dataclass(slots=True)
class _Here:
    """A session that is connected."""

    session: Session
    heard_at: float
    room_ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Boot:
    """One run of an edge. `lost_at` is None while a stream is open; `leased_until` is what other instances say."""

    lost_at: float | None
    leased_until: float = float("-inf")
    edge_name: str = ""
    stream_count: int = 0
    session_ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Person:
    """Somebody in a room, through so many sessions."""

    username: str
    session_count: int


@dataclass(slots=True)
class _Room:
    people: dict[str, _Person] = field(default_factory=dict)
    counted_at: float = float("-inf")
    is_count_due: bool = False


class Presence:
    """Everyone who is connected to this installation's edges."""

    def __init__(
        self, *, grace_s: float = GRACE_S, crowd: int = CROWD, count_interval_s: float = COUNT_INTERVAL_S
    ) -> None:
        self._grace_s = grace_s
        self._crowd = crowd
        self._count_interval_s = count_interval_s
        self._boots: dict[str, _Boot] = {}
        self._sessions: dict[str, _Here] = {}
        self._of_user: dict[str, set[str]] = {}  # user id -> session ids
        self._rooms: dict[str, _Room] = {}
        self._counts_due: list[tuple[float, str]] = []
        self._closed: dict[str, float] = {}  # session id -> when it ended, in the order of these times

    # What is asked.

    @property
    def session_count(self) -> int:
        """How many sessions are connected."""
        return len(self._sessions)

    def online_count(self, room_id: str) -> int:
        """How many people are present in the room."""
        room = self._rooms.get(room_id)
        return len(room.people) if room else 0

    def online(self, room_id: str) -> Mapping[str, str]:
        """Who is present in the room: user id → name."""
        room = self._rooms.get(room_id)
        return {user_id: person.username for user_id, person in room.people.items()} if room else {}

    def room_ids(self, session_id: str) -> frozenset[str]:
        """Where a session is present."""
        here = self._sessions.get(session_id)
        return frozenset(here.room_ids) if here else frozenset()

    def next_tick_at(self) -> float | None:
        """When `tick` has something to do next; None while nothing is pending."""
        lost = [self._ends_at(boot) for boot in self._boots.values() if boot.lost_at is not None]
        if self._counts_due:
            lost.append(self._counts_due[0][0])
        return min(lost, default=None)

    @property
    def attached(self) -> list[tuple[str, str]]:
        """The runs of edges that have a stream to this instance, each with the name of its edge."""
        return [(boot_id, boot.edge_name) for boot_id, boot in self._boots.items() if boot.stream_count]

    def sessions_of(self, boot_id: str) -> list[tuple[Session, list[str]]]:
        """Everyone who is connected to that run of an edge, and where."""
        boot = self._boots.get(boot_id)
        here = [self._sessions[session_id] for session_id in boot.session_ids] if boot else []
        return [(one.session, sorted(one.room_ids)) for one in here]

    def has_ended(self, session_id: str) -> bool:
        """Whether that session has ended not long ago; what is heard of it after that is old."""
        return session_id in self._closed

    # Edges.

    def attach(self, boot_id: str, edge_name: str, now: float) -> list[Change]:
        """An edge has opened a stream. What an earlier run of the same edge left behind ends at once."""
        boot = self._boot(boot_id, now)
        boot.edge_name = edge_name
        boot.stream_count += 1
        boot.lost_at = None
        changes: list[Change] = []
        for other_id, other in list(self._boots.items()):
            if other_id != boot_id and other.edge_name == edge_name and other.stream_count == 0:
                changes += self._end_boot(other_id, now)
        return changes

    def detach(self, boot_id: str, now: float) -> None:
        """A stream of an edge has ended; with the last one the grace period begins."""
        boot = self._boots[boot_id]
        boot.stream_count -= 1
        if boot.stream_count == 0:
            boot.lost_at = now

    def lease(self, boot_id: str, edge_name: str, until: float, now: float) -> None:
        """Another instance has a stream of that run of an edge: it is not lost before `until`."""
        boot = self._boot(boot_id, now)
        boot.edge_name = boot.edge_name or edge_name
        boot.leased_until = max(boot.leased_until, until)

    def announce(self, boot_id: str, sessions: Iterable[tuple[Session, Iterable[str]]], now: float) -> list[Change]:
        """An edge says who is connected to it, and where each one is.

        A session of that edge that is not among them has ended, unless it was heard of too recently to be on the list.
        """
        changes: list[Change] = []
        listed = set()
        for session, room_ids in sessions:
            listed.add(session.session_id)
            changes += self.open(session, room_ids, now)
        for session_id in list(self._boot(boot_id, now).session_ids - listed):
            if now - self._sessions[session_id].heard_at > ANNOUNCE_RACE_S:
                changes += self._end_session(session_id, now)
        return changes

    # Sessions.

    def open(self, session: Session, room_ids: Iterable[str], now: float) -> list[Change]:
        """A person is connected and present in these rooms, beside those where the session is already."""
        here = self._sessions.get(session.session_id)
        changes: list[Change] = []
        if here is not None and here.session != session:
            changes += self._end_session(session.session_id, now)
            here = None
        if here is None:
            here = self._sessions[session.session_id] = _Here(session, now)
            self._boot(session.boot_id, now).session_ids.add(session.session_id)
            self._of_user.setdefault(session.user_id, set()).add(session.session_id)
        here.heard_at = now
        for room_id in room_ids:
            changes += self._enter_room(here, room_id, now)
        return changes

    def close(self, session_ids: Iterable[str], now: float) -> list[Change]:
        """Connections have ended. Unknown ids are ignored."""
        changes: list[Change] = []
        for session_id in session_ids:
            if session_id in self._sessions:
                changes += self._end_session(session_id, now)
        return changes

    def enter(
        self, session: Session, room_id: str, now: float, *, is_exclusive: bool, is_newcomer: bool
    ) -> list[Change]:
        """A session is present in a room from now on; with `is_exclusive` in no other one.

        `is_newcomer` says that the person has just become a member, which is shown in place of being online.
        """
        changes = self.open(session, (), now)
        here = self._sessions[session.session_id]
        if is_exclusive:
            for other_id in sorted(here.room_ids - {room_id}):
                changes += self._leave_room(here, other_id, now)
        online = self._enter_room(here, room_id, now)
        if is_newcomer:
            changes += self._change(room_id, Action.JOIN, session.username, now)
        else:
            changes += online
        return changes

    def remove(self, user_id: str, username: str, room_id: str, now: float) -> list[Change]:
        """A membership has ended: the person is in that room through none of their sessions."""
        room = self._rooms.get(room_id)
        if room is not None and user_id in room.people:
            for session_id in self._of_user[user_id]:
                self._sessions[session_id].room_ids.discard(room_id)
            crowd = len(room.people)
            del room.people[user_id]
        else:
            crowd = self.online_count(room_id)
        return self._change(room_id, Action.LEAVE, username, now, crowd=crowd)

    def tick(self, now: float) -> list[Change]:
        """What has become due: counts of crowded rooms, and edges that did not come back."""
        changes: list[Change] = []
        for boot_id, boot in list(self._boots.items()):
            if boot.lost_at is not None and self._ends_at(boot) <= now:
                # Nobody has said that these connections ended: who is heard of again after all is here again.
                changes += self._end_boot(boot_id, now, is_certain=False)
        while self._counts_due and self._counts_due[0][0] <= now:
            _, room_id = heapq.heappop(self._counts_due)
            room = self._rooms.get(room_id)
            if room is not None and room.is_count_due:
                room.is_count_due = False
                room.counted_at = now
                changes.append(Change(room_id, Action.COUNT, "", len(room.people)))
            self._forget_if_empty(room_id, now)
        return changes

    # How it is done.

    def _ends_at(self, boot: _Boot) -> float:
        assert boot.lost_at is not None, "only what is lost ends by itself"
        return max(boot.lost_at + self._grace_s, boot.leased_until)

    def _boot(self, boot_id: str, now: float) -> _Boot:
        """The run of the edge; one that was never attached has the grace period to do so."""
        return self._boots.setdefault(boot_id, _Boot(lost_at=now))

    def _end_boot(self, boot_id: str, now: float, *, is_certain: bool = True) -> list[Change]:
        changes: list[Change] = []
        for session_id in list(self._boots[boot_id].session_ids):
            changes += self._end_session(session_id, now, is_certain=is_certain)
        del self._boots[boot_id]
        return changes

    def _end_session(self, session_id: str, now: float, *, is_certain: bool = True) -> list[Change]:
        here = self._sessions[session_id]
        changes: list[Change] = []
        for room_id in sorted(here.room_ids):
            changes += self._leave_room(here, room_id, now)
        del self._sessions[session_id]
        if is_certain:
            self._remember_end(session_id, now)
        self._boots[here.session.boot_id].session_ids.discard(session_id)
        of_user = self._of_user[here.session.user_id]
        of_user.discard(session_id)
        if not of_user:
            del self._of_user[here.session.user_id]
        return changes

    def _remember_end(self, session_id: str, now: float) -> None:
        self._closed.pop(session_id, None)
        self._closed[session_id] = now
        while (oldest := next(iter(self._closed.items())))[1] + CLOSED_S < now:
            del self._closed[oldest[0]]

    def _enter_room(self, here: _Here, room_id: str, now: float) -> list[Change]:
        if room_id in here.room_ids:
            return []
        here.room_ids.add(room_id)
        room = self._rooms.setdefault(room_id, _Room())
        person = room.people.get(here.session.user_id)
        if person is not None:
            person.session_count += 1
            return []
        room.people[here.session.user_id] = _Person(here.session.username, 1)
        return self._change(room_id, Action.ONLINE, here.session.username, now)

    def _leave_room(self, here: _Here, room_id: str, now: float) -> list[Change]:
        here.room_ids.discard(room_id)
        room = self._rooms[room_id]
        person = room.people[here.session.user_id]
        person.session_count -= 1
        if person.session_count:
            return []
        crowd = len(room.people)
        del room.people[here.session.user_id]
        return self._change(room_id, Action.OFFLINE, person.username, now, crowd=crowd)

    def _change(
        self, room_id: str, action: Action, username: str, now: float, *, crowd: int | None = None
    ) -> list[Change]:
        """The change itself, or in a crowded room the count, now or when the interval is over."""
        room = self._rooms.get(room_id)
        present = len(room.people) if room else 0
        if room is None or (present if crowd is None else crowd) <= self._crowd:
            self._forget_if_empty(room_id, now)
            return [Change(room_id, action, username, present)]
        if room.is_count_due:
            return []
        room.is_count_due = True
        heapq.heappush(self._counts_due, (max(now, room.counted_at + self._count_interval_s), room_id))
        return []

    def _forget_if_empty(self, room_id: str, now: float) -> None:
        room = self._rooms.get(room_id)
        if room is None or room.people or room.is_count_due:
            return
        # An empty room is remembered while another count of it would come too soon.
        if (until := room.counted_at + self._count_interval_s) <= now:
            del self._rooms[room_id]
        else:
            heapq.heappush(self._counts_due, (until, room_id))
