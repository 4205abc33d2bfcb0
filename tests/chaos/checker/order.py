"""I9 sender order, on a connection and in a pipe, I10 real time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Audit, Deliver, Fail, Info, Invoke, Ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent

Place = tuple[str, str, str]  # sender, room, key


@dataclass(slots=True)
class Sent:
    """One text: its attempts, and what was acknowledged in its room before the first of them."""

    before: dict[str, Ok]  # by epoch: the acknowledgement with the highest seq
    attempts: list[Invoke] = field(default_factory=list)
    refused: set[tuple[str, int]] = field(default_factory=set)  # (conn, req)
    unknown: dict[tuple[str, int], float] = field(default_factory=dict)  # (conn, req): when that was told
    storing: Invoke | None = None  # the attempt that is known to have stored it
    seq: int = 0
    epoch: str = ""
    is_acknowledged: bool = False


class Order:
    """Who was first, by the sender's connection and by the clock."""

    def __init__(self) -> None:
        self._sent: dict[Place, Sent] = {}
        self._newest: dict[str, dict[str, Ok]] = {}  # room, epoch
        self._pipes: dict[str, list[Sent]] = {}

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at sends, answers and everything that names a seq."""
        if isinstance(event, Invoke):
            place = (event.c, event.room, event.key)
            sent = self._sent.get(place)
            if sent is None:
                # Acknowledgements replace the dictionary, never change it: so it may be shared.
                sent = self._sent[place] = Sent(self._newest.get(event.room, {}))
                if event.pipe:
                    self._pipes.setdefault(event.pipe, []).append(sent)
            sent.attempts.append(event)
        elif isinstance(event, Fail):
            sent = self._sent.get((event.c, event.room, event.key))
            if sent is not None:
                sent.refused.add((event.conn, event.req))
        elif isinstance(event, Info):
            sent = self._sent.get((event.c, event.room, event.key))
            if sent is not None:
                sent.unknown[event.conn, event.req] = event.t
        elif isinstance(event, Ok):
            yield from self._placed((event.c, event.room, event.key), event.epoch, event.seq)
            self._acknowledged(event)
        elif isinstance(event, Deliver):
            yield from self._placed((event.sender, event.room, event.key), event.epoch, event.seq)
        elif isinstance(event, Audit):
            for seq, key, _, sender in event.entries:
                yield from self._placed((sender, event.room, key), event.epoch, seq)

    def _acknowledged(self, ok: Ok) -> None:
        epochs = self._newest.get(ok.room, {})
        newest = epochs.get(ok.epoch)
        if newest is None or newest.seq < ok.seq:
            self._newest[ok.room] = {**epochs, ok.epoch: ok}
        sent = self._sent.get((ok.c, ok.room, ok.key))
        if sent is not None:
            sent.is_acknowledged = True
        if sent is not None and sent.storing is None and not ok.duplicate:
            sent.storing = next((a for a in sent.attempts if (a.conn, a.req) == (ok.conn, ok.req)), None)

    def _placed(self, place: Place, epoch: str, seq: int) -> Iterator[Violation]:
        sent = self._sent.get(place)
        if sent is None or sent.seq:
            return
        sent.seq, sent.epoch = seq, epoch
        earlier = sent.before.get(epoch)
        if earlier is not None and earlier.seq > seq:
            what = f"{place[2]} became {seq} of {place[1]}, after {earlier.seq} had been acknowledged"
            yield Violation("I10", what, (earlier, sent.attempts[0]))

    def end(self) -> Iterator[Violation]:
        """Compares the texts of each connection and room in the order in which they were sent."""
        streams: dict[tuple[str, str, str], list[tuple[Invoke, Sent]]] = {}
        for sent in self._sent.values():
            attempt = sent.storing or _only(sent)
            if attempt is not None and sent.seq:
                streams.setdefault((attempt.conn, attempt.room, sent.epoch), []).append((attempt, sent))
        for stream in streams.values():
            stream.sort(key=lambda pair: pair[0].req)
            yield from _on_connection(stream)
        for name, pipe in self._pipes.items():
            yield from _in_pipe(name, [sent for sent in pipe if sent.is_acknowledged])


def _on_connection(stream: list[tuple[Invoke, Sent]]) -> Iterator[Violation]:
    """What was sent before, and was not told to be unknown before this one was sent, has a lower seq.

    Who is told that nobody knows must expect it at any time from then on: it may be on its way in what is left of a
    rooms process, behind which the others already go another way.
    """
    highest: tuple[Invoke, Sent] | None = None
    unsure: list[tuple[float, Invoke, Sent]] = []
    for attempt, sent in stream:
        earlier = [(first, one) for told_at, first, one in unsure if told_at > attempt.t]
        first, one = max((*earlier, *filter(None, (highest,))), key=lambda pair: pair[1].seq, default=(attempt, sent))
        if one.seq > sent.seq:
            yield Violation("I9", f"sent one after the other, stored as {one.seq} and {sent.seq}", (first, attempt))
        told_at = sent.unknown.get((attempt.conn, attempt.req))
        if told_at is not None:
            unsure.append((told_at, attempt, sent))
        elif highest is None or sent.seq > highest[1].seq:
            highest = attempt, sent


def _in_pipe(name: str, pipe: list[Sent]) -> Iterator[Violation]:
    """Those that were never acknowledged may have been refused at last, and stored by an older attempt."""
    for one, other in itertools.pairwise(pipe):
        if one.epoch == other.epoch and one.seq > other.seq:
            what = f"{name}: {other.seq} was put in behind {one.seq}"
            yield Violation("I9", what, (*one.attempts, *other.attempts))


def _only(sent: Sent) -> Invoke | None:
    """The attempt that must have stored it, where only one can have."""
    left = [attempt for attempt in sent.attempts if (attempt.conn, attempt.req) not in sent.refused]
    return left[0] if len(left) == 1 else None
