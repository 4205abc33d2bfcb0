"""Instances: one publisher and one view of the hub for each rooms instance, and the moves between them.

A room belongs to the instance that the routes name. When they change, its unresolved texts go to the new instance in
their order and with the keys that they had, so that it stores only what the old one has not. Only when all of these
are answered is the room followed there, from the hub's position, and until it is followed nothing about it is taken
from any stream. So the success for an own message comes before the message even where both instances had it: what the
old one still sends is not taken, and the new one is not asked before it has said what became of the texts.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from services.common.clock import Clock
from services.common.logs import get_logger
from services.common.wire.events import Message
from services.edge.decisions import Text
from services.edge.hub import Follow, Hub
from services.edge.publisher import Publisher
from services.edge.routes import Routes

_CHECK_S: Final = 0.25
_STALL_S: Final = 1.0
"""An instance that answers nothing for so long, while texts are under way, is taken for gone where another is there.
A commit takes milliseconds; rooms that move for nothing are served all the same."""

_log = get_logger(__name__)


class Lane:
    """One instance: its publisher, and the hub as its stream sees it. `bell` wakes the stream's writer."""

    def __init__(self, target: str, publisher: Publisher, hub: Hub, bell: asyncio.Event, instances: Instances) -> None:
        self.target = target
        self.publisher = publisher
        self.bell = bell
        self._hub = hub
        self._instances = instances
        self._followed: set[str] = set()
        self._to_follow: dict[str, None] = {}
        self._to_unfollow: dict[str, None] = {}
        self._moved: dict[str, list[int]] = {}  # texts by room; it is not followed before they are answered
        self._answered_at = 0.0

    def follow_all(self) -> None:
        """The stream is new: it is to follow all rooms of this instance."""
        self._followed.clear()
        self._to_unfollow.clear()
        self._moved.clear()
        self._hold(self.publisher.unresolved)
        self._to_follow = dict.fromkeys(self._instances.rooms_of(self))

    def take_follows(self) -> tuple[list[Follow], list[str]]:
        """The rooms to follow and to unfollow on this stream since the last call."""
        self._instances.distribute()
        follows: list[Follow] = []
        for room_id in list(self._to_follow):
            if any(self.publisher.is_pending(number) for number in self._moved.get(room_id, ())):
                continue
            self._moved.pop(room_id, None)
            del self._to_follow[room_id]
            follow = self._hub.follow_of(room_id)
            if follow is not None:
                follows.append(follow)
                self._followed.add(room_id)
        unfollows, self._to_unfollow = list(self._to_unfollow), {}
        return follows, unfollows

    def receive(self, room_id: str, epoch: str, messages: Sequence[Message], now: float) -> bool:
        """Take messages of a room that is followed here; those of others are left to their instance."""
        return room_id not in self._followed or self._hub.receive(room_id, epoch, messages, now)

    def announce(self, room_id: str, action: str, *, username: str, online: int, now: float) -> None:
        """Tell who came or went in a room that is followed here."""
        if room_id in self._followed:
            self._hub.announce(room_id, action, username=username, online=online, now=now)

    def want(self, room_id: str) -> None:
        """Follow a room, from the hub's position."""
        self._to_unfollow.pop(room_id, None)
        self._to_follow[room_id] = None

    def give_up(self, room_id: str) -> None:
        """A room is another's, or nobody's, from now on."""
        self._to_follow.pop(room_id, None)
        self._moved.pop(room_id, None)
        if room_id in self._followed:
            self._followed.discard(room_id)
            self._to_unfollow[room_id] = None

    def follows(self, room_id: str) -> bool:
        """Whether a room is followed here, or about to be."""
        return room_id in self._followed or room_id in self._to_follow

    def adopt(self, texts: list[Text]) -> None:
        """Take over texts that another instance has not answered."""
        self.publisher.adopt(texts)
        self._hold(texts)

    def answered(self) -> None:
        """Texts were answered: what waited for them may be followed."""
        if self._moved:
            self.bell.set()

    def is_stalled(self, heard_at: float, now: float) -> bool:
        """Whether texts are under way, and nothing was heard for too long."""
        if not self.publisher.is_waiting:
            self._answered_at = now
        return now - max(heard_at, self._answered_at) >= _STALL_S

    def _hold(self, texts: Sequence[Text]) -> None:
        for text in texts:
            self._moved.setdefault(text.room_id, []).append(text.number)


