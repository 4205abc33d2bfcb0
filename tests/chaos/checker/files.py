"""I14: an acknowledged file arrives as it was sent, at the end too, and nothing is written where it does not belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Audit, End, FileOk, FileRecv, FileStray, Restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent


class Files:
    """What was sent, against what came."""

    def __init__(self) -> None:
        self._sent: dict[str, FileOk] = {}
        self._wanted: dict[str, FileOk] = {}  # not received since the end
        self._has_ended = False
        self._is_audited = False

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at files."""
        if isinstance(event, FileOk):
            self._sent[event.id] = self._wanted[event.id] = event
        elif isinstance(event, FileStray):
            yield Violation("I14", f"{event.c} was made to write {event.path}", (event,))
        elif isinstance(event, FileRecv):
            sent = self._sent.get(event.id)
            if self._has_ended:
                self._wanted.pop(event.id, None)
            if sent is not None and (sent.sha256, sent.size) != (event.sha256, event.size):
                yield Violation("I14", f"file {event.id} came as another", (sent, event))
        elif isinstance(event, Restored):
            self._sent.clear()  # what was acknowledged since the copy may be gone
            self._wanted.clear()
        elif isinstance(event, End):
            self._has_ended = True
        elif isinstance(event, Audit):
            self._is_audited = True

    def end(self) -> Iterator[Violation]:
        """Only an audit has fetched everything."""
        if self._has_ended and self._is_audited:
            for file in self._wanted.values():
                yield Violation("I14", f"file {file.id} of {file.room} was acknowledged and cannot be fetched", (file,))
