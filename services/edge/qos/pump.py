"""The pump: takes waiting requests in the scheduler's order and starts them as their resources allow.

Requests that need different things must not wait for each other: texts need room in the publisher's window, logins a
place at the password checkers, commands and pages a call to rooms. So there is a pool for each, with a queue and a
bound of its own; a thousand texts never stand before a logout, nor a login storm before a join. What
cannot start at once is started by the pump, which runs once per turn of the event loop, commands before texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Final, Protocol

import msgspec

from services.common.clock import Clock
from services.common.counters import Counter, Histogram
from services.common.wire.requests import (
    Authenticate,
    FileCancel,
    FileGet,
    FileList,
    FileOffer,
    FileTransfer,
    Register,
    Resume,
)
from services.edge.decisions import Command, Text
from services.edge.qos.classes import ClassSettings, QosClass
from services.edge.qos.scheduler import PART_MAX, ClassSnapshot, Scheduler

_SIGN_INS: Final = frozenset({Register, Authenticate})

_FILES: Final = frozenset({FileOffer, FileGet, FileList, FileCancel, FileTransfer})

_PARTS: Final = {"sign_ins": 8.0, "resumes": 0.0625, "commands": 0.5, "pages": 0.25, "files": 0.25}
"""The pools' parts of the concurrency: half for commands, a quarter each for pages and files. A login costs the edge
nothing while it waits for the password checkers; whose turn it is there, and who is refused, auth decides, fairly
between addresses and over all edges. So the edge holds none back unless there are more than auth lets wait.
When another edge dies its thousands come here in one moment, and a resume costs as much as a hundred texts. A few at a
time are back nearly as soon as all together would be, and nobody's texts wait behind them in auth and rooms."""

_SIGN_INS_MAX: Final = 512
"""Twice what auth lets wait, half of the streams that a connection carries."""

_TEXTS_AHEAD: Final = 512
"""With so many texts waiting, what starts next is at hand, and connections that wait for their turn go on waiting."""

_TURNS_AT_ONCE: Final = 32
"""Of connections that go on in one turn of the loop."""

CONCURRENCY_MIN: Final = 4
CONCURRENCY_MAX: Final = 1_000
"""About as many calls as one HTTP/2 connection to rooms carries."""


class ClassUpdate(msgspec.Struct, frozen=True):
    """A change to a class; None leaves a setting as it is."""

    qos_class: QosClass
    target_s: float | None = None
    share: int | None = None


class TextSink(Protocol):
    """Where texts go."""

    @property
    def has_room(self) -> bool:
        """Whether another text may be submitted."""
        ...

    def submit(self, text: Text, now: float) -> None:
        """Take a text."""
        ...


class _Pool:
    """Commands that share a bound on how many are under way."""

    __slots__ = ("concurrency", "part", "running", "scheduler")

    def __init__(self, classes: Mapping[QosClass, ClassSettings], part: float) -> None:
        self.scheduler = Scheduler(classes)
        self.part = part
        self.concurrency = 1
        self.running = 0


