"""The checker, against histories that are right and histories that are wrong in one known way."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import events as e
from tests.chaos.checker import INVARIANTS, check
from tests.chaos.checker.coverage import Coverage
from tests.chaos.checker.excuses import due
from tests.chaos.scenario import simulate
from tests.chaos.simulator import Defect

# What each defect must be caught by, and what may follow from it: a number that was acknowledged and lost is given
# again and then names two messages (I5), what never came is missing at the end as well (I12), and so on.
BREAKS: dict[Defect, tuple[set[str], set[str]]] = {
    Defect.ACK_BEFORE_COMMIT: ({"I1"}, {"I4", "I5"}),
    Defect.COMMIT_OVERWRITTEN: ({"I1"}, {"I5"}),
    Defect.REPLAY_OFF_BY_ONE: ({"I8"}, {"I12"}),
    Defect.REPLAY_REPEATS: ({"I8"}, {"I11"}),
    Defect.REPLAY_RACES_LIVE: ({"I7"}, set()),
    Defect.OLD_AS_LIVE: ({"I8"}, set()),
    Defect.BUS_GAP_SKIPPED: ({"I7"}, {"I12", "I15"}),
    Defect.DELIVERED_TWICE: ({"I7"}, set()),
    Defect.DEDUPE_WINDOW: ({"I4"}, set()),
    Defect.DEDUPE_PER_EDGE: ({"I4"}, {"I9"}),
    Defect.LIFO: ({"I9"}, set()),
    Defect.LATE_SEQ: ({"I10"}, {"I9"}),
    Defect.SHED_AFTER_STORE: ({"I3"}, set()),
    Defect.PHANTOM: ({"I2"}, {"I7", "I8", "I12"}),
    Defect.GARBLED: ({"I2", "I5"}, set()),
    Defect.WRONG_SENDER: ({"I2", "I5"}, set()),
    Defect.TWO_TRUTHS: ({"I5"}, set()),
    Defect.HISTORY_SKIPS: ({"I6"}, set()),
    Defect.KICK_IGNORED: ({"I11"}, set()),
    Defect.KICK_IGNORED_MEANWHILE: ({"I11"}, set()),
    Defect.LEAVE_IGNORED: ({"I11"}, {"I7"}),
    Defect.NEVER_JOINED: ({"I11"}, set()),
    Defect.EPOCH_REUSED: ({"I13"}, {"I1", "I5", "I10"}),
    Defect.EARLY_BOOKMARK: ({"I15"}, set()),
    Defect.FILE_CHANGED: ({"I14"}, set()),
    Defect.FILE_STRAYS: ({"I14"}, set()),
    Defect.FILE_LOST: ({"I14"}, set()),
    Defect.RACE_WON_TWICE: ({"I16"}, set()),
    Defect.RACE_WON_BY_NOBODY: ({"I16"}, set()),
    Defect.DEAD_TOKEN_ACCEPTED: ({"I16"}, set()),
    Defect.TAKEN_OVER_GOES_ON: ({"I16"}, set()),
    Defect.TAKEN_OVER_GOES_ON_MEANWHILE: ({"I16"}, set()),
    Defect.TAKEN_OVER_STAYS_OPEN: ({"I16"}, set()),
    Defect.LOGGED_OUT_GOES_ON: ({"I16"}, set()),
    Defect.STUCK_AT_THE_END: ({"I12"}, set()),
    Defect.NO_ANSWER: ({"I12"}, set()),
    Defect.EDGE_STAYS_DEAD: ({"I12"}, set()),
}
# Where something else is lost on the way (the connection breaks, the gap is the last), the defect shows otherwise or
# not at all: so much is allowed, as long as most of the time it is what must be.
INSTEAD = {"I5", "I8", "I9", "I12", "I15"}
HISTORIES = 60
CAUGHT_MIN = 5
HARMLESS = {Defect.NONE, Defect.SUCCESS_AFTER_OWN_MESSAGE}


def test_every_defect_and_every_invariant_is_in_the_table() -> None:
    assert set(BREAKS) | HARMLESS == set(Defect)
    assert set().union(*(must for must, _ in BREAKS.values())) == set(INVARIANTS)


@pytest.mark.parametrize("defect", BREAKS, ids=lambda defect: defect.name.lower())
def test_a_defect_is_caught_by_the_invariant_that_it_breaks(defect: Defect) -> None:
    must, may = BREAKS[defect]
    caught = 0
    for seed in range(HISTORIES):
        simulator = simulate(seed, defect)
        found = set(check(simulator.history).found)
        if not simulator.fired:
            assert not found, (seed, found)
        elif must <= found:
            caught += 1
            assert found <= must | may, (seed, found)
        else:
            assert found <= INSTEAD, (seed, found)
    assert caught >= CAUGHT_MIN


@pytest.mark.parametrize(
    "defect", sorted(HARMLESS, key=lambda defect: defect.name), ids=lambda defect: defect.name.lower()
)
def test_no_alarm_in_many_clean_runs(defect: Defect) -> None:
    for seed in range(300):
        verdict = check(simulate(seed, defect).history)
        assert verdict.is_kept, (seed, "\n".join(map(str, verdict.violations)))
    assert verdict.seen["Deliver"] > 50
    assert verdict.seen["ResumeOk"] > 0


@pytest.mark.parametrize("pipe", ["", "ann/r1"])
def test_what_is_put_into_a_pipe_keeps_its_order_through_refusals(pipe: str) -> None:
    history: list[e.AnyEvent] = [
        e.Invoke(t=1.0, pipe=pipe, **about("k1", 1)),
        e.Invoke(t=1.1, pipe=pipe, **about("k2", 2)),
        e.Fail(t=1.2, code="rate_limited", **about("k1", 1)),
        e.Ok(t=1.3, epoch="e1", seq=1, **about("k2", 2)),
        e.Invoke(t=1.4, pipe=pipe, **about("k1", 3)),
        e.Ok(t=1.5, epoch="e1", seq=2, **about("k1", 3)),
    ]
    assert set(check(history).found) == ({"I9"} if pipe else set())


def about(key: str, req: int) -> dict[str, Any]:
    return {"c": "ann", "conn": "ann#1", "room": "r1", "key": key, "h": key, "req": req}


@pytest.mark.parametrize("told_at", [1.3, 2.5, None])
def test_what_was_told_to_be_unknown_may_come_after_what_is_sent_from_then_on(told_at: float | None) -> None:
    history: list[e.AnyEvent] = [
        e.Invoke(t=1.0, **about("k1", 1)),
        e.Invoke(t=1.1, **about("k2", 2)),
        e.Ok(t=1.2, epoch="e1", seq=1, **about("k2", 2)),
        e.Invoke(t=2.0, **about("k3", 3)),
        e.Ok(t=2.1, epoch="e1", seq=2, **about("k3", 3)),
        *([e.Info(t=told_at, why="unknown_outcome", **about("k1", 1))] if told_at else []),
        e.Audit(t=3.0, source="s", room="r1", epoch="e1", entries=[(3, "k1", "k1", "ann")]),
    ]
    found = [one for one in check(history).violations if one.invariant == "I9"]
    # k2 was sent when nobody knew that k1 would be late; k3 was so too, unless that had been told by then.
    assert len(found) == (1 if told_at == 1.3 else 2)


@pytest.mark.parametrize("is_final", [True, False])
def test_only_what_will_be_asked_for_again_waits_for_an_answer(is_final: bool) -> None:
    history: list[e.AnyEvent] = [
        e.Invoke(t=1.0, **about("k1", 1)),
        e.Info(t=2.0, why="given up", is_final=is_final, **about("k1", 1)),
        e.End(t=3.0),
    ]
    assert set(check(history).found) == (set() if is_final else {"I12"})


def test_what_is_acknowledged_after_the_end_may_not_have_been_in_the_logs_that_were_read() -> None:
    def history(ended_at: float) -> list[e.AnyEvent]:
        ok = e.Ok(t=2.0, epoch="e1", seq=1, **about("k1", 1))
        audit = e.Audit(t=4.0, source="s", room="r1", epoch="e1", entries=[])
        return [e.Invoke(t=1.0, **about("k1", 1)), *sorted((ok, e.End(t=ended_at)), key=lambda one: one.t), audit]

    assert "I1" in check(history(3.0)).found
    assert "I1" not in check(history(1.5)).found


@pytest.mark.parametrize("seqs", [[1], [2]])
def test_what_is_acknowledged_after_the_end_is_lost_where_the_log_goes_beyond_it(seqs: list[int]) -> None:
    history: list[e.AnyEvent] = [
        e.Invoke(t=1.0, **about("k1", 1)),
        e.Invoke(t=1.1, **about("k2", 2)),
        e.End(t=1.5),
        e.Ok(t=2.0, epoch="e1", seq=1, **about("k1", 1)),
        e.Audit(t=4.0, source="s", room="r1", epoch="e1", entries=[(seq, "k2", "k2", "ann") for seq in seqs]),
    ]
    assert "I1" in check(history).found


@pytest.mark.parametrize(
    ("kind", "target", "due_at"),
    [
        ("kill", "edge-1", 19.0),
        ("kill", "rooms-2", 19.0),
        ("disk-full", "rooms", 19.0),
        ("rolling", "all processes", 19.0),
        ("server-kill", "postgres", 19.0),
        ("server-kill", "redis", 15.0),
        ("kill", "edge-2", 11.0),
        ("kill", "auth-1", 11.0),
        ("pause", "metrics-1", 11.0),
        ("clock", "all", 11.0),
    ],
)
def test_only_what_is_on_the_way_of_the_news_excuses_that_it_is_late(kind: str, target: str, due_at: float) -> None:
    fault = e.Fault(t=18.0, kind=kind, target=target, t0=9.0, t1=18.0)
    assert due(10.0, 20.0, "edge-1", "rooms", [fault]) == due_at
    assert due(10.0, 8.5, "edge-1", "rooms", [fault]) == 11.0  # it had not begun
    assert due(18.5, 20.0, "edge-1", "rooms", [fault]) == 19.5  # it was over


@given(st.integers(min_value=10_000), st.integers(min_value=0, max_value=600))
def test_no_alarm_in_clean_runs_of_any_length(seed: int, steps: int) -> None:
    verdict = check(simulate(seed, steps=steps).history)
    assert verdict.is_kept, "\n".join(map(str, verdict.violations))


@given(st.integers(min_value=0, max_value=10_000))
def test_a_history_survives_being_written_down(seed: int) -> None:
    history = simulate(seed, steps=60).history
    assert list(e.decode(map(e.encode, history))) == history


@pytest.mark.parametrize("line", [b"{}", b'{"event":"ok"}', b"[1]", b"nonsense", b'{"event":"unheard_of"}', b"\xff"])
def test_what_is_no_event_is_named_by_its_line(line: bytes) -> None:
    good = e.encode(e.End(t=1.0))
    with pytest.raises(e.LogError, match="line 2"):
        list(e.decode([good, line]))


@given(st.lists(st.integers(min_value=1, max_value=60)))
def test_coverage_is_a_set(numbers: list[int]) -> None:
    coverage = Coverage()
    for number in numbers:
        coverage.add(number)
    assert [number for number in range(62) if number in coverage] == sorted(set(numbers))
    ranges = coverage.ranges
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges))
