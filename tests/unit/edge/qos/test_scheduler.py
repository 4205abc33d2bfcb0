from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.edge.qos.classes import DEFAULT_SETTINGS, ClassSettings, QosClass
from services.edge.qos.scheduler import (
    BURST,
    PART_MAX,
    RESERVED_EVERY,
    TOMBSTONES_MAX,
    WAITS_KEPT,
    ClassSnapshot,
    Entry,
    Scheduler,
)

CRITICAL, HIGH, NORMAL, LOW = QosClass.CRITICAL, QosClass.HIGH, QosClass.NORMAL, QosClass.LOW


def with_shares(share: int) -> dict[QosClass, ClassSettings]:
    return {c: ClassSettings(target_s=s.target_s, share=share) for c, s in DEFAULT_SETTINGS.items()}


def drain(scheduler: Scheduler, now: float) -> list[Any]:
    items = []
    while (entry := scheduler.pop(now)) is not None:
        items.append(entry.item)
    return items


@dataclass
class Model:
    """The same rules, written as plainly as possible: lists, and a search through all of them for every start."""

    targets: dict[QosClass, float]
    shares: dict[QosClass, int]
    rest: dict[tuple[QosClass, int], list[tuple[int, float]]] = field(default_factory=dict)
    competing: list[tuple[float, int, QosClass, int, int]] = field(default_factory=list)
    last: dict[tuple[QosClass, int], float] = field(default_factory=dict)
    sequence: int = 0
    turn: int = 0
    last_reserved: int = 0

    def waiting(self, qos_class: QosClass) -> int:
        rest = sum(len(items) for (c, _), items in self.rest.items() if c == qos_class)
        return rest + sum(c == qos_class for _, _, c, _, _ in self.competing)

    def compete(self, item: int, qos_class: QosClass, flow: int, deadline: float) -> None:
        self.sequence += 1
        self.last[qos_class, flow] = deadline
        self.competing.append((deadline, self.sequence, qos_class, flow, item))

    def offer(self, item: int, qos_class: QosClass, flow: int, now: float) -> bool:
        room = self.shares[qos_class] - self.waiting(qos_class)
        rest = self.rest.get((qos_class, flow), [])
        if room <= 0 or (rest and len(rest) >= room):
            return False
        if sum((c, f) == (qos_class, flow) for _, _, c, f, _ in self.competing) < BURST:
            self.compete(item, qos_class, flow, now + self.targets[qos_class])
        else:
            self.rest[qos_class, flow] = [*rest, (item, now)]
        return True

    def pop(self, now: float) -> int | None:
        order = sorted(self.competing)
        if not order:
            return None
        first = {c: next(one for one in order if one[2] == c) for c in QosClass if any(one[2] == c for one in order)}
        highest = max(first)
        overdue = sorted((c for c in first if c != highest and first[c][0] < now), reverse=True)
        chosen = order[0]
        if overdue:
            self.turn = (self.turn + 1) % RESERVED_EVERY
            if self.turn:
                chosen = first[highest]
            else:
                self.last_reserved = next((c for c in overdue if c < self.last_reserved), overdue[0])
                chosen = first[QosClass(self.last_reserved)]
        self.competing.remove(chosen)
        qos_class, flow = key = chosen[2], chosen[3]
        if self.rest.get(key):
            item, arrived = self.rest[key].pop(0)
            target = self.targets[qos_class]
            deadline = min(max(arrived + target, self.last[key] + target / BURST, now), now + target)
            self.compete(item, qos_class, flow, deadline)
        return chosen[4]

    def discard(self, flow: int) -> int:
        gone = [one for one in self.competing if one[3] == flow]
        self.competing = [one for one in self.competing if one[3] != flow]
        return len(gone) + sum(len(self.rest.pop((c, flow), [])) for c in QosClass)

    def retarget(self, qos_class: QosClass, target_s: float) -> None:
        difference_s = target_s - self.targets[qos_class]
        self.competing = [
            (deadline + difference_s if c == qos_class else deadline, n, c, flow, item)
            for deadline, n, c, flow, item in self.competing
        ]
        for key in self.last:
            self.last[key] += difference_s if key[0] == qos_class else 0.0
        self.targets[qos_class] = target_s


