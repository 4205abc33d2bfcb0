from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.token_bucket import TokenBucket, UserBuckets


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=20, burst=100)
    assert [bucket.take(5.0) for _ in range(100)] == [0.0] * 100
    wait = bucket.take(5.0)
    assert wait == pytest.approx(1 / 20)
    assert bucket.take(5.0 + wait) == 0.0
    assert bucket.take(5.0 + wait) > 0


def test_an_idle_bucket_fills_up_to_its_burst_and_no_further() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    for _ in range(3):
        bucket.take(0.0)
    passed = sum(bucket.take(1000.0) == 0.0 for _ in range(10))
    assert passed == 3


def test_rate_zero_is_no_limit() -> None:
    bucket = TokenBucket(rate=0, burst=0)
    assert all(bucket.take(1.0) == 0.0 for _ in range(10_000))
    assert bucket.is_full(1.0)


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 200), steps=st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_never_more_than_burst_plus_rate(rate: float, burst: int, steps: list[float]) -> None:
    bucket = TokenBucket(rate=rate, burst=burst)
    now = 100.0
    passed = []
    for step in steps:
        now += step
        if bucket.take(now) == 0.0:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            seconds = passed[last] - passed[first]
            assert last - first + 1 <= burst + rate * seconds + 1e-6


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 50), start=st.floats(0, 1e6))
def test_whoever_waits_as_told_gets_in(rate: float, burst: int, start: float) -> None:
    bucket = TokenBucket(rate=rate, burst=burst)
    now = start
    for _ in range(burst + 20):
        wait = bucket.take(now)
        if wait:
            now += wait
            assert bucket.take(now) == 0.0


def test_a_users_bucket_outlives_the_connection_until_it_is_full() -> None:
    buckets = UserBuckets(rate=1, burst=2)
    bucket = buckets.of("u1")
    bucket.take(0.0)
    buckets.release("u1", 0.5)
    assert buckets.of("u1") is bucket
    buckets.release("u1", 1.5)
    assert len(buckets) == 0


def test_sweeping_forgets_full_buckets_only() -> None:
    buckets = UserBuckets(rate=1, burst=2)
    buckets.of("idle")
    busy = buckets.of("busy")
    busy.take(10.0)
    buckets.sweep(10.5)
    assert len(buckets) == 1
    assert buckets.of("busy") is busy
