"""I12: when everything is mended, everything arrives, is answered and works again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.coverage import Coverage
from tests.chaos.checker.violation import Violation
from tests.chaos.events import (
    Close,
    Deliver,
    End,
    Fail,
    Info,
    Invoke,
    JoinOk,
    Ok,
    Open,
    PartAsk,
    Probe,
    Restored,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent

Answer = Ok | Fail | Info


class Progress:
    """Who has what, and who still waits for an answer."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str, str], Invoke | Info] = {}  # (sender, room, key)
        self._settled: set[tuple[str, str, str]] = set()
        self._acks: dict[str, dict[int, Ok]] = {}  # room, seq
        self._has: dict[tuple[str, str], Coverage] = {}  # (user, room)
        self._members: dict[tuple[str, str], JoinOk] = {}
        self._open: dict[str, Open] = {}  # conn

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Follows sends and deliveries until the end, and then judges."""
        if isinstance(event, Deliver):
            self._has.setdefault((event.c, event.room), Coverage()).add(event.seq)
        elif isinstance(event, Invoke):
            place = (event.c, event.room, event.key)
            if place not in self._settled:
                self._waiting[place] = event
        elif isinstance(event, Ok | Fail | Info):
            self._answered(event)
        elif isinstance(event, Probe):
            if not event.passed:
                yield Violation("I12", f"{event.edge} does not work: {event.why}", (event,))
        elif isinstance(event, End):
            yield from self._judge()
        else:
            self._follow(event)

    def _follow(self, event: AnyEvent) -> None:
        """Who is there."""
        if isinstance(event, JoinOk):
            self._members.setdefault((event.user, event.room), event)
        elif isinstance(event, PartAsk):
            self._members.pop((event.user, event.room), None)
        elif isinstance(event, Open):
            self._open[event.conn] = event
        elif isinstance(event, Close):
            self._open.pop(event.conn, None)
        elif isinstance(event, Restored):
            self._acks.clear()  # what was acknowledged since the copy is gone: I1 knows what may be

    def _answered(self, event: Answer) -> None:
        place = (event.c, event.room, event.key)
        if isinstance(event, Ok):
            self._acks.setdefault(event.room, {}).setdefault(event.seq, event)
        if isinstance(event, Info) and not event.is_final and not event.key.startswith("~"):
            if place not in self._settled:
                self._waiting[place] = event  # is sent again under its key until it is known
            return
        # A text without a key cannot be asked for again: that it is unknown is its answer.
        self._settled.add(place)
        self._waiting.pop(place, None)

    def _judge(self) -> Iterator[Violation]:
        for place, event in self._waiting.items():
            yield Violation("I12", f"key {place[2]} has no answer", (event,))
        connected = {opened.c: opened for opened in self._open.values()}
        for (user, room), joined in self._members.items():
            if user not in connected:
                continue
            has = self._has.get((user, room), Coverage())
            for seq, ok in self._acks.get(room, {}).items():
                if seq > joined.seq and seq not in has:
                    what = f"{seq} of {room} has not reached {user}, who is connected"
                    yield Violation("I12", what, (ok, connected[user]))
                    break  # one is enough for this user and room

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())