classes = st.sampled_from(list(QosClass))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), classes, st.integers(0, 2)),
        st.tuples(st.just("offer"), classes, st.integers(0, 4)),
        st.tuples(st.just("pop")),
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.03, 0.21, 1.5])),
        st.tuples(st.just("discard"), st.integers(0, 4)),
        st.tuples(st.just("target"), classes, st.sampled_from([0.0, 0.01, 0.5, 2.0])),
        st.tuples(st.just("share"), classes, st.integers(1, 20)),
    ),
    max_size=200,
)


@settings(max_examples=300)
@given(steps)
def test_it_does_what_the_plain_model_does(script: list[tuple[Any, ...]]) -> None:
    scheduler = Scheduler(with_shares(12))
    model = Model({c: s.target_s for c, s in DEFAULT_SETTINGS.items()}, dict.fromkeys(QosClass, 12))
    now, item = 100.0, 0
    accepted: dict[tuple[QosClass, int], list[int]] = {}
    for step in script:
        match step:
            case ("offer", qos_class, flow):
                item += 1
                refused = scheduler.offer((item, flow), qos_class, flow, now)
                assert (refused is None) == model.offer(item, qos_class, flow, now)
                assert refused is None or 0 < refused <= 10
                if refused is None:
                    accepted.setdefault((qos_class, flow), []).append(item)
            case ("pop",):
                entry = scheduler.pop(now)
                assert (None if entry is None else entry.item[0]) == model.pop(now)
                if entry is not None:  # first in, first out within a flow and class
                    assert accepted[entry.qos_class, entry.item[1]].pop(0) == entry.item[0]
                    assert entry.waited_s == now - entry.arrived
            case ("wait", seconds):
                now += seconds
            case ("discard", flow):
                assert scheduler.discard(flow) == model.discard(flow)
                accepted = {key: items for key, items in accepted.items() if key[1] != flow}
            case ("target", qos_class, target_s):
                scheduler.configure(qos_class, target_s=target_s)
                model.retarget(qos_class, target_s)
            case ("share", qos_class, share):
                scheduler.configure(qos_class, share=share)
                model.shares[qos_class] = share
        check_books(scheduler, model, now)
    rest = [item[0] for item in drain(scheduler, now)]
    assert rest == list(iter(lambda: model.pop(now), None))
    assert sorted(rest) == sorted(item for items in accepted.values() for item in items)  # nothing accepted is lost
    assert_empty(scheduler)


def check_books(scheduler: Scheduler, model: Model, now: float) -> None:
    for state in scheduler.snapshot(now):
        assert state.waiting == model.waiting(state.qos_class) == scheduler.waiting(state.qos_class)
        assert state.accepted == state.started + state.discarded + state.waiting
        assert (state.oldest_s > 0) <= (state.waiting > 0)
        lane = scheduler._by_class[state.qos_class]
        assert len(lane.heap) <= BURST * len(lane.flows) + lane.tombstones
        assert lane.tombstones <= TOMBSTONES_MAX + len(lane.heap) // 2 + 1
    assert len(scheduler) == sum(model.waiting(c) for c in QosClass)


def assert_empty(scheduler: Scheduler) -> None:
    """Idle flows leave nothing behind."""
    assert len(scheduler) == 0
    for lane in scheduler._lanes:
        assert lane.flows == {}
        assert all(entry.flow.is_gone for _, _, entry in lane.heap)
        assert len(lane.heap) <= TOMBSTONES_MAX


