"""The scheduler: which waiting request starts next, and which is refused at the door.

Earliest deadline first: the deadline is the time of arrival plus the class's latency target, the key of the heaps is
(deadline, sequence). Three things make that hold under load:

- **Fair between flows** (connections). At most BURST requests of a flow and class compete. Each further one follows
  when one of them starts, with the deadline of its own arrival or pushed back: a BURST-th of the target after its
  predecessor's, and never before now (nor, as it would have come now, later than a target from now). So a backlog
  pushes back its own deadlines and nobody else's: a request of an idle flow is behind a few requests of each other
  flow of its class, however many more those have waiting.
- **Late is not urgent.** Under overload every deadline slips, and earliest deadline first becomes first come, first
  served: thousands of overdue history pages would stand before a heartbeat. So once a lower class is overdue while a
  higher one waits, the highest waiting class goes first, and one start in RESERVED_EVERY belongs to the overdue ones,
  in turn. Higher classes thereby keep their latency when lower ones saturate, and lower ones keep moving when higher
  ones do, however large the shares are and however slow the machine is.
- **Bounded.** A class whose share is full refuses, and says when to come back. A flow that already has as much
  waiting as there is room left is refused before that, so that no flow can fill a share alone and lock the others out.
  What was accepted is never dropped, except by `discard` when its connection is gone.

There is one heap for each class rather than one for all, so that the choice can look at each class's head; while
nothing is overdue their merge is exactly the order of a single heap. Pure: time comes in as an argument, in seconds of
any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final

import msgspec

from services.edge.qos.classes import DEFAULT_SETTINGS, ClassSettings, QosClass

BURST: Final = 4
"""Requests of one flow and class that may compete: what a person's client has under way at a time, and some more."""

RESERVED_EVERY: Final = 4
"""While lower classes are overdue, one start in this many is theirs: three of them get a twelfth each, at least."""

PART_MAX: Final = 16
"""Places of a class for one flow that can be held back: what starts next is at hand, and 256 flows fit into 4,096."""

WAITS_KEPT: Final = 1024
"""Waiting times kept per class for percentiles: enough for a 99th one, 8 KiB each."""

RATE_WINDOW_S: Final = 0.25
"""The drain rate is taken over at least this long: longer than a batch, shorter than a client's patience."""

RATE_STALE_S: Final = 1.0
"""After this long without a full window the rate of before says nothing any more."""

RETRY_AFTER_S_MIN: Final = 0.05
RETRY_AFTER_S_MAX: Final = 10.0
RETRY_AFTER_S_UNKNOWN: Final = 1.0
"""What is said before anything was measured."""

TOMBSTONES_MAX: Final = 64
"""Discarded entries that a heap may carry beyond half its size before it is swept."""


class Entry(msgspec.Struct, gc=False):
    """A waiting request, and what `pop` gives: ``waited_s`` is set when it starts."""

    item: Any
    qos_class: QosClass
    arrived: float
    flow: _Flow
    waited_s: float = 0.0


class _Flow(msgspec.Struct, gc=False):
    """What one flow has waiting in one class; flows that have nothing waiting do not exist."""

    key: Hashable
    competing: int = 0  # requests in the heap
    deadline: float = 0.0  # of the last one of them
    rest: deque[Entry] | None = None  # those that follow
    is_gone: bool = False

    @property
    def waiting(self) -> int:
        return self.competing + (len(self.rest) if self.rest is not None else 0)


class ClassSnapshot(msgspec.Struct, frozen=True):
    """One class as it stands: settings, what waits, counts since the start, waiting times of the last ones started."""

    qos_class: QosClass
    target_s: float
    share: int
    waiting: int
    oldest_s: float
    accepted: int
    refused: int
    started: int
    discarded: int
    wait_p50_s: float
    wait_p99_s: float


