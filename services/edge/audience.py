"""The audience of a room: which connections of this edge see it, and how far each of them is. The hub's bookkeeping."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from services.common.wire import limits
from services.common.wire.events import Message

if TYPE_CHECKING:
    from services.edge.hub import Subscriber
    from services.edge.outbox import Frame

TAIL_MAX: Final = 256
"""More than a room gets while a page is read; where it gets more, another page is read. At most 4 MiB a room."""


class Replay:
    """A resumed connection's way to a room's position: it got all up to `cursor`, and was told `start`."""

    __slots__ = ("cursor", "start")

    def __init__(self, cursor: int, start: int) -> None:
        self.cursor = cursor
        self.start = start


class Sweep:
    """The frames of the messages behind `before`, up to `last_seq`, on their way through a room's connections."""

    __slots__ = ("_next", "_recipients", "before", "frames", "last_seq")

    def __init__(self, frames: list[Frame], recipients: list[Subscriber], before: int, last_seq: int) -> None:
        self.frames = frames
        self.before = before
        self.last_seq = last_seq
        self._recipients = recipients
        self._next = 0

    @property
    def is_over(self) -> bool:
        """Whether everybody has had their turn."""
        return self._next >= len(self._recipients)

    def take(self, count: int) -> list[Subscriber]:
        """The next connections whose turn it is, up to so many."""
        taken = self._recipients[self._next : self._next + count]
        self._next += count
        return taken


class Audience:
    """A room: its position, and its connections, each in one of four groups.

    The position moves when a sweep begins: what it brings counts as given, and who comes now begins behind it.
    """

    __slots__ = (
        "asked_at",
        "epoch",
        "is_queued",
        "live",
        "live_v1",
        "pending",
        "position",
        "replaying",
        "room_id",
        "sweep",
        "tail",
        "waiting",
    )

    def __init__(self, room_id: str, epoch: str, position: int) -> None:
        self.room_id = room_id
        self.epoch = epoch
        self.position = position
        self.pending: list[Message] = []  # position+1, position+2, …: what has come and waits for its sweep
        self.sweep: Sweep | None = None  # what is being given out, up to the position
        self.is_queued = False  # whether the hub has something to give here
        # Each with the seq behind which it began: those of version 2, in order of arrival, those of version 1, and
        # those whose beginning the room has not reached yet.
        self.live: dict[Subscriber, int] = {}
        self.live_v1: dict[Subscriber, int] = {}
        self.waiting: dict[Subscriber, int] = {}
        self.replaying: dict[Subscriber, Replay] = {}
        self.tail: deque[Message] | None = None  # the last ones up to the position, while a replay is about to end
        self.asked_at = float("-inf")  # when a gap was last asked for

    @property
    def is_empty(self) -> bool:
        """Whether nobody here is in the room."""
        return not (self.live or self.live_v1 or self.waiting or self.replaying)

    def has_given(self, seq: int) -> bool:
        """Whether a message has gone to all that it goes to."""
        return seq <= (self.position if self.sweep is None else self.sweep.before)

    def add_live(self, subscriber: Subscriber, start: int) -> None:
        """A connection gets what comes next."""
        (self.live_v1 if subscriber.version == 1 else self.live)[subscriber] = start

    def remove(self, subscriber: Subscriber) -> None:
        """A connection gets nothing more."""
        self.live.pop(subscriber, None)
        self.live_v1.pop(subscriber, None)
        self.waiting.pop(subscriber, None)
        self.stop_replay(subscriber)

    def stop_replay(self, subscriber: Subscriber) -> None:
        """A connection is not replayed to any more."""
        self.replaying.pop(subscriber, None)
        if not self.replaying:
            self.tail = None

    def start_of(self, subscriber: Subscriber) -> int:
        """The seq behind which a connection was, or is to be, told that its live messages begin."""
        replay = self.replaying.get(subscriber)
        return replay.start if replay is not None else self.waiting.get(subscriber, self.position)

    def reached(self, subscriber: Subscriber) -> int:
        """The seq up to which everything has been posted to a connection."""
        replay = self.replaying.get(subscriber)
        if replay is not None:
            return replay.cursor
        if self.sweep is not None and subscriber in self.live:  # whether it had its turn is not worth knowing
            return max(self.sweep.before, self.live[subscriber])
        return self.waiting.get(subscriber, self.position)


def is_replayable(after: int, start: int) -> bool:
    """Whether a connection that has read up to `after` gets what it missed before `start`; never a part of it."""
    return 0 <= start - after <= limits.RESUME_REPLAY_MAX