class Pump:
    """The edge's queues. Items have a `connection` with an `id`, by which the scheduler is fair.

    Texts go to `texts`, and whoever makes room there calls `kick`. `start_command(command, done)` begins a command
    and calls `done` at its end. `call_soon` defers to the loop's next turn. `accepted` and `refused` count requests,
    `waits` observes the waiting time of those that could not start at once.
    """

    def __init__(
        self,
        classes: Mapping[QosClass, ClassSettings],
        *,
        concurrency: int,
        texts: TextSink,
        start_command: Callable[[Command, Callable[[], None]], object],
        call_soon: Callable[[Callable[[], None]], object],
        clock: Clock,
        waits: Mapping[QosClass, Histogram],
        accepted: Mapping[QosClass, Counter],
        refused: Mapping[QosClass, Counter],
    ) -> None:
        self._texts = Scheduler(classes)
        self._pools = {name: _Pool(classes, part) for name, part in _PARTS.items()}
        self._sink = texts
        self._start_command = start_command
        self._call_soon = call_soon
        self._clock = clock
        self._waits = waits
        self._accepted = accepted
        self._refused = refused
        self._is_kicked = False
        self._is_text_waiting = False
        self._held: dict[int, Callable[[], object]] = {}  # in the order of their turns
        self._started_at_once = dict.fromkeys(QosClass, 0)
        self.concurrency = 0
        self._set_concurrency(concurrency)

    @property
    def running(self) -> int:
        """Commands under way."""
        return sum(pool.running for pool in self._pools.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and no command is under way."""
        return not self.running and not any(map(len, self._schedulers()))

    def waiting(self, qos_class: QosClass) -> int:
        """Requests of a class that wait."""
        return sum(scheduler.waiting(qos_class) for scheduler in self._schedulers())

    def oldest(self, qos_class: QosClass) -> float:
        """For how many seconds the oldest waiting request of a class has waited; 0 where none waits."""
        now = self._clock.monotonic()
        return max(scheduler.oldest(qos_class, now) for scheduler in self._schedulers())

    def offer_text(self, text: Text, now: float) -> float | None:
        """Queue a text; return None, or where its class is full the seconds after which to try again.

        While no text waits and there is room, there is nothing to order, and it starts at once.
        """
        if not self._is_text_waiting and self._sink.has_room:
            self._started_at_once[text.qos_class] += 1
            self._accepted[text.qos_class].value += 1
            self._sink.submit(text, now)
            return None
        self._is_text_waiting = True
        self.kick()
        return self._count(text.qos_class, self._texts.offer(text, text.qos_class, text.connection.id, now))

    def must_hold(self, connection_id: int) -> bool:
        """Whether a connection has its share of the places for texts, so that what it sends should wait in its socket.

        To read it and refuse it would cost as much as to serve it: under ten times what the machine can do, nothing
        would be left for those who are served.
        """
        return self._is_text_waiting and self._texts.is_over_share(connection_id)

    def hold(self, connection_id: int, go_on: Callable[[], object]) -> None:
        """Let a connection wait for its turn, behind those that wait already; `go_on()` is called then.

        A few go on at a time, each with as much as one may have waiting. What goes to rooms together is then from few
        of them, and so are the answers: a little from everybody would be a write to everybody for a few messages each.
        """
        self._held[connection_id] = go_on

    def is_held(self, connection_id: int) -> bool:
        """Whether a connection waits for its turn."""
        return connection_id in self._held

    def offer_command(self, command: Command, now: float) -> float | None:
        """Queue a command, as `offer_text` does a text."""
        pool = self._pool(command)
        retry_after_s = pool.scheduler.offer(command, command.qos_class, command.connection.id, now)
        self.kick()
        return self._count(command.qos_class, retry_after_s)

    def _count(self, qos_class: QosClass, retry_after_s: float | None) -> float | None:
        (self._accepted if retry_after_s is None else self._refused)[qos_class].add()
        return retry_after_s

    def discard(self, connection_id: int) -> None:
        """A connection is gone: forget its commands. Its texts were accepted, and stay."""
        self._held.pop(connection_id, None)
        for pool in self._pools.values():
            pool.scheduler.discard(connection_id)

    def kick(self) -> None:
        """Look again in the loop's next turn."""
        if not self._is_kicked:
            self._is_kicked = True
            self._call_soon(self._run)

    def snapshot(self) -> list[ClassSnapshot]:
        """The state of every class over all pools, critical first. Waiting times are those of its busiest pool."""
        now = self._clock.monotonic()
        by_pool = [scheduler.snapshot(now) for scheduler in self._schedulers()]
        return [_merge(same, self._started_at_once[same[0].qos_class]) for same in zip(*by_pool, strict=True)]

    def configure(self, *, concurrency: int | None, updates: Iterable[ClassUpdate]) -> None:
        """Change settings while running. Raises ValueError, and then nothing has changed."""
        updates = list(updates)
        for update in updates:
            old = self._texts.settings(update.qos_class)
            ClassSettings(
                target_s=old.target_s if update.target_s is None else update.target_s,
                share=old.share if update.share is None else update.share,
            )
        if concurrency is not None:
            self._set_concurrency(concurrency)
        for update in updates:
            for scheduler in self._schedulers():
                scheduler.configure(update.qos_class, target_s=update.target_s, share=update.share)
        self.kick()

    def _schedulers(self) -> list[Scheduler]:
        return [*(pool.scheduler for pool in self._pools.values()), self._texts]

    def _set_concurrency(self, concurrency: int) -> None:
        if not CONCURRENCY_MIN <= concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency: must be {CONCURRENCY_MIN} to {CONCURRENCY_MAX}, not {concurrency}")
        self.concurrency = concurrency
        for pool in self._pools.values():
            pool.concurrency = min(max(1, int(concurrency * pool.part)), max(_SIGN_INS_MAX, concurrency))

    def _pool(self, command: Command) -> _Pool:
        if type(command.request) in _SIGN_INS:
            return self._pools["sign_ins"]
        if type(command.request) is Resume:
            return self._pools["resumes"]
        if type(command.request) in _FILES:
            return self._pools["files"]
        return self._pools["pages" if command.qos_class is QosClass.LOW else "commands"]

    def _run(self) -> None:
        self._is_kicked = False
        now = self._clock.monotonic()
        for pool in self._pools.values():
            scheduler = pool.scheduler
            while pool.running < pool.concurrency and (entry := scheduler.pop(now)) is not None:
                self._waits[entry.qos_class].observe(entry.waited_s)
                pool.running += 1
                self._start_command(entry.item, partial(self._finished, pool))
        if self._is_text_waiting:
            self._start_texts(now)
        if self._held and len(self._texts) < _TEXTS_AHEAD:
            self._let_go_on()

    def _let_go_on(self) -> None:
        """Those whose turn it is, and who still have their share waiting, keep their places in the row."""
        missing = _TEXTS_AHEAD - len(self._texts)
        first = [*islice(self._held, min(_TURNS_AT_ONCE, -(-missing // PART_MAX)))]
        for connection_id in first:
            if not self.must_hold(connection_id):
                self._held.pop(connection_id)()
                self.kick()  # it may have no text, and others are behind it

    def _start_texts(self, now: float) -> None:
        while self._sink.has_room:
            entry = self._texts.pop(now)
            if entry is None:
                self._is_text_waiting = False
                return
            self._waits[entry.qos_class].observe(entry.waited_s)
            self._sink.submit(entry.item, now)

    def _finished(self, pool: _Pool) -> None:
        pool.running -= 1
        self.kick()


def _merge(same: tuple[ClassSnapshot, ...], started_at_once: int) -> ClassSnapshot:
    busiest = max(same, key=lambda snapshot: snapshot.started)
    return msgspec.structs.replace(
        busiest,
        waiting=sum(snapshot.waiting for snapshot in same),
        oldest_s=max(snapshot.oldest_s for snapshot in same),
        accepted=sum(snapshot.accepted for snapshot in same) + started_at_once,
        refused=sum(snapshot.refused for snapshot in same),
        started=sum(snapshot.started for snapshot in same) + started_at_once,
        discarded=sum(snapshot.discarded for snapshot in same),
    )
