from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from services.metrics import graphs
from services.metrics.graph_data import GraphData, Sample, decode, encode
from tests.helpers.instances import T0, sample

HOUR = int(T0 // 3600)
NAMES = ["processing_times.png", "latency_timeline.png", "hourly_messages.png"]


def day(points: int, *, every_s: float = 240.0, ms: float | None = 2.0) -> list[Sample]:
    return [sample(T0 - (points - 1 - n) * every_s, ms) for n in range(points)]


CASES = {
    "nothing": GraphData(T0, [], {}),
    "one point": GraphData(T0, day(1), {HOUR: 1}),
    "two points": GraphData(T0, day(2), {HOUR: 1, HOUR - 23: 5}),
    "a day": GraphData(T0, day(360), {HOUR - n: n * 100_000 for n in range(24)}),
    "an idle day": GraphData(T0, day(360, ms=None), {}),
    "all zero": GraphData(T0, day(10, ms=0.0), {HOUR: 0}),
    "a spike": GraphData(T0, [*day(100)[:-1], sample(T0, 5_000.0)], {HOUR: 10**9}),
    "a gap": GraphData(T0, [*day(300)[:100], *day(300)[200:]], {HOUR - 30: 5}),
    "the same moment twice": GraphData(T0, [sample(T0), sample(T0), sample(T0)], {}),
    "two that are far apart": GraphData(T0, [sample(T0 - 86_400), sample(T0)], {}),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
def test_every_graph_is_drawn_from_any_data(data: GraphData, tmp_path: Path) -> None:
    paths = graphs.draw_all(decode(encode(data)), tmp_path / "graphs")
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in (tmp_path / "graphs").iterdir()) == sorted(NAMES)  # nothing half done
    for path in paths:
        header = path.read_bytes()[:24]
        width, height = struct.unpack(">II", header[16:])
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert 1000 <= width <= 1600
        assert 500 <= height <= 900


def test_axes_are_labelled_with_units() -> None:
    data = CASES["a day"]
    (axes,) = graphs.draw_processing_times(data).axes
    assert axes.get_title(loc="left") == "Request processing time"
    assert axes.get_ylabel() == "Processing time (ms)"
    assert axes.get_xlabel() == "Time (UTC)"
    above, below = graphs.draw_latency_timeline(data).axes
    assert above.get_ylabel() == "Latency (ms)"
    assert below.get_ylabel() == "Messages/s"
    (axes,) = graphs.draw_hourly_messages(data).axes
    assert axes.get_xlabel() == "Hour (UTC)"
    assert axes.get_ylabel() == "Messages acknowledged"


def test_bars_show_the_hours_of_the_last_day_only() -> None:
    (axes,) = graphs.draw_hourly_messages(GraphData(T0, [], {HOUR: 7, HOUR - 23: 3, HOUR - 24: 99})).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [3, *[0] * 22, 7]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0].startswith("09")  # T0 is 08:00 UTC
    assert labels[-1] == "08"


def test_lines_show_the_values() -> None:
    (axes,) = graphs.draw_processing_times(GraphData(T0, day(3), {})).axes
    values = {line.get_label().partition(" ")[0]: list(line.get_ydata()) for line in axes.lines}
    assert values["mean"] == [2.0, 2.0, 2.0]
    assert values["p99"] == [8.0, 8.0, 8.0]


def test_a_line_breaks_where_the_service_was_not_there_or_nothing_was_measured() -> None:
    timeline = [sample(0.0), sample(60.0), sample(120.0, None), sample(180.0), sample(1000.0)]
    _, values = graphs._line(timeline, "latency_mean_ms")
    assert [math.isnan(value) for value in values] == [False, False, True, False, True, False]


def test_a_spike_gets_a_logarithmic_axis() -> None:
    (axes,) = graphs.draw_processing_times(CASES["a spike"]).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "Processing time (ms, log scale)"
    (axes,) = graphs.draw_processing_times(CASES["a day"]).axes
    assert axes.get_yscale() == "linear"


def test_no_data_is_said() -> None:
    for axes in (
        graphs.draw_processing_times(CASES["nothing"]).axes[0],
        graphs.draw_latency_timeline(CASES["an idle day"]).axes[0],
    ):
        assert "Nothing was measured in this period" in [text.get_text() for text in axes.texts]
    (axes,) = graphs.draw_hourly_messages(CASES["nothing"]).axes
    assert "No messages in this period" in [text.get_text() for text in axes.texts]


def test_a_picture_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.draw_all(CASES["nothing"], tmp_path)
    before = (tmp_path / NAMES[0]).read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _self, path, **_: (path.write_bytes(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        graphs.draw_all(CASES["a day"], tmp_path)
    assert (tmp_path / NAMES[0]).read_bytes() == before


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (1_234_567, "1.23M")]
)
def test_counts_are_short(count: int, text: str) -> None:
    assert graphs._short(count) == text