@given(
    backlog=st.lists(st.tuples(classes, st.integers(1, 3)), max_size=150),
    qos_class=classes,
    started=st.integers(0, 10),
    step_s=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_an_idle_flow_is_behind_no_backlog_of_another_flow_of_its_class(
    backlog: list[tuple[QosClass, int]], qos_class: QosClass, started: int, step_s: float
) -> None:
    scheduler = Scheduler(with_shares(1000))
    now = 0.0
    for number, (c, flow) in enumerate(backlog):
        scheduler.offer(number, c, flow, now)
    for _ in range(started):
        now += step_s
        scheduler.pop(now)
    scheduler.offer("idle", qos_class, 0, now)
    before: list[Entry] = []
    while (entry := scheduler.pop(now)) is not None and entry.item != "idle":
        before.append(entry)
        now += step_s
    assert entry is not None
    ahead = sorted(str(e.flow.key) for e in before if e.qos_class == qos_class)
    assert all(len(list(group)) <= 2 * BURST + 1 for _, group in groupby(ahead))


def test_classes_go_by_deadline_and_equal_deadlines_by_arrival() -> None:
    scheduler = Scheduler()
    for flow, (item, qos_class) in enumerate(
        [("low", LOW), ("normal", NORMAL), ("high", HIGH), ("critical", CRITICAL)]
    ):
        scheduler.offer(item, qos_class, flow, 5.0)
    assert drain(scheduler, 5.0) == ["critical", "high", "normal", "low"]

    for flow in range(5):
        scheduler.offer(flow, NORMAL, flow, 6.0)
    assert drain(scheduler, 6.0) == [0, 1, 2, 3, 4]


def test_a_lower_class_that_has_waited_long_enough_goes_before_a_higher_one_that_came_later() -> None:
    scheduler = Scheduler()
    scheduler.offer("low", LOW, 1, 0.0)
    scheduler.offer("early high", HIGH, 2, 0.9)
    scheduler.offer("late high", HIGH, 3, 0.96)
    assert drain(scheduler, 0.97) == ["early high", "low", "late high"]


def test_flows_with_a_backlog_take_turns() -> None:
    scheduler = Scheduler()
    for flow in "abc":
        for number in range(BURST + 3):
            scheduler.offer(f"{flow}{number}", NORMAL, flow, 0.0)
    order = drain(scheduler, 0.0)
    at_once = [f"{flow}{number}" for flow in "abc" for number in range(BURST)]
    assert order[: len(at_once)] == at_once
    assert sorted(order[len(at_once) :]) == sorted(f"{flow}{BURST + n}" for flow in "abc" for n in range(3))


def test_a_backlog_is_behind_whoever_comes() -> None:
    scheduler = Scheduler()
    for _ in range(100):
        scheduler.offer("backlog", NORMAL, "busy", 0.0)
    scheduler.offer("calm", NORMAL, "calm", 0.0)
    assert drain(scheduler, 0.0)[: BURST + 1] == ["backlog"] * BURST + ["calm"]


def test_overdue_classes_share_one_start_in_four_while_a_higher_one_waits() -> None:
    scheduler = Scheduler()
    for qos_class in (HIGH, NORMAL, LOW):
        for number in range(3):
            scheduler.offer(qos_class.label, qos_class, number, 0.0)
    for number in range(100):
        scheduler.offer("critical", CRITICAL, number, 2.0)
    order = [entry.item for _ in range(36) if (entry := scheduler.pop(3.0)) is not None]
    assert order[3::4] == ["high", "normal", "low"] * 3
    assert order.count("critical") == 27


class TestShares:
    def test_a_full_share_refuses_its_class_and_no_other(self) -> None:
        scheduler = Scheduler(with_shares(3))
        assert [scheduler.offer(n, NORMAL, n, 0.0) is None for n in range(5)] == [True] * 3 + [False] * 2
        assert scheduler.offer("high", HIGH, 9, 0.0) is None
        assert scheduler.pop(0.0) is not None
        assert drain(scheduler, 0.0) == [0, 1, 2]
        assert scheduler.offer("again", NORMAL, 9, 0.0) is None

    def test_one_flow_cannot_fill_a_share_alone(self) -> None:
        scheduler = Scheduler(with_shares(100))
        taken = sum(scheduler.offer(n, NORMAL, "greedy", 0.0) is None for n in range(1000))
        assert 50 <= taken <= 50 + BURST
        second = sum(scheduler.offer(n, NORMAL, "second", 0.0) is None for n in range(1000))
        assert 22 <= second <= 28
        assert all(scheduler.offer(n, NORMAL, f"other-{n}", 0.0) is None for n in range(100 - taken - second))
        assert scheduler.offer("one too many", NORMAL, "new", 0.0) is not None

    def test_what_was_accepted_stays_when_a_share_shrinks(self) -> None:
        scheduler = Scheduler(with_shares(10))
        for n in range(8):
            scheduler.offer(n, NORMAL, n, 0.0)
        scheduler.configure(NORMAL, share=2)
        assert scheduler.offer("new", NORMAL, 99, 0.0) is not None
        assert drain(scheduler, 0.0) == list(range(8))
        assert scheduler.offer("new", NORMAL, 99, 0.0) is None


class TestRetryAfter:
    def fill(self, scheduler: Scheduler, now: float) -> float:
        flow = 0
        while (retry_after_s := scheduler.offer("x", NORMAL, flow, now)) is None:
            flow += 1
        return retry_after_s

    def test_before_anything_is_known_it_is_a_second(self) -> None:
        assert self.fill(Scheduler(with_shares(3)), 50.0) == 1.0

    @pytest.mark.parametrize(("per_second", "expected"), [(20, 5.0), (100, 1.0), (1000, 0.1), (5000, 0.05), (5, 10.0)])
    def test_it_is_the_time_that_the_backlog_takes(self, per_second: int, expected: float) -> None:
        scheduler = Scheduler(with_shares(100))
        now = 50.0
        for _ in range(per_second * 3):
            self.fill(scheduler, now)
            now += 1 / per_second
            scheduler.pop(now)
        assert self.fill(scheduler, now) == pytest.approx(expected, rel=0.1)

    def test_a_rate_of_long_ago_is_not_believed(self) -> None:
        scheduler = Scheduler(with_shares(10))
        now = 50.0
        for _ in range(1000):
            self.fill(scheduler, now)
            now += 0.001
            scheduler.pop(now)
        assert self.fill(scheduler, now) == 0.05
        scheduler.pop(now + 30)
        assert self.fill(scheduler, now + 30.1) >= 1.0
        assert self.fill(scheduler, now + 90) == 10.0

    def test_an_idle_hour_is_not_a_slow_hour(self) -> None:
        scheduler = Scheduler(with_shares(10))
        now = 50.0
        for _ in range(1000):
            scheduler.offer("x", NORMAL, 1, now)
            now += 0.001
            scheduler.pop(now)
        now += 3600
        assert self.fill(scheduler, now) == 0.05


class TestConfigure:
    def test_a_new_target_counts_for_what_waits(self) -> None:
        scheduler = Scheduler()
        scheduler.offer("low", LOW, 1, 0.0)
        scheduler.offer("normal", NORMAL, 2, 0.0)
        scheduler.configure(LOW, target_s=0.1)
        assert scheduler.settings(LOW) == ClassSettings(target_s=0.1, share=DEFAULT_SETTINGS[LOW].share)
        assert drain(scheduler, 0.0) == ["low", "normal"]

    @pytest.mark.parametrize(("target_s", "share"), [(-1.0, None), (None, 0), (0.5, 0), (-1.0, 5)])
    def test_a_bad_value_changes_nothing(self, target_s: float | None, share: int | None) -> None:
        scheduler = Scheduler()
        with pytest.raises(ValueError, match=r"target_s|share"):
            scheduler.configure(LOW, target_s=target_s, share=share)
        assert scheduler.settings(LOW) == DEFAULT_SETTINGS[LOW]

    def test_every_class_needs_settings(self) -> None:
        with pytest.raises(ValueError, match="low"):
            Scheduler({c: s for c, s in DEFAULT_SETTINGS.items() if c is not LOW})


class TestDiscard:
    def test_all_of_a_flow_goes_in_every_class_and_nothing_else(self) -> None:
        scheduler = Scheduler()
        for qos_class in QosClass:
            for number in range(6):
                scheduler.offer(("gone", number), qos_class, "gone", 0.0)
                scheduler.offer((qos_class, number), qos_class, "here", 0.0)
        assert scheduler.discard("gone") == 24
        assert scheduler.discard("gone") == 0
        assert len(scheduler) == 24
        assert "gone" not in {item[0] for item in drain(scheduler, 0.0)}
        assert_empty(scheduler)

    def test_the_room_is_free_at_once_and_the_flow_may_come_back(self) -> None:
        scheduler = Scheduler(with_shares(2))
        scheduler.offer(1, NORMAL, "a", 0.0)
        scheduler.offer(2, NORMAL, "b", 0.0)
        scheduler.discard("a")
        assert scheduler.offer(3, NORMAL, "a", 0.0) is None
        assert drain(scheduler, 0.0) == [2, 3]

    def test_connections_that_come_and_go_leave_no_memory_behind(self) -> None:
        scheduler = Scheduler()
        scheduler.offer("stays", LOW, "here", 0.0)
        for number in range(10_000):
            scheduler.offer("goes", LOW, number, 0.0)
            scheduler.offer("goes", LOW, number, 0.0)
            scheduler.discard(number)
        assert len(scheduler._by_class[LOW].heap) <= 2 * TOMBSTONES_MAX + 2
        assert drain(scheduler, 0.0) == ["stays"]


def test_snapshot() -> None:
    scheduler = Scheduler(with_shares(2))
    for flow in range(3):
        scheduler.offer(flow, NORMAL, flow, 10.0)
    scheduler.pop(10.5)
    states = scheduler.snapshot(11.0)
    assert [state.qos_class for state in states] == [CRITICAL, HIGH, NORMAL, LOW]
    assert states[2] == ClassSnapshot(
        qos_class=NORMAL,
        target_s=0.2,
        share=2,
        waiting=1,
        oldest_s=1.0,
        accepted=2,
        refused=1,
        started=1,
        discarded=0,
        wait_p50_s=0.5,
        wait_p99_s=0.5,
    )
    assert scheduler.oldest(NORMAL, 11.0) == 1.0
    assert scheduler.oldest(LOW, 11.0) == 0.0


def test_percentiles_are_of_the_last_ones_started() -> None:
    scheduler = Scheduler()
    for waited in [1000] * 50 + list(range(1, WAITS_KEPT + 1)):
        scheduler.offer("x", NORMAL, 1, 0.0)
        scheduler.pop(float(waited))
    state = scheduler.snapshot(0.0)[2]
    assert (state.wait_p50_s, state.wait_p99_s) == (512.0, 1014.0)


def test_an_empty_scheduler_has_nothing_to_start() -> None:
    assert Scheduler().pop(0.0) is None


def test_a_flow_has_a_part_of_the_places_that_shrinks_with_the_number_of_flows() -> None:
    scheduler = Scheduler(with_shares(12))
    for flows, part in [(1, 6), (2, 4), (3, 3)]:
        while not scheduler.is_over_share(flows):
            assert scheduler.offer("x", NORMAL, flows, 0.0) is None
        assert sum(scheduler.discard(flow) for flow in (flows,)) <= part
        for _ in range(part):
            scheduler.offer("x", NORMAL, flows, 0.0)
    assert not scheduler.is_over_share("idle")


@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=600), st.integers(1, 600))
def test_who_waits_while_over_its_share_leaves_room_for_others(steps: list[int | None], share: int) -> None:
    """Where all hold themselves back, only newcomers are refused, and none while few are there. None: a start."""
    scheduler = Scheduler(with_shares(share))
    waiting: dict[int, int] = {}
    for flow in steps:
        if flow is None:
            if (entry := scheduler.pop(0.0)) is not None:
                waiting[entry.item] -= 1
        elif scheduler.is_over_share(flow):
            assert waiting[flow] > 0  # so a start, and then an answer, lets it go on
        elif scheduler.offer(flow, NORMAL, flow, 0.0) is None:
            waiting[flow] = waiting.get(flow, 0) + 1
        else:
            assert scheduler.waiting(NORMAL) == share
            assert not waiting.get(flow)
            assert sum(count > 0 for count in waiting.values()) * PART_MAX >= share


def test_any_class_counts() -> None:
    scheduler = Scheduler(with_shares(4))
    scheduler.offer("x", LOW, "a", 0.0)
    scheduler.offer("y", LOW, "a", 0.0)
    assert scheduler.is_over_share("a")
    scheduler.pop(0.0)
    assert not scheduler.is_over_share("a")
