"""One room on one stream: which messages the edge has, and what comes next. Pure.

A stream must show the messages of a room as start, start+1, …: no gap, no repeat, no inversion. What is live comes from
the bus, what is older from the log, and the two race. So a follow knows the `position` up to which the edge has been
served and the `target` that the room is known to have reached. While they differ it is behind: pages of the log are
added until they meet, and live pieces wait beside it (`held`) so that a busy room can be caught up with at all. A piece
that does not join on to the position is a loss on the way and leaves the follow behind, whatever the reason.

Held pieces are a convenience: they may be dropped at any time, since the log has them too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

P = TypeVar("P", bound="Piece")


class Piece(Protocol):
    """Consecutive messages of one room."""

    @property
    def epoch(self) -> str:
        """The life of the log that they belong to."""
        ...

    @property
    def first_seq(self) -> int:
        """The number of the first message."""
        ...

    @property
    def last_seq(self) -> int:
        """The number of the last message."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        ...

    def after(self, seq: int) -> Self:
        """The messages behind `seq`, of which there is at least one."""
        ...


class Follow(Generic[P]):
    """The state of one room on one stream. It begins unresolved: where the room is now must be told first."""

    __slots__ = ("_held", "_newest", "epoch", "held_bytes", "is_ended", "is_resolved", "position", "room_id", "target")

    def __init__(self, room_id: str, epoch: str, after_seq: int) -> None:
        self.room_id = room_id
        self.epoch = epoch
        self.position = after_seq
        self.target = after_seq
        self.is_resolved = False
        self.is_ended = False
        self.held_bytes = 0
        self._held: deque[P] = deque()
        self._newest: tuple[str, int] | None = None  # what was announced while it was unresolved

    @property
    def is_live(self) -> bool:
        """Whether the edge has everything that the room is known to have."""
        return self.is_resolved and self.position >= self.target

    def resolve(self, epoch: str, last_seq: int) -> list[P]:
        """Says where the room is now; returns what was held and can be sent.

        An edge that knows another life of the log, or a later message than there is, learns nothing old: its numbers
        mean nothing here. It is live from now on, and sees from the next message's epoch that it must reload.
        """
        if self._newest is not None and self._newest[0] == epoch:
            last_seq_known = max(last_seq, self._newest[1])
        else:
            last_seq_known = last_seq
        self.is_resolved = True
        if epoch != self.epoch or self.position > last_seq_known:
            self.epoch = epoch
            self.position = last_seq
        self.target = last_seq_known
        return self._settle()

    def offer(self, piece: P, *, is_full: bool = False) -> P | None:
        """A live piece. Returns what to send now, or None where it is held, known already, or to be read later.

        With `is_full` the stream takes no more: the follow falls behind, without holding anything.
        """
        if not self.is_resolved:
            self._newest = (piece.epoch, piece.last_seq)
            if not is_full:
                self._hold(piece)
            return None
        if piece.epoch != self.epoch:
            self._begin_life(piece.epoch, piece.first_seq - 1)
        was_live = self.position >= self.target
        self.target = max(self.target, piece.last_seq)
        if piece.last_seq <= self.position or is_full:
            return None
        if not was_live or piece.first_seq > self.position + 1:
            self._hold(piece)
            return None
        return self._advance(piece)

    def announce(self, epoch: str, last_seq: int) -> None:
        """The room is known to have reached `last_seq`, by word of somebody who does not have the messages.

        In another life of the log than the follow knows it is unresolved again: where that one is must be told first.
        """
        if not self.is_resolved:
            if self._newest is None or self._newest[0] != epoch or self._newest[1] < last_seq:
                self._newest = (epoch, last_seq)
        elif epoch == self.epoch:
            self.target = max(self.target, last_seq)
        else:
            self.is_resolved = False
            self._newest = None
            self.drop_held()

    def add_page(self, epoch: str, pieces: Iterable[P]) -> list[P]:
        """What the log had behind `position`, up to `target`; returns what to send, held pieces included.

        A page without progress means that the log does not have what was announced: the follow skips to its target,
        because waiting would not bring it back.
        """
        if epoch != self.epoch:  # another life of the log than the one that was asked for: ask where that is
            self.is_resolved = False
            self._newest = None
            self.drop_held()
            return []
        ready = [self._advance(piece) for piece in pieces if piece.last_seq > self.position]
        if not ready and self.position < self.target:
            self.position = self.target
        return ready + self._settle()

    def drop_held(self) -> None:
        """Lets go of the pieces that wait; they are read from the log instead."""
        self._held.clear()
        self.held_bytes = 0

    def end(self) -> None:
        """The edge does not want this room any more, or wants it anew from another position."""
        self.is_ended = True
        self.drop_held()

    def _hold(self, piece: P) -> None:
        self._held.append(piece)
        self.held_bytes += piece.size

    def _advance(self, piece: P) -> P:
        if piece.first_seq <= self.position:
            piece = piece.after(self.position)
        self.position = piece.last_seq
        return piece

    def _begin_life(self, epoch: str, position: int) -> None:
        self.epoch = epoch
        self.position = self.target = position
        self.drop_held()

    def _settle(self) -> list[P]:
        """Takes the held pieces that join on to the position."""
        ready: list[P] = []
        while self._held:
            piece = self._held[0]
            if piece.epoch == self.epoch and piece.first_seq > self.position + 1:
                break
            self._held.popleft()
            self.held_bytes -= piece.size
            if piece.epoch == self.epoch and piece.last_seq > self.position:
                ready.append(self._advance(piece))
        self.target = max(self.target, self.position)
        return ready
