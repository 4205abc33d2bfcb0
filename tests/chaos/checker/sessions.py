"""I16: of racing logins at most one wins, and what was logged out or taken over is dead on every edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.excuses import GRACE_S, due
from tests.chaos.checker.violation import Violation
from tests.chaos.events import Close, DeadToken, Deliver, End, Fault, Heard, LogOut, Open, Race, Taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent

LATE_MAX = 1_000


class Sessions:
    """Logins, logouts and takeovers, against what still works."""

    def __init__(self) -> None:
        self._out: dict[str, LogOut] = {}  # conn
        self._taken: dict[str, Taken] = {}  # conn: what ended it
        self._edges: dict[str, str] = {}  # conn
        self._late: list[tuple[Taken, Deliver | Heard | Close, str]] = []  # and the edge
        self._faults: list[Fault] = []
        self._ended_at: float | None = None

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at who is let in, and at what comes on connections whose session is over."""
        if isinstance(event, Heard) or (isinstance(event, Deliver) and event.via != "history"):
            # (A page that was asked for before may still come.)
            out = self._out.get(event.conn)
            if out is not None:
                yield Violation("I16", f"came after {event.c} had logged out on the same connection", (out, event))
            self._came_late(event)
        elif isinstance(event, LogOut):
            self._out[event.conn] = event
            self._taken.pop(event.conn, None)
        elif isinstance(event, DeadToken):
            if event.accepted:
                witness = tuple(one for one in (self._out.get(event.conn), event) if one is not None)
                yield Violation("I16", f"{event.edge} accepted the token of a session that was logged out", witness)
        elif isinstance(event, Race):
            yield from self._raced(event)
        elif isinstance(event, Taken):
            if event.old not in self._out:
                self._taken[event.old] = event
        else:
            self._follow(event)

    def _follow(self, event: AnyEvent) -> None:
        """What judges nothing yet."""
        if isinstance(event, Open):
            self._edges[event.conn] = event.edge
        elif isinstance(event, Close):
            self._came_late(event)
            for known in (self._taken, self._out, self._edges):
                known.pop(event.conn, None)
        elif isinstance(event, Fault):
            self._faults.append(event)
        elif isinstance(event, End):
            self._ended_at = event.t

    def _raced(self, race: Race) -> Iterator[Violation]:
        if len(race.won) > 1:
            yield Violation("I16", f"{len(race.won)} of the logins that raced won", (race,))
        elif not race.won and set(race.codes) == {"already_logged_in"}:
            yield Violation("I16", f"{race.c} was locked out, and nobody was logged in", (race,))

    def _came_late(self, event: Deliver | Heard | Close) -> None:
        taken = self._taken.get(event.conn)
        if taken is not None and event.t > taken.t + GRACE_S and len(self._late) < LATE_MAX:
            self._late.append((taken, event, self._edges.get(event.conn, "")))

    def end(self) -> Iterator[Violation]:
        """What came late is excused where the way of the news was broken: a stopped edge cannot be told."""
        for taken, event, edge in self._late:
            what = "was closed" if isinstance(event, Close) else "was shown something"
            if event.t > due(taken.t, event.t, edge, "auth", self._faults):
                since_s = event.t - taken.t
                yield Violation("I16", f"{taken.old} {what} {since_s:.1f} s after it was taken over", (taken, event))
        for taken in self._taken.values():
            edge, end = self._edges.get(taken.old, ""), self._ended_at
            if end is not None and end > due(taken.t, end, edge, "auth", self._faults):
                yield Violation("I16", f"{taken.old} was never closed after it was taken over", (taken,))
