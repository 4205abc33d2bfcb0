from __future__ import annotations

import math

from client.admin.chart import Series, draw


def bars(values: list[float], *, width: int = 60) -> str:
    [line] = draw([Series("p50", values)], width=width, unit="ms")
    return line.split("|")[1]


def test_the_largest_value_is_a_full_bar_and_nothing_is_nothing() -> None:
    assert bars([0, 1, 4, 8]) == " ▁▄█"


def test_what_was_not_measured_is_left_free() -> None:
    assert bars([8, math.nan, 8]) == "█ █"


def test_a_peak_is_not_averaged_away() -> None:
    drawn = bars([1.0] * 500 + [100.0] + [1.0] * 500, width=60)
    assert len(drawn) < 60
    assert drawn.count("█") == 1


def test_series_share_a_scale_and_say_their_values() -> None:
    low, high = draw([Series("p50", [1, 2]), Series("p99", [8, 1000.5])], width=80, unit="ms")
    assert "█" not in low
    assert low.endswith("latest 2  max 2 ms")
    assert high.endswith("latest 1,000.5  max 1,000.5 ms")


def test_another_quantity_has_a_scale_and_a_unit_of_its_own() -> None:
    latency, rate = draw([Series("p99", [1, 2]), Series("Messages/s", [900, 450], is_other=True)], width=80, unit="ms")
    assert latency.split("|")[1] == "▄█"
    assert rate.split("|")[1] == "█▄"
    assert latency.endswith("max 2 ms")
    assert rate.endswith("max 900")
    assert draw([Series("fan-out", [2])], width=80, unit="")[0].endswith("max 2")


def test_nothing_at_all_can_be_drawn() -> None:
    assert draw([], width=80, unit="ms") == []
    assert draw([Series("p50", [])], width=80, unit="ms")[0].endswith("nothing measured")
