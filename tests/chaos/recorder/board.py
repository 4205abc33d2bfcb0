"""What all clients of a run share: where the edges are, which rooms there are, what was acknowledged last."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.events import FileOk
    from tests.chaos.recorder.log import EventLog
    from tests.chaos.recorder.wire import Trust

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Door:
    """A way to an edge: its own port, or that of our proxy in front of it."""

    edge: str
    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        """For asyncio."""
        return self.host, self.port


@dataclass
class Board:
    """Shared by all clients of one run."""

    log: EventLog
    doors: list[Door]
    trust: Trust
    prefix: str  # of all names of this run
    rooms: list[str] = field(default_factory=list)
    files: dict[str, FileOk] = field(default_factory=dict)  # that were acknowledged, by id
    newest: dict[str, int] = field(default_factory=dict)  # room: highest seq that was acknowledged
    refusals: Counter[str] = field(default_factory=Counter)  # of texts, by code
    losses: Counter[str] = field(default_factory=Counter)  # of connections, by reason
    is_talking: bool = False
    is_steady: bool = False  # nobody leaves a room

    def acknowledged(self, room: str, seq: int) -> None:
        """A text was acknowledged."""
        self.newest[room] = max(seq, self.newest.get(room, 0))
