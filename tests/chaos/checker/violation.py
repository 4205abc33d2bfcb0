"""A broken invariant, and the fewest lines of the log that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.chaos.events import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.events import AnyEvent, Event


@dataclass(frozen=True)
class Violation:
    """`invariant` is I1 to I15."""

    invariant: str
    what: str
    witness: tuple[Event, ...]

    def __str__(self) -> str:
        lines = [f"{self.invariant}: {self.what}"]
        return "\n".join(lines + [f"    {encode(event).decode()}" for event in self.witness])


class Concern(Protocol):
    """One subject of the promise: is shown every event in order, and says what is wrong as soon as it knows."""

    def see(self, event: AnyEvent) -> Iterable[Violation]:
        """The next event."""
        ...

    def end(self) -> Iterable[Violation]:
        """There are no more; what only the whole log shows."""
        ...