class _Lane:
    """The waiting requests of one class."""

    __slots__ = (
        "accepted", "discarded", "flows", "heap", "push_back_s", "qos_class", "rate", "rate_count", "rate_since",
        "refused", "settings", "share", "started", "target_s", "tombstones", "waiting", "waits",
    )  # fmt: skip

    def __init__(self, qos_class: QosClass, settings: ClassSettings) -> None:
        self.qos_class = qos_class
        self.configure(settings)
        self.heap: list[tuple[float, int, Entry]] = []  # deadline, sequence, and what competes
        self.flows: dict[Hashable, _Flow] = {}
        self.waiting = 0
        self.tombstones = 0
        self.accepted = self.refused = self.started = self.discarded = 0
        self.waits: deque[float] = deque(maxlen=WAITS_KEPT)
        self.rate: float | None = None
        self.rate_since = 0.0
        self.rate_count = 0

    def configure(self, settings: ClassSettings) -> None:
        self.settings = settings
        self.target_s = settings.target_s
        self.push_back_s = settings.target_s / BURST
        self.share = settings.share

    def retarget(self, settings: ClassSettings) -> None:
        """Change the settings; what waits gets the deadlines of the new target."""
        difference_s = settings.target_s - self.target_s
        self.configure(settings)
        self.sweep()
        for flow in self.flows.values():
            flow.deadline += difference_s
        self.heap = [(deadline + difference_s, sequence, entry) for deadline, sequence, entry in self.heap]
        heapify(self.heap)

    def sweep(self) -> None:
        """Free the heap of what was discarded."""
        self.heap = [key for key in self.heap if not key[2].flow.is_gone]
        heapify(self.heap)
        self.tombstones = 0

    def follow(self, flow: _Flow, following: Entry, now: float) -> float:
        """The deadline with which a flow's next request competes, now that one of them starts."""
        deadline = following.arrived + self.target_s
        if deadline < (pushed_back := flow.deadline + self.push_back_s):
            deadline = pushed_back
        if deadline < now:
            deadline = now
        elif deadline > (fresh := now + self.target_s):
            deadline = fresh
        flow.deadline = deadline
        return deadline

    def head(self) -> tuple[float, int, Entry]:
        """The first of a lane that is not empty."""
        heap = self.heap
        while self.tombstones and heap[0][2].flow.is_gone:
            heappop(heap)
            self.tombstones -= 1
        return heap[0]

    def measure(self, now: float) -> None:
        """Take the drain rate over the window that ends now, and begin a new one."""
        self.rate = self.rate_count / (now - self.rate_since)
        self.rate_since = now
        self.rate_count = 0

    def retry_after_s(self, now: float) -> float:
        """How long the requests that wait now will take to drain, by the rate of late."""
        elapsed = now - self.rate_since
        rate = self.rate_count / elapsed if elapsed >= RATE_STALE_S else self.rate
        if rate is None:
            return RETRY_AFTER_S_UNKNOWN
        if rate == 0.0:
            return RETRY_AFTER_S_MAX
        return min(max(self.waiting / rate, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)

    def discard(self, flow: Hashable) -> int:
        gone = self.flows.pop(flow, None)
        if gone is None:
            return 0
        count = gone.waiting
        gone.is_gone = True
        gone.rest = None
        self.waiting -= count
        self.discarded += count
        self.tombstones += gone.competing
        if self.tombstones > TOMBSTONES_MAX + len(self.heap) // 2:
            self.sweep()
        return count

    def snapshot(self, now: float) -> ClassSnapshot:
        waits = sorted(self.waits)
        return ClassSnapshot(
            qos_class=self.qos_class,
            target_s=self.target_s,
            share=self.share,
            waiting=self.waiting,
            oldest_s=self.oldest_s(now),
            accepted=self.accepted,
            refused=self.refused,
            started=self.started,
            discarded=self.discarded,
            wait_p50_s=_percentile(waits, 50),
            wait_p99_s=_percentile(waits, 99),
        )

    def oldest_s(self, now: float) -> float:
        return max((now - entry.arrived for _, _, entry in self.heap if not entry.flow.is_gone), default=0.0)


def _percentile(ordered: list[float], percent: int) -> float:
    """The smallest value that is not below ``percent`` per cent of the values (nearest rank); 0 of none."""
    return ordered[(len(ordered) * percent + 99) // 100 - 1] if ordered else 0.0


class Scheduler:
    """A bounded queue of requests in four classes; see the module's text for the order."""

    __slots__ = ("_by_class", "_lanes", "_reserved", "_sequence", "_turn")

    def __init__(self, classes: Mapping[QosClass, ClassSettings] = DEFAULT_SETTINGS) -> None:
        """Raises ValueError where a class has no settings."""
        if missing := [qos_class.label for qos_class in QosClass if qos_class not in classes]:
            raise ValueError(f"classes without settings: {', '.join(missing)}")
        self._lanes = [_Lane(qos_class, classes[qos_class]) for qos_class in sorted(QosClass, reverse=True)]
        self._by_class = [self._lanes[-1], *reversed(self._lanes)]  # indexed by the class's number, 1 to 4
        self._sequence = 0
        self._turn = 0
        self._reserved = 0  # the class that had the last reserved start

    def __len__(self) -> int:
        return sum(lane.waiting for lane in self._lanes)

    def offer(self, item: Any, qos_class: QosClass, flow: Hashable, now: float) -> float | None:
        """Take a request, or refuse it: None where it was accepted, else the seconds after which to try again."""
        lane = self._by_class[qos_class]
        room = lane.share - lane.waiting
        own = lane.flows.get(flow)
        if room <= 0 or (own is not None and own.rest is not None and len(own.rest) >= room):
            lane.refused += 1
            return lane.retry_after_s(now)
        if not lane.waiting and now - lane.rate_since >= RATE_WINDOW_S:  # a class without work says nothing of its rate
            lane.rate_since = now
            lane.rate_count = 0
        lane.waiting += 1
        lane.accepted += 1
        if own is None:
            lane.flows[flow] = own = _Flow(flow)
        entry = Entry(item, qos_class, now, own)
        if own.competing < BURST:
            own.competing += 1
            own.deadline = deadline = now + lane.target_s
            self._sequence = sequence = self._sequence + 1
            heappush(lane.heap, (deadline, sequence, entry))
        elif own.rest is None:
            own.rest = deque((entry,))
        else:
            own.rest.append(entry)
        return None

    def pop(self, now: float) -> Entry | None:
        """Start the next request, or return None where nothing waits."""
        lane = self._choose(now)
        if lane is None:
            return None
        entry = lane.head()[2]
        flow = entry.flow
        if flow.rest is None:
            heappop(lane.heap)
            flow.competing -= 1
            if not flow.competing:
                del lane.flows[flow.key]
        else:
            following = flow.rest.popleft()
            if not flow.rest:
                flow.rest = None
            self._sequence = sequence = self._sequence + 1
            heapreplace(lane.heap, (lane.follow(flow, following, now), sequence, following))
        entry.waited_s = waited_s = now - entry.arrived
        lane.waiting -= 1
        lane.started += 1
        lane.waits.append(waited_s)
        lane.rate_count += 1
        if now - lane.rate_since >= RATE_WINDOW_S:
            lane.measure(now)
        return entry

    def _choose(self, now: float) -> _Lane | None:
        """The lane whose head starts next."""
        highest: _Lane | None = None
        earliest: _Lane | None = None
        overdue: list[_Lane] | None = None
        for lane in self._lanes:
            if not lane.waiting:
                continue
            if highest is None:
                highest = earliest = lane
                continue
            head = lane.head()
            if head[0] < now:
                overdue = [lane] if overdue is None else [*overdue, lane]
            if earliest is not None and head < earliest.head():
                earliest = lane
        if overdue is None:
            return earliest
        self._turn = (self._turn + 1) % RESERVED_EVERY
        return highest if self._turn else self._next_reserved(overdue)

    def _next_reserved(self, overdue: list[_Lane]) -> _Lane:
        """The overdue lane that comes after the one which had the last reserved start, from high to low and round."""
        for lane in overdue:
            if lane.qos_class < self._reserved:
                break
        else:
            lane = overdue[0]
        self._reserved = lane.qos_class
        return lane

    def discard(self, flow: Hashable) -> int:
        """Forget what a flow has waiting, because its connection is gone; return how many requests that were."""
        return sum(lane.discard(flow) for lane in self._lanes)

    def is_over_share(self, flow: Hashable) -> bool:
        """Whether a flow has its part of a class's places, or as much waiting as there is room left in the class.

        Who can hold a flow's next requests back where they are does so then. Where all do, nobody is refused while no
        more than share / PART_MAX flows have something waiting; beyond that parts shrink, and newcomers may be refused.
        """
        for lane in self._lanes:
            own = lane.flows.get(flow)
            if own is not None:
                part = min(PART_MAX, lane.share // (len(lane.flows) + 1), lane.share - lane.waiting)
                if own.waiting >= part:
                    return True
        return False

    def waiting(self, qos_class: QosClass) -> int:
        """How many requests of the class wait."""
        return self._by_class[qos_class].waiting

    def oldest(self, qos_class: QosClass, now: float) -> float:
        """For how many seconds the oldest waiting request of the class has waited; 0 where none waits."""
        return self._by_class[qos_class].oldest_s(now)

    def settings(self, qos_class: QosClass) -> ClassSettings:
        """What is in force for the class."""
        return self._by_class[qos_class].settings

    def configure(self, qos_class: QosClass, *, target_s: float | None = None, share: int | None = None) -> None:
        """Change a class while running; None leaves a setting as it is.

        A new target counts for what waits already. A share below what waits refuses until enough has started.
        Raises ValueError where a value is out of range, and changes nothing then.
        """
        lane = self._by_class[qos_class]
        settings = lane.settings
        if target_s is not None:
            settings = replace(settings, target_s=target_s)
        if share is not None:
            settings = replace(settings, share=share)
        lane.retarget(settings)

    def snapshot(self, now: float) -> list[ClassSnapshot]:
        """The state of every class, critical first."""
        return [lane.snapshot(now) for lane in self._lanes]
