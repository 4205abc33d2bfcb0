"""The hub: which connections see which room, and from which message on.

For every room that somebody here is in, the hub holds a position: the last seq that has gone to the outboxes. What
the feed brings is taken in seq order and once: what is at or below the position is a repetition, what leaves a hole
is refused and the room is followed again from its position. So each connection sees start+1, start+2, … whatever the
streams below do. A connection's start is the greater of the position and the last seq that its login or join was
told, and that is what it is told as well; until the room has come that far, the connection waits.

A connection that resumes may begin further back: then its messages come from the log, page by page and as fast as it
takes them, and the feed's go past it until the pages have reached the room's position; from there on it is one of the
others. So a replay holds no live messages back. In a busy room the position moves on while a page is being read: a
tail of the newest messages, kept only for as long as such a page is under way, lets the connection close the rest.

What has come for a room is joined into one frame, for all its connections, and given out in a sweep: to so many of them
in each turn of the event loop, and in between the loop does what else there is to do. So nobody waits for a room of
thousands, senders are answered and store the next messages while it is being served, and these go out together in the
next sweep: the more there is to do, the more a write carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from services.common.counters import Counter
from services.common.wire.events import Encoder, Message, messages_frames, text_message_frame
from services.edge.audience import TAIL_MAX, Audience, Replay, Sweep, is_replayable
from services.edge.decisions import User
from services.edge.outbox import Frame, Outbox
from services.edge.qos.classes import QosClass

Follow = tuple[str, str, int]
"""Room id, epoch, and the seq behind which events are wanted."""

_ASK_AGAIN_S: Final = 1.0
"""What was under way when a gap was found shows the same gap: it is asked for once, and again only if that was lost."""

RECIPIENTS_PER_TURN: Final = 24
"""Some 0.3 ms of writing: what a message to a large room may put before everything else that the edge does."""

PENDING_MAX: Final = 1_024
"""With so many messages of a room waiting, its connections are served without regard to the others."""

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
        self.rooms: dict[str, Audience] = {}


class Hub:
    """All rooms of this edge.

    `wake()` is called when `deliver` has something to do, `wake_feed()` when `take_follows` has; both may be called
    more often than that. `number()` gives the ids of version-1 frames, `delivered` counts messages to connections.
    `send_file(connection, room_id, username, file_id)` brings a file to a version-1 connection. A turn gives to
    `recipients_per_turn` connections, at least one.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], object],
        wake_feed: Callable[[], object],
        number: Callable[[], int],
        delivered: Counter,
        send_file: Callable[[Any, str, str, str], object],
        recipients_per_turn: int = RECIPIENTS_PER_TURN,
    ) -> None:
        self.gap_count = 0
        self._recipients_per_turn = recipients_per_turn
        self._delivered = delivered
        self._wake = wake
        self._wake_feed = wake_feed
        self._number = number
        self._send_file = send_file
        self._rooms: dict[str, Audience] = {}
        self._queue: deque[Audience] = deque()  # rooms with something to give, which take turns
        self._to_follow: dict[str, None] = {}
        self._to_unfollow: dict[str, None] = {}

    @property
    def room_count(self) -> int:
        """Rooms that somebody here is in."""
        return len(self._rooms)

    @property
    def room_ids(self) -> list[str]:
        """The rooms that somebody here is in."""
        return list(self._rooms)

    def attach(
        self, subscriber: Subscriber, room_id: str, *, epoch: str, last_seq: int, after: int | None = None
    ) -> int:
        """Let a connection see a room from now on; return the seq behind which its live messages begin.

        `epoch` and `last_seq` are what the rooms service has just said; `after` is how far the client has read that
        epoch: where the rest is replayable, `replay` brings it before live ones. The caller tells the client what this
        returns, without giving the event loop a turn in between. A room that is attached already stays as it is.
        """
        room = self._rooms.get(room_id)
        if room is not None and room.epoch != epoch:
            self._begin_epoch(room, epoch, last_seq)
            self._follow(room_id)
        elif room is None:
            room = self._rooms[room_id] = Audience(room_id, epoch, last_seq)
            self._follow(room_id)
        if room_id not in subscriber.rooms:
            subscriber.rooms[room_id] = room
            start = max(last_seq, room.position)
            if after is not None and after < start and is_replayable(after, start):
                room.replaying[subscriber] = Replay(after, start)
            elif start > room.position:
                room.waiting[subscriber] = start
            else:
                room.add_live(subscriber, start)
        return room.start_of(subscriber)

    def missing(self, subscriber: Subscriber, room_id: str) -> tuple[int, int] | None:
        """What a replay has still to bring: everything behind the first seq, up to the second. None when it is over.

        What lies behind the second is not for a replay: the successes of own messages must come before them.
        """
        room = subscriber.rooms.get(room_id)
        replay = None if room is None else room.replaying.get(subscriber)
        if room is None or replay is None:
            return None
        return replay.cursor, max(replay.start, room.position)

    def keep_tail(self, room_id: str) -> None:
        """Keep the newest messages of a room from now on, until no connection replays it."""
        room = self._rooms.get(room_id)
        if room is not None and room.replaying and room.tail is None:
            room.tail = deque(maxlen=TAIL_MAX)

    def tail(self, subscriber: Subscriber, room_id: str) -> list[Message]:
        """The messages that a replay still has to bring, where the room's tail has all of them; otherwise none."""
        room = subscriber.rooms.get(room_id)
        replay = None if room is None else room.replaying.get(subscriber)
        if room is None or replay is None or not room.tail:
            return []
        if room.tail[0].seq > replay.cursor + 1 or room.tail[-1].seq < replay.start:
            return []
        return [message for message in room.tail if message.seq > replay.cursor]

    def replay(self, subscriber: Subscriber, room_id: str, messages: Sequence[Message]) -> bool:
        """Post old messages, the next ones of a replay; return whether they were wanted.

        With the room's position reached, live ones follow.
        """
        room = subscriber.rooms.get(room_id)
        replay = None if room is None else room.replaying.get(subscriber)
        if room is None or replay is None or not messages or messages[0].seq != replay.cursor + 1:
            return False
        for frame in _shared(room, messages):
            subscriber.outbox.post(frame)
        self._delivered.add(len(messages))
        replay.cursor = messages[-1].seq
        if replay.cursor >= max(replay.start, room.position):
            room.stop_replay(subscriber)
            if replay.cursor > room.position:  # the feed has not come so far yet
                room.waiting[subscriber] = replay.cursor
            else:
                room.add_live(subscriber, replay.start)
        return True

    def joined_at(self, subscriber: Subscriber, room_id: str) -> int | None:
        """The seq behind which the connection's view of the room began; None where it has none."""
        room = subscriber.rooms.get(room_id)
        if room is None:
            return None
        if subscriber in room.replaying:
            return room.replaying[subscriber].start
        return next(group[subscriber] for group in (room.live, room.live_v1, room.waiting) if subscriber in group)

    def detach(self, subscriber: Subscriber, room_id: str) -> None:
        """End a connection's view of a room. What is in its outbox already stays there."""
        room = subscriber.rooms.pop(room_id, None)
        if room is None:
            return
        room.remove(subscriber)
        if room.is_empty:
            del self._rooms[room_id]
            room.pending = []
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
        return [] if room is None else [*room.live, *room.live_v1, *room.waiting, *room.replaying]

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
        if not room.is_queued:
            room.is_queued = True
            self._queue.append(room)
        self._wake()
        return True

    def deliver(self, now: float) -> bool:
        """Give what has come to the outboxes, as far as one turn may; return whether there is more to give.

        `now` is Unix time, for version 1.
        """
        budget = self._recipients_per_turn
        queue = self._queue
        while queue and budget > 0:
            room = queue[0]
            if room.sweep is None:
                self._begin_sweep(room, now)
            if room.sweep is not None:
                is_pressed = len(room.pending) >= PENDING_MAX
                budget -= self._continue_sweep(room, room.sweep, len(room.live) if is_pressed else budget)
            if room.sweep is not None or room.pending:
                queue.rotate(-1)
            else:
                room.is_queued = False
                queue.popleft()
        return bool(queue)

    def _begin_sweep(self, room: Audience, now: float) -> None:
        """Take all that has come for a room, make its frames once, and note who is to get them."""
        messages = room.pending
        if not messages:
            return
        room.pending = []
        before = room.position
        room.position += len(messages)
        if room.tail is not None:
            room.tail.extend(messages)
        if room.live:
            room.sweep = Sweep(_shared(room, messages), list(room.live), before, room.position)
        if room.live_v1:
            self._deliver_v1(room, room.live_v1, messages, now)
        if room.waiting:
            self._deliver_late(room, messages, now)

    def _continue_sweep(self, room: Audience, sweep: Sweep, budget: int) -> int:
        """Give a room's frames to those whose turn it is; return how many these were."""
        recipients = sweep.take(max(budget, 1))
        last = sweep.last_seq
        # Who has left since gets nothing; who has come back begins behind these messages.
        recipients = [one for one in recipients if room.live.get(one, last) < last]
        for frame in sweep.frames:
            for subscriber in recipients:
                subscriber.outbox.post(frame)
        self._delivered.add(len(recipients) * (last - sweep.before))
        if sweep.is_over:
            room.sweep = None
        return len(recipients)

    def has_given(self, room_id: str, seq: int) -> bool:
        """Whether all who see a room have been given a message; so it is where nobody does."""
        return room_id not in self._rooms or self._rooms[room_id].has_given(seq)

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
            room_id: first_waiting[room_id] - 1 if room_id in first_waiting else room.reached(subscriber)
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
        follows = [follow for room_id in self._to_follow if (follow := self.follow_of(room_id)) is not None]
        unfollows = [room_id for room_id in self._to_unfollow if room_id not in self._to_follow]
        self._to_follow.clear()
        self._to_unfollow.clear()
        return follows, unfollows

    def follow_of(self, room_id: str) -> Follow | None:
        """What is wanted of a room now; None where nobody here is in it."""
        room = self._rooms.get(room_id)
        return None if room is None else (room_id, room.epoch, room.position + len(room.pending))

    def _follow(self, room_id: str) -> None:
        self._to_follow[room_id] = None
        self._wake_feed()

    def _begin_epoch(self, room: Audience, epoch: str, position: int) -> None:
        """An older database was restored: numbering starts anew, and everyone in the room sees what comes now."""
        while room.sweep is not None:
            self._continue_sweep(room, room.sweep, len(room.live))
        room.epoch = epoch
        room.position = position
        room.pending = []
        for subscriber in (*room.live, *room.live_v1, *room.waiting, *room.replaying):
            room.add_live(subscriber, position)
        room.waiting.clear()
        room.replaying.clear()
        room.tail = None

    def _deliver_v1(
        self, room: Audience, subscribers: Iterable[Subscriber], messages: list[Message], now: float
    ) -> None:
        """One frame per message, and no own messages."""
        for message in messages:
            if message.file is not None:
                for subscriber in subscribers:
                    if subscriber.username != message.username:
                        self._send_file(subscriber.connection, room.room_id, message.username, message.file["file_id"])
                continue
            data = text_message_frame(room.room_id, message, number=self._number(), now=now)
            frame = (data, QosClass.NORMAL, room.room_id, message.seq)
            for subscriber in subscribers:
                if subscriber.username != message.username:
                    subscriber.outbox.post(frame)
                    self._delivered.add()

    def _deliver_late(self, room: Audience, messages: list[Message], now: float) -> None:
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


def _shared(room: Audience, messages: Sequence[Message]) -> list[Frame]:
    """The frames that all version-2 members get. The first seq of a split page serves as bookmark for its parts."""
    first = messages[0].seq
    frames = messages_frames(room.room_id, room.epoch, messages)
    return [(data, QosClass.NORMAL, room.room_id, first) for data in frames]
