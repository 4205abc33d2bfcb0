"""What one connection sees: I7 every message once and in order, I8 through resumes too, I15 bookmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Bookmark, Close, Deliver, LeaveOk, ResumeOk, Start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent, Event


@dataclass(slots=True)
class Position:
    """Up to where a connection has been shown a room."""

    epoch: str
    seq: int
    last: Event  # what brought it here
    is_resumed: bool  # nothing was shown yet since a resume


class Positions:
    """The positions of all connections that are open."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, Position]] = {}  # conn, room

    def see(self, event: AnyEvent) -> None:
        """Follows the beginnings and ends. (Deliveries are the reader's to judge.)"""
        if isinstance(event, Start):
            start = Position(event.epoch, event.seq, event, is_resumed=False)
            self.of.setdefault(event.conn, {})[event.room] = start
        elif isinstance(event, ResumeOk):
            seq = event.seq if event.recovered else event.last_seq
            self.of.setdefault(event.conn, {})[event.room] = Position(event.epoch, seq, event, is_resumed=True)
        elif isinstance(event, LeaveOk):
            self.of.get(event.conn, {}).pop(event.room, None)
        elif isinstance(event, Close):
            self.of.pop(event.conn, None)


class Continuity:
    """I7 and I8: live and replayed messages of a room follow each other by one, on a connection and beyond it."""

    def __init__(self) -> None:
        self._positions = Positions()

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at what is delivered, and from where on it was promised."""
        if isinstance(event, Deliver):
            if event.via != "history":
                yield from self._delivered(event)
            return
        if isinstance(event, ResumeOk):
            yield from self._resumed(event)
        self._positions.see(event)

    def _delivered(self, event: Deliver) -> Iterator[Violation]:
        rooms = self._positions.of.setdefault(event.conn, {})
        position = rooms.get(event.room)
        if position is None:
            # Not promised: whether it was allowed is a question of membership. It begins here all the same.
            rooms[event.room] = Position(event.epoch, event.seq, event, is_resumed=False)
            return
        if event.epoch != position.epoch:
            invariant, what = "I7", f"the epoch became {event.epoch} within a connection"
        elif event.seq == position.seq + 1:
            position.seq, position.last, position.is_resumed = event.seq, event, False
            return
        elif event.seq > position.seq + 1:
            invariant, what = "I7", f"{event.seq} of {event.room} came after {position.seq}: a gap"
        else:
            invariant, what = "I7", f"{event.seq} of {event.room} came after {position.seq}: again, or too late"
        if position.is_resumed:
            invariant = "I8"
        yield Violation(invariant, what, (position.last, event))
        # Goes on from there, so that one fault is told once.
        if event.seq > position.seq or event.epoch != position.epoch:
            position.epoch, position.seq = event.epoch, event.seq
        position.last, position.is_resumed = event, False

    def _resumed(self, event: ResumeOk) -> Iterator[Violation]:
        if event.recovered and event.last_seq < event.seq:
            yield Violation("I8", f"recovered from {event.seq}, where the room ends at {event.last_seq}", (event,))

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())


class Bookmarks:
    """I15: a heartbeat never names what was not sent before it."""

    def __init__(self) -> None:
        self._positions = Positions()

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at heartbeats, and at what came before them."""
        if isinstance(event, Bookmark):
            position = self._positions.of.get(event.conn, {}).get(event.room)
            if position is not None and event.seq > position.seq:
                what = f"a heartbeat names {event.seq} of {event.room}, and {position.seq} was the last to come"
                yield Violation("I15", what, (position.last, event))
        elif isinstance(event, Deliver):
            if event.via != "history":
                position = self._positions.of.get(event.conn, {}).get(event.room)
                if position is not None:
                    position.seq, position.last = max(position.seq, event.seq), event
        else:
            self._positions.see(event)

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())
