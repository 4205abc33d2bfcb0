from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.backoff import CEILING_S, STABLE_S, Backoff


def test_first_restart_is_immediate_then_doubles_to_the_ceiling() -> None:
    backoff = Backoff()
    delays = [backoff.delay_s(lived_s=0.1) for _ in range(8)]
    assert delays == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_stable_life_starts_anew() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(lived_s=0.1)
    assert backoff.delay_s(lived_s=STABLE_S) == 0.0
    assert backoff.delay_s(lived_s=1.0) > 0.0


@given(st.lists(st.floats(min_value=0, max_value=1e9), max_size=3000))
def test_never_waits_longer_than_the_ceiling(lives: list[float]) -> None:
    backoff = Backoff()
    assert all(0.0 <= backoff.delay_s(lived_s=lived_s) <= CEILING_S for lived_s in lives)
