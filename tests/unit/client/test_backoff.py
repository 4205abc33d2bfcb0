from __future__ import annotations

import itertools
import random

from client.backoff import Backoff


def test_the_bound_doubles_up_to_its_largest() -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0.0
        bounds.append(high)
        return high

    backoff = Backoff(uniform)
    for _ in range(2000):
        backoff.next_delay_s()
    assert bounds[:4] == [1.0, 2.0, 4.0, 8.0]
    assert set(bounds[4:]) == {8.0}


def test_only_a_good_connection_starts_it_over() -> None:
    backoff = Backoff(lambda low, high: high)
    backoff.next_delay_s()
    backoff.ended(lived_s=9.9)
    assert backoff.next_delay_s() == 2.0
    backoff.ended(lived_s=10.0)
    assert backoff.next_delay_s() == 1.0


def test_a_crowd_is_spread_over_the_whole_bound() -> None:
    source = random.Random(7)
    delays = sorted(Backoff(source.uniform).next_delay_s() for _ in range(2000))
    assert delays[0] < 0.01
    assert delays[-1] > 0.99
    assert max(later - earlier for earlier, later in itertools.pairwise(delays)) < 0.02
