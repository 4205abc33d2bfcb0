"""All open streams, and who follows what: carries the events of the bus to the streams that want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.rooms.bus import MembershipEnded, PresenceChanged, Reached
from services.rooms.messages import Head, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.rooms.bus import Bus, Event
    from services.rooms.presence import Change
    from services.rooms.stream import Encoded, Stream


class Streams:
    """The streams of this instance. `encode` makes the form in which a run waits and is sent: once for all streams."""

    def __init__(self, *, bus: Bus, encode: Callable[[Run], Encoded]) -> None:
        self._encode = encode
        self._of_boot: dict[str, Stream] = {}
        self._streams: dict[Stream, None] = {}
        self._followers: dict[str, dict[Stream, None]] = {}
        # Where each followed room is, as far as the bus has said since somebody follows it.
        self._heads: dict[str, Head] = {}
        self.is_stopping = False
        bus.subscribe(self._on_event)

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Stream) -> None:
        """A stream is open. An earlier one of the same boot takes no more requests: what the edge repeats on the new
        one would otherwise race with what is left of the old one."""
        earlier = self._of_boot.get(stream.boot_id)
        if earlier is not None:
            earlier.stop()
        self._of_boot[stream.boot_id] = stream
        self._streams[stream] = None

    def discard(self, stream: Stream) -> None:
        """A stream has ended."""
        del self._streams[stream]
        if self._of_boot.get(stream.boot_id) is stream:
            del self._of_boot[stream.boot_id]
        for room_id in list(stream.follows):
            self.unfollow(stream, room_id)

    def stop(self) -> None:
        """Ends all streams as soon as what is under way on them has been answered. There should be no new ones."""
        self.is_stopping = True
        for stream in self._streams:
            stream.stop()

    def follow(self, stream: Stream, room_id: str, epoch: str, after_seq: int) -> None:
        """A stream wants a room, behind a position; again, where it has it already."""
        self._followers.setdefault(room_id, {})[stream] = None
        stream.follow(room_id, epoch, after_seq, self._heads.get(room_id))

    def unfollow(self, stream: Stream, room_id: str) -> None:
        """A stream does not want a room any more."""
        stream.unfollow(room_id)
        followers = self._followers.get(room_id)
        if followers is not None:
            followers.pop(stream, None)
            if not followers:
                del self._followers[room_id]
                self._heads.pop(room_id, None)

    @property
    def followed_room_ids(self) -> list[str]:
        """The rooms that at least one stream follows."""
        return list(self._followers)

    def announce(self, heads: Mapping[str, Head]) -> None:
        """Where rooms are, as the log says: streams that were sent less read the rest."""
        for room_id, head in heads.items():
            followers = self._followers.get(room_id)
            if followers and self._heads.get(room_id) != head:
                self._set_head(room_id, head)
                for stream in followers:
                    stream.announce(room_id, head)

    def ask_who_is_here(self) -> None:
        """All edges are to say again who is connected to them."""
        for stream in self._streams:
            stream.ask_who_is_here()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Run):
            self._on_run(event)
        elif isinstance(event, Reached):
            self.announce({event.room_id: Head(event.epoch, event.last_seq)})
        elif isinstance(event, PresenceChanged):
            self._on_presence(event)
        elif isinstance(event, MembershipEnded):
            self._on_ended(event)

    def _on_run(self, run: Run) -> None:
        room_id = run.room_id
        followers = self._followers.get(room_id)
        if followers:
            self._set_head(room_id, Head(run.epoch, run.last_seq))
            piece = self._encode(run)
            for stream in followers:
                stream.offer(room_id, piece)

    def _set_head(self, room_id: str, head: Head) -> None:
        # With several writers positions can come in any order.
        known = self._heads.get(room_id)
        if known is None or known.epoch != head.epoch or known.last_seq < head.last_seq:
            self._heads[room_id] = head

    def _on_presence(self, event: PresenceChanged) -> None:
        wanted: dict[Stream, list[Change]] = {}
        for change in event.changes:
            for stream in self._followers.get(change.room_id, ()):
                wanted.setdefault(stream, []).append(change)
        for stream, changes in wanted.items():
            stream.add_changes(changes)

    def _on_ended(self, event: MembershipEnded) -> None:
        for stream in self._streams:
            if stream.boot_id != event.except_boot_id:
                stream.add_ended(event)
