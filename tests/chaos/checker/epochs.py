"""I13: after an older database was restored, nothing is acknowledged under an epoch from before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Invoke, Ok, Restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent, Event


class Epochs:
    """The epochs of each room, and since when they are over."""

    def __init__(self) -> None:
        self._current: dict[str, set[str]] = {}  # room: epochs since the last restore
        self._over: dict[tuple[str, str], Restored] = {}
        self._invoked: dict[tuple[str, int], Invoke] = {}  # (conn, req), since the last restore
        self._is_restored = False

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at restores and acknowledgements."""
        if isinstance(event, Restored):
            for room, epochs in self._current.items():
                self._over |= {(room, epoch): event for epoch in epochs}
            self._current.clear()
            self._invoked.clear()
            self._is_restored = True
        elif isinstance(event, Invoke):
            if self._is_restored:
                self._invoked[event.conn, event.req] = event
        elif isinstance(event, Ok):
            # Only what was sent after the restore was certainly acknowledged by the restored database.
            asked = self._invoked.pop((event.conn, event.req), None)
            restored = self._over.get((event.room, event.epoch))
            if restored is not None:
                if asked is not None:
                    witness: tuple[Event, ...] = (restored, asked, event)
                    yield Violation("I13", f"{event.epoch} of {event.room} was over when this was sent", witness)
            else:
                self._current.setdefault(event.room, set()).add(event.epoch)

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())
