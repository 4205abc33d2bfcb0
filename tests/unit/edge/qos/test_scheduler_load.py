"""Simulated load: one server with a fixed capacity, offered more than it can do, on a simulated clock."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import Any, Protocol

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.edge.qos.classes import DEFAULT_SETTINGS, QosClass
from services.edge.qos.scheduler import Entry, Scheduler

CRITICAL, HIGH, NORMAL, LOW = QosClass.CRITICAL, QosClass.HIGH, QosClass.NORMAL, QosClass.LOW


class Queue(Protocol):
    def offer(self, item: Any, qos_class: QosClass, flow: int, now: float) -> float | None: ...

    def pop(self, now: float) -> Entry | None: ...


NOBODY: Any = None


class PlainDeadlines:
    """Earliest deadline first and nothing else: shows that the tests below can fail."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Entry]] = []
        self.sequence = 0
        self.waiting = dict.fromkeys(QosClass, 0)

    def offer(self, item: Any, qos_class: QosClass, flow: int, now: float) -> float | None:
        if self.waiting[qos_class] >= DEFAULT_SETTINGS[qos_class].share:
            return 1.0
        self.waiting[qos_class] += 1
        self.sequence += 1
        deadline = now + DEFAULT_SETTINGS[qos_class].target_s
        heappush(self.heap, (deadline, self.sequence, Entry(item, qos_class, now, NOBODY)))
        return None

    def pop(self, now: float) -> Entry | None:
        if not self.heap:
            return None
        entry = heappop(self.heap)[2]
        self.waiting[entry.qos_class] -= 1
        entry.waited_s = now - entry.arrived
        return entry


def simulate(
    queue: Queue,
    *,
    capacity: float,
    offered: dict[QosClass, float],
    flows: int,
    seconds: float,
    seed: int,
) -> dict[QosClass, list[float]]:
    """Offer Poisson arrivals (requests a second, by class) of random flows; return the waits of what was started."""
    chance = random.Random(seed)
    arrivals = [(chance.expovariate(rate), qos_class) for qos_class, rate in offered.items() if rate > 0]
    waits: dict[QosClass, list[float]] = {qos_class: [] for qos_class in QosClass}
    now = 0.0
    while now < seconds:
        while min(arrivals)[0] <= now:
            at, qos_class = min(arrivals)
            arrivals.remove((at, qos_class))
            arrivals.append((at + chance.expovariate(offered[qos_class]), qos_class))
            queue.offer(None, qos_class, chance.randrange(flows), at)
        entry = queue.pop(now)
        if entry is None:
            now = min(arrivals)[0]
        else:
            waits[entry.qos_class].append(entry.waited_s)
            now += 1 / capacity
    return waits


def p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(
    capacity=st.sampled_from([100.0, 400.0, 1500.0]),
    mix=st.sampled_from([(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 1), (2, 2, 2), (0.1, 0.4, 1.5)]),
    flows=st.sampled_from([1000, 100_000]),
    seed=st.integers(0, 2**32),
)
def test_low_waits_two_seconds_at_most_while_higher_classes_are_offered_twice_the_capacity(
    capacity: float, mix: tuple[float, float, float], flows: int, seed: int
) -> None:
    offered = {c: share * capacity for c, share in zip((CRITICAL, HIGH, NORMAL), mix, strict=True)}
    offered[LOW] = 0.02 * capacity
    waits = simulate(Scheduler(), capacity=capacity, offered=offered, flows=flows, seconds=12, seed=seed)
    assert len(waits[LOW]) > 0.02 * capacity * 12 * 0.3
    assert max(waits[LOW]) <= 2.0


def test_one_connection_that_asks_steadily_waits_two_seconds_at_most_too() -> None:
    scheduler = Scheduler()
    chance = random.Random(1)
    waits: list[float] = []
    now, capacity = 0.0, 500.0
    for step in range(10_000):
        for _ in range(2):  # twice the capacity
            scheduler.offer(None, chance.choice([CRITICAL, HIGH, NORMAL]), chance.randrange(1000), now)
        if step % 150 == 0:  # 3.3 a second
            scheduler.offer(None, LOW, 0, now)
        if chance.random() < 0.01:  # 5 a second, of others
            scheduler.offer(None, LOW, step, now)
        entry = scheduler.pop(now)
        assert entry is not None
        if entry.qos_class is LOW:
            waits.append(entry.waited_s)
        now += 1 / capacity
    assert len(waits) > 120
    assert max(waits) <= 2.0


@pytest.mark.parametrize("flows", [10, 5000])
def test_critical_stays_fast_while_low_saturates(flows: int) -> None:
    offered = {CRITICAL: 100.0, LOW: 4000.0}
    waits = simulate(Scheduler(), capacity=300.0, offered=offered, flows=flows, seconds=20, seed=1)
    assert p99(waits[CRITICAL]) <= 0.05
    assert len(waits[LOW]) > 0.5 * 200 * 20


def test_plain_deadlines_would_not_keep_critical_fast() -> None:
    offered = {CRITICAL: 100.0, LOW: 4000.0}
    waits = simulate(PlainDeadlines(), capacity=300.0, offered=offered, flows=5000, seconds=20, seed=1)
    assert p99(waits[CRITICAL]) > 0.5


def test_plain_deadlines_would_let_low_wait_for_every_share() -> None:
    offered = {CRITICAL: 400.0, LOW: 4.0}
    waits = simulate(PlainDeadlines(), capacity=200.0, offered=offered, flows=5000, seconds=20, seed=1)
    assert max(waits[LOW]) > 5.0


def test_every_class_keeps_a_share_of_the_starts_when_all_are_overloaded() -> None:
    capacity = 500.0
    offered = dict.fromkeys(QosClass, 2 * capacity)
    waits = simulate(Scheduler(), capacity=capacity, offered=offered, flows=5000, seconds=20, seed=1)
    started = {qos_class: len(values) / (capacity * 20) for qos_class, values in waits.items()}
    assert started[CRITICAL] >= 0.7
    for qos_class in (HIGH, NORMAL, LOW):
        assert started[qos_class] >= 0.9 / 12


def test_a_flood_of_one_connection_delays_the_others_hardly() -> None:
    chance = random.Random(1)
    scheduler = Scheduler()
    now, capacity = 0.0, 1000.0
    calm: list[float] = []
    for step in range(20_000):
        for _ in range(3):  # three times the capacity, from one connection
            scheduler.offer("flood", NORMAL, 0, now)
        if chance.random() < 0.3:
            scheduler.offer("calm", NORMAL, 1 + step % 50, now)
        entry = scheduler.pop(now)
        assert entry is not None
        if entry.item == "calm":
            calm.append(entry.waited_s)
        now += 1 / capacity
    assert len(calm) > 5000
    assert max(calm) <= 0.05


def test_without_overload_every_class_meets_its_target() -> None:
    offered = {CRITICAL: 100.0, HIGH: 100.0, NORMAL: 500.0, LOW: 100.0}
    waits = simulate(Scheduler(), capacity=1000.0, offered=offered, flows=500, seconds=20, seed=1)
    for qos_class in QosClass:
        assert max(waits[qos_class]) <= DEFAULT_SETTINGS[qos_class].target_s + 0.02
