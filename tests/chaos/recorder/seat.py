"""A person's place in a room: whether they are a member, and which messages they have."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tests.chaos.checker.coverage import Coverage


class Standing(enum.Enum):
    """How a person stands with a room."""

    OUT = "not a member"
    JOINING = "asked to join; no answer yet"
    IN = "a member"
    PARTING = "is leaving or being removed; no answer yet"
    RETIRED = "left, or not: nobody will ever know, so nothing is expected of this place any more"


@dataclass
class Seat:
    """`have` is what a resume names: everything from the join up to there has arrived."""

    room: str
    standing: Standing = Standing.OUT
    epoch: str = ""
    floor: int = 0  # the room's last message before the join
    cover: Coverage = field(default_factory=Coverage)
    out_since: float = 0.0
    is_over: bool = False  # the membership's end was confirmed, and nobody has asked to join since
    is_loading: bool = False  # missed messages are being read from the history
    load_to: int = 0
    replay_to: int = 0  # messages up to here come as replay

    def begin(self, epoch: str, seq: int) -> None:
        """A new membership, or a new life of the room: everything after `seq` is to come."""
        self.epoch, self.floor, self.load_to, self.replay_to = epoch, seq, 0, 0
        self.cover = Coverage()
        self.cover.add(seq)

    @property
    def have(self) -> int:
        """The last message before which nothing is missing."""
        return self.cover.end_of(self.floor)
