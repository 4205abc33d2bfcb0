from __future__ import annotations

import pytest

from services.common.wire.codes import ErrorCode
from services.edge.runs import RUNS_MAX, Run, Runs

AWAY = ErrorCode.OVERLOADED


def test_what_is_behind_a_text_that_was_turned_away_is_cut_off() -> None:
    run = Run()
    places = [run.add() for _ in range(4)]
    run.turn_away(places[1], AWAY, 0.5)
    assert [run.is_cut_off(place) for place in places] == [False, False, True, True]
    assert (run.code, run.retry_after_s) == (AWAY, 0.5)


def test_the_first_that_was_turned_away_counts_whenever_it_was() -> None:
    run = Run()
    places = [run.add() for _ in range(4)]
    run.turn_away(places[2], AWAY, 0.5)
    run.turn_away(places[3], ErrorCode.RATE_LIMITED, 9.0)
    assert (run.code, run.retry_after_s) == (AWAY, 0.5)
    run.turn_away(places[0], ErrorCode.RATE_LIMITED, 2.0)
    assert [run.is_cut_off(place) for place in places] == [False, True, True, True]
    assert run.code is ErrorCode.RATE_LIMITED


def test_of_what_was_never_tried_the_outcome_is_known() -> None:
    run = Run()
    run.turn_away(run.add(), ErrorCode.UNKNOWN_OUTCOME, None)
    assert run.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("code", [ErrorCode.CONFLICT, ErrorCode.NOT_A_MEMBER, ErrorCode.TOO_LARGE])
def test_a_refusal_for_good_cuts_nothing_off(code: ErrorCode) -> None:
    run = Run()
    run.turn_away(run.add(), code, None)
    assert not run.is_cut_off(run.add())


def test_a_text_that_follows_nothing_begins_a_run() -> None:
    runs = Runs()
    first = runs.of("a", follows=False)
    assert runs.of("a", follows=True) is first
    assert runs.of("b", follows=True) is not first
    assert runs.of("a", follows=False) is not first


def test_runs_are_bounded() -> None:
    runs = Runs()
    for number in range(3 * RUNS_MAX):
        runs.of(str(number), follows=False)
    assert len(runs._by_room) <= RUNS_MAX
