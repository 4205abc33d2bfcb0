"""What is stored: I1 no loss, I3 no aborted read, I4 at most once, I5 agreement, I6 gapless."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.checker.violation import Violation
from tests.chaos.events import Audit, Deliver, End, Fail, Info, Invoke, Ok, Restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.events import AnyEvent, Event

Content = tuple[str, str]  # sender, h


@dataclass(slots=True)
class Send:
    """All attempts to send one text under one key."""

    open: int = 0  # attempts that are not refused
    failure: Fail | None = None


@dataclass(slots=True)
class Log:
    """A room's log as one source shows it."""

    epoch: str
    last_seq: int = 0
    contents: dict[int, Content] = field(default_factory=dict)
    last: Audit | None = None


class Storage:
    """Compares acknowledgements, deliveries and audits with each other."""

    def __init__(self) -> None:
        self._acks: dict[tuple[str, str, int], Ok] = {}  # (room, epoch, seq), the first of each
        self._sends: dict[tuple[str, str, str, str], Send] = {}  # (sender, room, key, h)
        self._seqs: dict[tuple[str, str, str], tuple[str, int, Event]] = {}  # (sender, room, key): epoch, seq
        self._values: dict[tuple[str, str, int], tuple[Content, Event]] = {}
        self._shown: dict[tuple[str, str, str, str], Event] = {}  # sends of which an attempt was refused
        self._logs: dict[tuple[str, str], Log] = {}  # (room, source)
        self._restores: list[Restored] = []
        self._ended_at = math.inf

    def see(self, event: AnyEvent) -> Iterator[Violation]:
        """Looks at what is invoked, answered, delivered and audited."""
        if isinstance(event, Invoke):
            send = self._sends.setdefault((event.c, event.room, event.key, event.h), Send())
            send.open += 1
        elif isinstance(event, Fail):
            send = self._sends.setdefault((event.c, event.room, event.key, event.h), Send(open=1))
            send.open -= 1
            send.failure = event
        elif isinstance(event, Ok):
            self._acks.setdefault((event.room, event.epoch, event.seq), event)
            yield from self._stored(event.c, event.room, event.key, event.h, event.epoch, event.seq, event)
        elif isinstance(event, Deliver):
            yield from self._stored(event.sender, event.room, event.key, event.h, event.epoch, event.seq, event)
        elif isinstance(event, Audit):
            yield from self._audited(event)
        elif isinstance(event, Restored):
            self._restores.append(event)
        elif isinstance(event, End):
            self._ended_at = event.t
        elif isinstance(event, Info):
            pass  # the attempt stays open for ever

    def _stored(
        self, sender: str, room: str, key: str, h: str, epoch: str, seq: int, event: Event
    ) -> Iterator[Violation]:
        """Something says that the room's message `seq` is this one."""
        value, first = self._values.setdefault((room, epoch, seq), ((sender, h), event))
        if value != (sender, h):
            yield Violation("I5", f"{room}-{epoch}-{seq} is two messages", (first, event))
        known_epoch, known_seq, known = self._seqs.setdefault((sender, room, key), (epoch, seq, event))
        if known_epoch == epoch and known_seq != seq:
            yield Violation("I4", f"key {key} of {sender} is stored as {known_seq} and as {seq}", (known, event))
        if not isinstance(event, Ok):
            # Whether it was refused is not known yet: it may be refused from now on too.
            self._shown.setdefault((sender, room, key, h), event)

    def _audited(self, audit: Audit) -> Iterator[Violation]:
        log = self._logs.setdefault((audit.room, audit.source), Log(audit.epoch))
        for seq, key, h, sender in audit.entries:
            if seq != log.last_seq + 1:
                witness = tuple(e for e in (_around(log.last, log.last_seq), _around(audit, seq)) if e is not None)
                what = f"{audit.source} shows {seq} of {audit.room} after {log.last_seq}"
                yield Violation("I6", what, witness)
            log.last_seq = max(seq, log.last_seq)
            log.contents[seq] = (sender, h)
            log.last = audit
            yield from self._stored(sender, audit.room, key, h, audit.epoch, seq, _around(audit, seq) or audit)

    def end(self) -> Iterator[Violation]:
        """Only now everything that could be refused or audited was."""
        for place, event in self._shown.items():
            send = self._sends.get(place)
            if send is not None and send.open == 0 and send.failure is not None:
                what = f"key {place[2]} was refused ({send.failure.code}), and is stored all the same"
                yield Violation("I3", what, (send.failure, event))
        by_room: dict[str, list[Ok]] = {}
        for ok in self._acks.values():
            by_room.setdefault(ok.room, []).append(ok)
        for (room, source), log in self._logs.items():
            for ok in sorted(by_room.get(room, ()), key=lambda ok: ok.seq):
                if ok.t > self._ended_at and ok.seq > log.last_seq:
                    continue  # it came after the last in the log, and may not have been there when that was read (I12)
                if not self._may_be_gone(ok, log) and log.contents.get(ok.seq) != (ok.c, ok.h):
                    what = f"{source} does not have {room}-{ok.epoch}-{ok.seq} ({_part(ok.seq, log)})"
                    yield Violation("I1", what, (ok,))

    def _may_be_gone(self, ok: Ok, log: Log) -> bool:
        """A restored copy has only what was acknowledged before it was made."""
        return ok.epoch != log.epoch and any(ok.t >= restored.copied_at for restored in self._restores)


def _part(seq: int, log: Log) -> str:
    """Where the loss is: what is missing at the end was not synced, what is missing elsewhere was overwritten."""
    if seq in log.contents:
        return "another message is there"
    if not log.contents or seq > log.last_seq:
        return "postfix"
    return "prefix" if seq < min(log.contents) else "middle"


def _around(audit: Audit | None, seq: int) -> Audit | None:
    """The audit with only the entry that matters."""
    if audit is None:
        return None
    entries = [entry for entry in audit.entries if entry[0] == seq]
    return Audit(t=audit.t, source=audit.source, room=audit.room, epoch=audit.epoch, entries=entries)
