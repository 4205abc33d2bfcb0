from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.ghz.durations import SECOND_NS
from tests.ghz.pacing import Steps, Stretch, constant, due_times


def seconds(times: object, count: int) -> list[float]:
    return [ns / SECOND_NS for ns in itertools.islice(times, count)]  # type: ignore[call-overload]


def test_a_constant_rate_is_even() -> None:
    assert seconds(due_times(constant(4)), 4) == [0.25, 0.5, 0.75, 1.0]


def test_steps_up_end_at_the_end() -> None:
    steps = Steps(start=10, step=10, step_ns=SECOND_NS, end=30)
    assert list(steps.stretches()) == [
        Stretch(0, 10),
        Stretch(1 * SECOND_NS, 20),
        Stretch(2 * SECOND_NS, 30),
        Stretch(3 * SECOND_NS, 30),
    ]


def test_steps_that_would_pass_the_end_stop_at_it() -> None:
    steps = Steps(start=10, step=15, step_ns=SECOND_NS, end=30)
    assert [stretch.value for stretch in steps.stretches()] == [10, 25, 30]


def test_steps_down_never_go_below_nothing() -> None:
    assert [stretch.value for stretch in Steps(start=5, step=-2, step_ns=SECOND_NS).stretches()] == [5, 3, 1, 0]


def test_a_longest_time_wins_over_the_end() -> None:
    steps = Steps(start=10, step=10, step_ns=SECOND_NS, end=100, max_ns=2 * SECOND_NS)
    assert list(steps.stretches()) == [Stretch(0, 10), Stretch(SECOND_NS, 20), Stretch(2 * SECOND_NS, 100)]


def test_without_an_end_the_value_stays_where_it_is_after_the_longest_time() -> None:
    steps = Steps(start=10, step=10, step_ns=SECOND_NS, max_ns=2 * SECOND_NS + 5)
    assert list(steps.stretches())[-1] == Stretch(2 * SECOND_NS + 5, 30)


def test_a_rate_that_comes_to_rest_at_nothing_ends_the_run() -> None:
    assert seconds(due_times(Steps(start=2, step=-1, step_ns=SECOND_NS).stretches()), 99) == [0.5, 1.0, 2.0]


def test_each_step_has_its_share() -> None:
    times = list(itertools.islice(due_times(Steps(start=10, step=20, step_ns=SECOND_NS, end=50).stretches()), 140))
    per_second = [sum(k * SECOND_NS < ns <= (k + 1) * SECOND_NS for ns in times) for k in range(4)]
    assert per_second == [10, 30, 50, 50]


@given(
    start=st.integers(1, 500),
    step=st.integers(-100, 100).filter(bool),
    step_ns=st.integers(1_000_000, 3 * SECOND_NS),
    end=st.integers(0, 500),
)
def test_requests_are_due_in_order_and_never_too_many(start: int, step: int, step_ns: int, end: int) -> None:
    stretches = list(itertools.islice(Steps(start=start, step=step, step_ns=step_ns, end=end).stretches(), 50))
    times = list(itertools.islice(due_times(stretches), 300))
    assert times == sorted(times)
    fastest = max(stretch.value for stretch in stretches)
    for number, ns in enumerate(times, start=1):
        assert number <= fastest * ns / SECOND_NS + 1e-3 + fastest * 1e-9
