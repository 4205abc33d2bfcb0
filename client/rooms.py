"""Where the user stands in each joined room: which messages were shown, which came too early, which are missing.

Within a room and an epoch messages count 1, 2, 3, … without gaps, so the position of the last one shown says it all:
what is at or below it was shown, what is next is shown now, what is beyond shows that something is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from client.replies import Message, Messages, RoomInfo

AHEAD_MAX = 1000
"""Messages kept per room while what comes before them is fetched; whatever comes on top is fetched again later."""

RELOAD_MESSAGES = 50
"""How much of a room's new log is shown when an operator put back an older database: about a screenful."""


@dataclass(frozen=True)
class Missing:
    """Messages that the server no longer has, from `first_seq` to `last_seq`."""

    first_seq: int
    last_seq: int


@dataclass
class Room:
    """A joined room; `seq` is the last message shown, `top` the newest one that is known to exist."""

    room_id: str
    name: str
    epoch: str
    seq: int
    topic: str = ""
    role: str = "member"
    top: int = 0
    _ahead: dict[int, Message] = field(default_factory=dict, repr=False)

    @classmethod
    def entered(cls, info: RoomInfo) -> Room:
        """A room that was just entered: everything up to now is history, everything later will be shown."""
        return cls(
            info.room_id, info.name, info.epoch, info.last_seq, topic=info.topic, role=info.role, top=info.last_seq
        )

    @property
    def is_behind(self) -> bool:
        """True while a message that is known to exist was not shown."""
        return self.top > self.seq

    @property
    def has_gap(self) -> bool:
        """True while messages are there whose predecessors are not."""
        return bool(self._ahead)

    def learn(self, top: int) -> None:
        """The log is known to reach up to `top`."""
        self.top = max(self.top, top)

    def receive(self, messages: Iterable[Message]) -> list[Message]:
        """Takes messages of the current epoch; returns those that can be shown now, each once and in order."""
        fresh: list[Message] = []
        for message in messages:
            self.learn(message.seq)
            if message.seq == self.seq + 1:
                fresh.append(message)
                self.seq = message.seq
                fresh += self._take_ahead()
            elif message.seq > self.seq and len(self._ahead) < AHEAD_MAX:
                self._ahead[message.seq] = message
        return fresh

    def _take_ahead(self) -> list[Message]:
        taken = []
        while (following := self._ahead.pop(self.seq + 1, None)) is not None:
            taken.append(following)
            self.seq = following.seq
        return taken

    def fill(self, page: Messages) -> tuple[list[Message], Missing | None]:
        """Takes the page of history behind `seq`; returns what can be shown, and what the server no longer has."""
        missing = None
        # Where nothing that is next is known, the log begins later than where this client stopped reading.
        known = [*(message.seq for message in page.messages), *self._ahead]
        following = min((seq for seq in known if seq > self.seq), default=None)
        if following is None:
            self.top = self.seq
        elif following > self.seq + 1:
            missing = Missing(self.seq + 1, following - 1)
            self.seq = following - 1
        return self._take_ahead() + self.receive(page.messages), missing

    def begin_epoch(self, epoch: str, top: int) -> None:
        """The log was replaced by another one, which reaches up to `top`: its newest messages are to be shown."""
        self.epoch = epoch
        self.seq = max(0, top - RELOAD_MESSAGES)
        self.top = top
        self._ahead.clear()


class Rooms:
    """The joined rooms, in the order in which they were joined."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def __len__(self) -> int:
        return len(self._rooms)

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._rooms

    def get(self, room_id: str | None) -> Room | None:
        """The room with an id, or None where the user is not in it."""
        return self._rooms.get(room_id) if room_id else None

    def find(self, text: str) -> list[Room]:
        """The joined rooms that `text` may mean: an id, a name regardless of case, or else the beginning of either."""
        wanted = text.casefold()
        exact = [room for room in self if room.room_id == text or room.name.casefold() == wanted]
        return exact or [
            room for room in self if room.room_id.startswith(text) or room.name.casefold().startswith(wanted)
        ]

    def enter(self, info: RoomInfo) -> Room:
        """A room was joined, or joined again."""
        room = self._rooms.get(info.room_id)
        if room is None:
            room = self._rooms[info.room_id] = Room.entered(info)
        else:
            room.name, room.topic, room.role = info.name, info.topic, info.role
            room.learn(info.last_seq)
        return room

    def leave(self, room_id: str) -> Room | None:
        """A room was left."""
        return self._rooms.pop(room_id, None)

    def clear(self) -> None:
        """Forgets all."""
        self._rooms.clear()

    def return_to(self, infos: Iterable[RoomInfo]) -> tuple[list[Room], list[Room]]:
        """After a reconnect: learns how far the logs reach now.

        Returns the rooms that are gone, and those whose log was replaced by another one.
        """
        infos = list(infos)
        kept = {info.room_id for info in infos}
        gone = [room for room in self if room.room_id not in kept]
        for room in gone:
            self.leave(room.room_id)
        replaced = []
        for info in infos:
            known = self.get(info.room_id)
            if known is not None and known.epoch != info.epoch:
                known.begin_epoch(info.epoch, info.last_seq)
                replaced.append(known)
            self.enter(info)
        return gone, replaced
