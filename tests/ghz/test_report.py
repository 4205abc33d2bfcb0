from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ghz import report, settings
from tests.ghz.calls import Outcome

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ERROR = "rpc error: code = Unavailable desc = gone"


def ok(latency_ns: int) -> Outcome:
    return Outcome(NOW, latency_ns, "OK", "")


def made(outcomes: list[Outcome], **values: Any) -> dict[str, Any]:
    asked = settings.from_values({"call": "a.B/C", "host": "x", **values})
    return report.make(asked, outcomes, reason="normal", total_ns=2_000_000_000, now=NOW)


def test_the_average_is_over_all_and_the_distribution_over_those_that_were_ok() -> None:
    result = made([ok(1_000), ok(3_000), Outcome(NOW, 8_000, "Unavailable", ERROR)])
    assert (result["count"], result["average"], result["fastest"], result["slowest"]) == (3, 4_000, 1_000, 3_000)
    assert result["rps"] == 1.5
    assert result["statusCodeDistribution"] == {"OK": 2, "Unavailable": 1}
    assert result["errorDistribution"] == {ERROR: 1}
    assert result["latencyDistribution"][-1] == {"percentage": 99, "latency": 3_000}


def test_errors_count_when_that_is_asked() -> None:
    result = made([ok(1_000), Outcome(NOW, 8_000, "Unavailable", ERROR)], **{"count-errors": True})
    assert result["slowest"] == 8_000


def test_first_results_can_be_left_out() -> None:
    result = made([ok(9_000), ok(1_000)], skipFirst=1)
    assert (result["count"], result["slowest"], len(result["details"])) == (1, 1_000, 1)


def test_a_run_without_calls_has_a_report() -> None:
    result = made([])
    assert (result["count"], result["average"], result["rps"]) == (0, 0, 0)
    assert result["latencyDistribution"] is result["histogram"] is result["details"] is None


def test_percentiles_are_by_rank() -> None:
    latencies = [row["latency"] for row in report.distribution([k * 10 for k in range(1, 11)])]
    assert latencies == [10, 30, 50, 80, 90, 100, 100]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_a_histogram_counts_every_call_once(latencies: list[int]) -> None:
    rows = report.histogram(sorted(latencies))
    assert len(rows) == 11
    assert sum(row["count"] for row in rows) == len(latencies)
    assert sum(row["frequency"] for row in rows) == pytest.approx(1)
    assert rows[-1]["mark"] == max(latencies) / 1e9


def test_options_say_what_was_asked_in_the_words_of_ghz() -> None:
    options = made([], data={"a": 1}, **{"connect-timeout": "3s"}, tags={"k": "v"})["options"]
    assert options["data"] == {"a": 1}
    assert options["dial-timeout"] == 3_000_000_000
    assert "tags" not in options
    assert made([], tags={"k": "v"})["tags"] == {"k": "v"}
