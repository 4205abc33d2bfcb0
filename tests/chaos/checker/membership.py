"""I11: nobody sees live or replayed messages of a room that they are not a member of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.checker.excuses import GRACE_S, due
from tests.chaos.checker.violation import Violation
from tests.chaos.events import Close, Deliver, Fault, JoinAsk, JoinOk, KickOk, LeaveOk, Open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent


@dataclass(slots=True)
class Stay:
    """What is known of one user and room."""

    ended: LeaveOk | KickOk | None = None
    since: int | None = None  # the last join's seq


@dataclass
class Membership:
    """Joins, leaves and kicks, against what arrives."""

    _members: dict[tuple[str, str], Stay] = field(default_factory=dict)
    _edges: dict[str, str] = field(default_factory=dict)  # conn
    _late: list[tuple[LeaveOk | KickOk, Deliver, str]] = field(default_factory=list)  # and the edge
    _faults: list[Fault] = field(default_factory=list)

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at who is a member and what they are shown."""
        if isinstance(event, Deliver):
            if event.via != "history":
                yield from self._delivered(event)
        elif isinstance(event, JoinAsk):
            self._members[event.user, event.room] = Stay()
        elif isinstance(event, JoinOk):
            member = self._members.setdefault((event.user, event.room), Stay())
            member.ended, member.since = None, event.seq
        elif isinstance(event, LeaveOk | KickOk):
            self._members.setdefault((event.user, event.room), Stay()).ended = event
        elif isinstance(event, Open):
            self._edges[event.conn] = event.edge
        elif isinstance(event, Close):
            self._edges.pop(event.conn, None)
        elif isinstance(event, Fault):
            self._faults.append(event)

    def _delivered(self, event: Deliver) -> Iterator[Violation]:
        member = self._members.get((event.c, event.room))
        if member is None:
            yield Violation("I11", f"{event.c} never joined {event.room}", (event,))
            self._members[event.c, event.room] = Stay()
            return
        ended = member.ended
        if ended is None:
            if member.since is not None and event.seq <= member.since:
                what = f"{event.seq} of {event.room} is older than the membership, which began after {member.since}"
                yield Violation("I11", what, (event,))
            return
        if isinstance(ended, LeaveOk) and ended.conn == event.conn:
            yield Violation("I11", f"came after {event.c} had left on the same connection", (ended, event))
        elif event.t > ended.t + GRACE_S and len(self._late) < _LATE_MAX:
            self._late.append((ended, event, self._edges.get(event.conn, "")))

    def end(self) -> Iterator[Violation]:
        """What came late is excused where the way of the news was broken: a stopped edge cannot be told."""
        for ended, event, edge in self._late:
            if event.t > due(ended.t, event.t, edge, "rooms", self._faults):
                what = f"came to {event.c} {event.t - ended.t:.1f} s after the membership had ended"
                yield Violation("I11", what, (ended, event))


_LATE_MAX = 10_000
"""Late deliveries that are kept until the faults are known; one is enough to fail a run."""
