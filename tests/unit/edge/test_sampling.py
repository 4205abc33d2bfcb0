from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ParleyError
from services.edge.sampling import TARGET_RATE_MAX, TARGETS_MAX, WISH_RATE_MAX, Sampler, Target


def sampler(ratio: float = 0.01, rate_max: float = 20.0, *, seed: int = 1) -> Sampler:
    return Sampler(ratio=ratio, rate_max=rate_max, uniform=random.Random(seed).random)


@given(st.lists(st.integers(0, 200), max_size=200), st.floats(0.001, 1.0), st.integers())
def test_how_texts_fall_into_batches_does_not_matter(counts: list[int], ratio: float, seed: int) -> None:
    whole = sampler(ratio, seed=seed).due(sum(counts))
    parts = sampler(ratio, seed=seed)
    found = []
    start = 0
    for count in counts:
        found += [start + index for index in parts.due(count)]
        start += count
    assert found == whole
    assert parts.skip >= 0


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.01, 850, 1150), (0.25, 24_500, 25_500)])
def test_the_part_that_is_due_is_the_ratio(ratio: float, low: int, high: int) -> None:
    assert low < len(sampler(ratio).due(100_000)) < high


def test_all_or_none() -> None:
    assert sampler(1.0).due(5) == [0, 1, 2, 3, 4]
    assert sampler(0.0).due(10**9) == []


def test_each_way_to_a_trace_has_a_rate_of_its_own() -> None:
    one = sampler(rate_max=2.0)
    for may, most in (
        (one.may_begin, 2),
        (one.may_begin_wish, int(WISH_RATE_MAX)),
        (one.may_begin_target, int(TARGET_RATE_MAX)),
        (one.may_report, int(WISH_RATE_MAX)),
    ):
        assert [may(0.0) for _ in range(most + 1)] == [True] * most + [False]
        assert may(1.0)
    assert one.limited == 4


def test_another_ratio_and_rate_count_from_now_on() -> None:
    one = sampler(0.0)
    assert one.due(1_000) == []
    one.configure(ratio=1.0, rate_max=1.0)
    assert one.due(3) == [0, 1, 2]
    assert [one.may_begin(0.0) for _ in range(2)] == [True, False]
    one.configure(ratio=0.0, rate_max=1.0)
    assert one.due(1_000) == []


def test_targets_end_by_the_clock() -> None:
    one = sampler()
    one.watch(Target(room_id="r1"), until=10.0, now=0.0)
    one.watch(Target(username="ada"), until=20.0, now=0.0)
    assert one.is_target("r1", "bob")
    assert one.is_target("r2", "ada")
    assert not one.is_target("ada", "r1")
    assert one.targets(10.0) == {Target(username="ada"): 20.0}
    assert not one.is_target("r1", "bob")
    one.unwatch(Target(username="ada"))
    one.unwatch(Target(username="ada"))
    assert not one.has_targets


def test_there_is_an_end_to_targets() -> None:
    one = sampler()
    for number in range(TARGETS_MAX):
        one.watch(Target(room_id=f"r{number}"), until=10.0, now=0.0)
    with pytest.raises(ParleyError, match="traced already"):
        one.watch(Target(room_id="more"), until=10.0, now=0.0)
    one.watch(Target(room_id="r1"), until=20.0, now=0.0)
    one.watch(Target(room_id="more"), until=20.0, now=10.0)
    assert len(one.targets(10.0)) == 2
