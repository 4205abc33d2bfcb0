"""I14: an acknowledged file arrives as it was sent, and nothing is written where it does not belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import FileOk, FileRecv, FileStray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent


class Files:
    """What was sent, against what came."""

    def __init__(self) -> None:
        self._sent: dict[str, FileOk] = {}

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at files."""
        if isinstance(event, FileOk):
            self._sent[event.id] = event
        elif isinstance(event, FileStray):
            yield Violation("I14", f"{event.c} was made to write {event.path}", (event,))
        elif isinstance(event, FileRecv):
            sent = self._sent.get(event.id)
            if sent is not None and (sent.sha256, sent.size) != (event.sha256, event.size):
                yield Violation("I14", f"file {event.id} came as another", (sent, event))

    def end(self) -> Iterator[Violation]:
        """Nothing is left to say."""
        return iter(())
