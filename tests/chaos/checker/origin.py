"""I2, no invention: everything that is delivered or stored was sent before, by that sender, to that room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Audit, Deliver, Invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent


class Origin:
    """Remembers what was sent."""

    def __init__(self) -> None:
        self._sent: set[tuple[str, str, str]] = set()  # sender, room, h
        self._known: set[tuple[str, str, str]] = set()  # inventions that were told already

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at what is invoked and shown."""
        if isinstance(event, Invoke):
            self._sent.add((event.c, event.room, event.h))
        elif isinstance(event, Deliver):
            if self._is_new_invention(event.sender, event.room, event.h):
                yield Violation("I2", f"nobody sent {event.room}-{event.epoch}-{event.seq} as it came", (event,))
        elif isinstance(event, Audit):
            for entry in event.entries:
                seq, _, h, sender = entry
                if self._is_new_invention(sender, event.room, h):
                    what = f"{event.source} has {event.room}-{event.epoch}-{seq}, which nobody sent so"
                    shown = Audit(t=event.t, source=event.source, room=event.room, epoch=event.epoch, entries=[entry])
                    yield Violation("I2", what, (shown,))

    def _is_new_invention(self, sender: str, room: str, h: str) -> bool:
        place = (sender, room, h)
        if place in self._sent or place in self._known:
            return False
        self._known.add(place)
        return True

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())
