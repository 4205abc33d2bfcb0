"""The hub: which connections see which room, and from which message on.

For every room that somebody here is in, the hub holds a position: the last seq that has gone to the outboxes. What
the feed brings is taken in seq order and once: what is at or below the position is a repetition, what leaves a hole
is refused and the room is followed again from its position. So each connection sees start+1, start+2, … whatever the
streams below do. A connection's start is the greater of the position and the last seq that its login or join was
told, and that is what it is told as well; until the room has come that far, the connection waits.

Messages that come within one turn of the event loop are joined into one frame per room, not one per connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from services.common.counters import Counter
from services.common.wire.events import Encoder, Message, messages_frames, text_message_frame
from services.edge.decisions import User
from services.edge.outbox import Frame, Outbox
from services.edge.qos.classes import QosClass

Follow = tuple[str, str, int]
"""Room id, epoch, and the seq behind which events are wanted."""

_ASK_AGAIN_S: Final = 1.0
"""What was under way when a gap was found shows the same gap: it is asked for once, and again only if that was lost."""

_ENCODERS: Final = {1: Encoder(1), 2: Encoder(2)}


class Subscriber:
    """A logged-in connection, as the hub sees it: where its frames go, its version, and its rooms."""

    __slots__ = ("connection", "outbox", "rooms", "user_id", "username", "version")

    def __init__(self, connection: Any, outbox: Outbox, *, version: int, user: User) -> None:
        self.connection = connection
        self.outbox = outbox
        self.version = version
        self.user_id = user.user_id
        self.username = user.username
        self.rooms: dict[str, _Room] = {}


class _Room:
    __slots__ = ("asked_at", "epoch", "live", "live_v1", "pending", "position", "room_id", "waiting")

    def __init__(self, room_id: str, epoch: str, position: int) -> None:
        self.room_id = room_id
        self.epoch = epoch
        self.position = position
        self.pending: list[Message] = []  # position+1, position+2, …: what this turn has brought so far
        # Each with the seq behind which it began: those of version 2, in order of arrival, those of version 1, and
        # those whose beginning the room has not reached yet.
        self.live: dict[Subscriber, int] = {}
        self.live_v1: dict[Subscriber, int] = {}
        self.waiting: dict[Subscriber, int] = {}
        self.asked_at = float("-inf")  # when a gap was last asked for

    @property
    def is_empty(self) -> bool:
        return not (self.live or self.live_v1 or self.waiting)

    def add_live(self, subscriber: Subscriber, start: int) -> None:
        (self.live_v1 if subscriber.version == 1 else self.live)[subscriber] = start

    def remove(self, subscriber: Subscriber) -> None:
        self.live.pop(subscriber, None)
        self.live_v1.pop(subscriber, None)
        self.waiting.pop(subscriber, None)


class Hub:
    """All rooms of this edge.

    `wake()` is called when `deliver` has something to do, `wake_feed()` when `take_follows` has; both may be called
    more often than that. `number()` gives the ids of version-1 frames, `delivered` counts messages to connections.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], object],
        wake_feed: Callable[[], object],
        number: Callable[[], int],
        delivered: Counter,
    ) -> None:
        self.gap_count = 0
        self._delivered = delivered
        self._wake = wake
        self._wake_feed = wake_feed
        self._number = number
        self._rooms: dict[str, _Room] = {}
        self._fresh: dict[str, _Room] = {}  # rooms with pending messages
        self._to_follow: dict[str, None] = {}
        self._to_unfollow: dict[str, None] = {}

    @property
    def room_count(self) -> int:
        """Rooms that somebody here is in."""
        return len(self._rooms)

    def attach(self, subscriber: Subscriber, room_id: str, *, epoch: str, last_seq: int) -> int:
        """Let a connection see a room from now on; return the seq behind which its live messages begin.

        `epoch` and `last_seq` are what the rooms service has just said. The caller tells the client what this returns,
        without giving the event loop a turn in between. A room that is attached already stays as it is.
        """
        room = self._rooms.get(room_id)
        if room is not None and room.epoch != epoch:
            self._begin_epoch(room, epoch, last_seq)
            self._follow(room_id)
        elif room is None:
            room = self._rooms[room_id] = _Room(room_id, epoch, last_seq)
            self._follow(room_id)
        if room_id not in subscriber.rooms:
            subscriber.rooms[room_id] = room
            if last_seq > room.position:
                room.waiting[subscriber] = last_seq
            else:
                room.add_live(subscriber, room.position)
        return room.waiting.get(subscriber, room.position)

    def joined_at(self, subscriber: Subscriber, room_id: str) -> int | None:
        """The seq behind which the connection's view of the room began; None where it has none."""
        room = subscriber.rooms.get(room_id)
        if room is None:
            return None
        return next(group[subscriber] for group in (room.live, room.live_v1, room.waiting) if subscriber in group)

    def detach(self, subscriber: Subscriber, room_id: str) -> None:
        """End a connection's view of a room. What is in its outbox already stays there."""
        room = subscriber.rooms.pop(room_id, None)
        if room is None:
            return
        room.remove(subscriber)
        if room.is_empty:
            del self._rooms[room_id]
            self._fresh.pop(room_id, None)
            self._to_follow.pop(room_id, None)
            self._to_unfollow[room_id] = None
            self._wake_feed()

    def detach_all(self, subscriber: Subscriber) -> None:
        """End all views of a connection."""
        for room_id in list(subscriber.rooms):
            self.detach(subscriber, room_id)

    def subscribers(self, room_id: str) -> list[Subscriber]:
        """Everyone here who is in the room."""
        room = self._rooms.get(room_id)
        return [] if room is None else [*room.live, *room.live_v1, *room.waiting]

    def receive(self, room_id: str, epoch: str, messages: Sequence[Message], now: float) -> bool:
        """Take consecutive messages of a room from the feed; return False where messages before them are missing.

        Then nothing was taken, and the room is followed again from its position.
        """
        room = self._rooms.get(room_id)
        if room is None or not messages:
            return True
        if room.epoch != epoch:
            self._begin_epoch(room, epoch, messages[0].seq - 1)
        expected = room.position + len(room.pending) + 1
        first = messages[0].seq
        if first > expected:
            self.gap_count += 1
            if now - room.asked_at >= _ASK_AGAIN_S:
                room.asked_at = now
                self._follow(room_id)
            return False
        if first < expected:
            messages = messages[expected - first :]
            if not messages:
                return True
        room.pending.extend(messages)
        self._fresh[room_id] = room
        self._wake()
        return True

    def deliver(self, now: float) -> None:
        """Give what this turn has brought to the outboxes. `now` is Unix time, for version 1."""
        for room in self._fresh.values():
            messages = room.pending
            room.pending = []
            room.position += len(messages)
            if room.live:
                frames = _shared(room, messages)
                for subscriber in room.live:
                    for frame in frames:
                        subscriber.outbox.post(frame)
                self._delivered.add(len(room.live) * len(messages))
            if room.live_v1:
                self._deliver_v1(room, room.live_v1, messages, now)
            if room.waiting:
                self._deliver_late(room, messages, now)
        self._fresh.clear()

    def announce(self, room_id: str, action: str, *, username: str, online: int, now: float) -> None:
        """Tell a room's connections who came or went.

        The one it is about is told only of a leave, which then is not their own doing: who leaves by a request is no
        longer attached. Version 1 has no form for a count.
        """
        room = self._rooms.get(room_id)
        if room is None:
            return
        made: dict[int, Frame] = {}
        for subscriber in self.subscribers(room_id):
            version = subscriber.version
            if (version == 1 and action == "count") or (subscriber.username == username and action != "leave"):
                continue
            if version not in made:
                number = self._number() if version == 1 else 0
                data = _ENCODERS[version].presence(
                    room_id, action, username=username, online=online, number=number, now=now
                )
                made[version] = (data, QosClass.LOW, None, 0)
            subscriber.outbox.post(made[version])

    def bookmarks(self, subscriber: Subscriber) -> dict[str, int]:
        """For each room of a connection, the seq up to which everything has been written to its transport."""
        first_waiting = subscriber.outbox.first_waiting()
        return {
            room_id: first_waiting[room_id] - 1
            if room_id in first_waiting
            else room.waiting.get(subscriber, room.position)
            for room_id, room in subscriber.rooms.items()
        }

    def follow_all(self) -> None:
        """The stream is new: ask for every room again, from its position."""
        self._to_unfollow.clear()
        self._to_follow = dict.fromkeys(self._rooms)

    def take_follows(self) -> tuple[list[Follow], list[str]]:
        """The rooms to follow and to unfollow since the last call."""
        if not self._to_follow and not self._to_unfollow:
            return [], []
        follows = []
        for room_id in self._to_follow:
            room = self._rooms[room_id]
            follows.append((room_id, room.epoch, room.position + len(room.pending)))
        unfollows = [room_id for room_id in self._to_unfollow if room_id not in self._to_follow]
        self._to_follow.clear()
        self._to_unfollow.clear()
        return follows, unfollows

    def _follow(self, room_id: str) -> None:
        self._to_follow[room_id] = None
        self._wake_feed()

    def _begin_epoch(self, room: _Room, epoch: str, position: int) -> None:
        """An older database was restored: numbering starts anew, and everyone in the room sees what comes now."""
        room.epoch = epoch
        room.position = position
        room.pending = []
        self._fresh.pop(room.room_id, None)
        for subscriber in room.waiting:
            room.add_live(subscriber, position)
        room.waiting.clear()

    def _deliver_v1(self, room: _Room, subscribers: Iterable[Subscriber], messages: list[Message], now: float) -> None:
        """One frame per message, and no own messages."""
        for message in messages:
            data = text_message_frame(room.room_id, message, number=self._number(), now=now)
            frame = (data, QosClass.NORMAL, room.room_id, message.seq)
            for subscriber in subscribers:
                if subscriber.username != message.username:
                    subscriber.outbox.post(frame)
                    self._delivered.add()

    def _deliver_late(self, room: _Room, messages: list[Message], now: float) -> None:
        """Connections that were told a later start than the room's position: they join the others as it gets there."""
        reached = [(subscriber, start) for subscriber, start in room.waiting.items() if start <= room.position]
        for subscriber, start in reached:
            del room.waiting[subscriber]
            room.add_live(subscriber, start)
            missed = [message for message in messages if message.seq > start]
            if not missed:
                continue
            if subscriber.version == 1:
                self._deliver_v1(room, (subscriber,), missed, now)
                continue
            for frame in _shared(room, missed):
                subscriber.outbox.post(frame)
            self._delivered.add(len(missed))


def _shared(room: _Room, messages: list[Message]) -> list[Frame]:
    """The frames that all version-2 members get. The first seq of a split page serves as bookmark for its parts."""
    first = messages[0].seq
    frames = messages_frames(room.room_id, room.epoch, messages)
    return [(data, QosClass.NORMAL, room.room_id, first) for data in frames]