class Instances:
    """All lanes, as the pump and the sweep see them: one sink for texts.

    `make_publisher(wake_feed, on_room)` makes the publisher of one instance; all of them number texts together.
    `on_room()` is called when `has_room` may be true again.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        hub: Hub,
        make_publisher: Callable[[Callable[[], object], Callable[[], object]], Publisher],
        on_room: Callable[[], object],
        texts_max: int,
        bytes_max: int,
        clock: Clock,
    ) -> None:
        self._routes = routes
        self._hub = hub
        self._on_room = on_room
        self._texts_max = texts_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._by_target: dict[str, Lane] = {}
        for target in routes.targets:
            bell = asyncio.Event()
            publisher = make_publisher(bell.set, partial(self._answered, target))
            self._by_target[target] = Lane(target, publisher, hub, bell, self)
        self.lanes = tuple(self._by_target.values())

    def __len__(self) -> int:
        return sum(len(lane.publisher) for lane in self.lanes)

    @property
    def has_room(self) -> bool:
        """Whether another text may be submitted: the bounds are for all instances together."""
        return len(self) < self._texts_max and sum(lane.publisher.bytes for lane in self.lanes) < self._bytes_max

    def submit(self, text: Text, now: float) -> None:
        """Take a text for the instance of its room."""
        self._owner(text.room_id).publisher.submit(text, now)

    def expire(self, now: float) -> int:
        """Give up texts that have waited for too long; return how many."""
        return sum(lane.publisher.expire(now) for lane in self.lanes)

    def wake(self) -> None:
        """The hub has something for some stream."""
        for lane in self.lanes:
            lane.bell.set()

    def rooms_of(self, lane: Lane) -> list[str]:
        """The rooms that somebody here is in and that an instance serves."""
        return [room_id for room_id in self._hub.room_ids if self._owner(room_id) is lane]

    def distribute(self) -> None:
        """Hand the hub's wishes to the streams that they are for."""
        follows, unfollows = self._hub.take_follows()
        for room_id, _, _ in follows:
            owner = self._owner(room_id)
            owner.want(room_id)
            owner.bell.set()
        for room_id in unfollows:
            for lane in self.lanes:
                if lane.follows(room_id):
                    lane.give_up(room_id)
                    lane.bell.set()

    def set_live(self, lane: Lane, is_live: bool) -> None:
        """The stream to an instance works, or is lost: rooms move where that changes their instance."""
        if not self._routes.set_live(lane.target, is_live):
            return
        moved: defaultdict[str, list[Text]] = defaultdict(list)
        for old in self.lanes:
            for text in old.publisher.withdraw(partial(self._is_foreign, old)):
                moved[self._routes.owner(text.room_id)].append(text)
        room_count = 0
        for room_id in self._hub.room_ids:
            owner = self._owner(room_id)
            for other in self.lanes:
                if other is not owner:
                    other.give_up(room_id)
            if not owner.follows(room_id):
                owner.want(room_id)
                room_count += 1
        for target, texts in moved.items():
            self._by_target[target].adopt(texts)
        self.wake()
        text_count = sum(map(len, moved.values()))
        _log.info("rooms moved", instance=lane.target, is_live=is_live, rooms=room_count, texts=text_count)

    async def watch(self, heard_at: Callable[[Lane], float | None], cut: Callable[[Lane], object]) -> None:
        """Until cancelled, `cut` the stream of an instance that stalls while another one could do its work.

        `heard_at` says when a working stream last brought something.
        """
        while True:
            await self._clock.sleep(_CHECK_S)
            now = self._clock.monotonic()
            for lane in self.lanes:
                at = heard_at(lane)
                if at is not None and lane.is_stalled(at, now) and self._routes.live_count > 1:
                    _log.warning("rooms instance stalls", instance=lane.target, texts_under_way=len(lane.publisher))
                    cut(lane)

    def _is_foreign(self, lane: Lane, room_id: str) -> bool:
        return self._owner(room_id) is not lane

    def _answered(self, target: str) -> None:
        self._by_target[target].answered()
        self._on_room()

    def _owner(self, room_id: str) -> Lane:
        return self._by_target[self._routes.owner(room_id)]
