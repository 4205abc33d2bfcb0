from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from services.metrics import drawing, graphs
from services.metrics.catalogue import GRAPHS, HOURLY, NAMES, numbers
from services.metrics.graph_data import DAY_S, HOUR_S, GraphData, Sample, decode, encode
from tests.helpers.instances import T0, sample

HOUR = int(T0 // 3600)
FILES = [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]


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
    (received,) = decode(encode([data]))
    paths = graphs.draw_all(graphs.pictures([received]), tmp_path / "graphs")
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in (tmp_path / "graphs").iterdir()) == sorted(FILES)  # nothing half done
    for path in paths:
        if path.suffix == ".svg":
            text = path.read_text()
            assert "<svg" in text
            assert text.rstrip().endswith("</svg>")
            continue
        header = path.read_bytes()[:24]
        width, height = struct.unpack(">II", header[16:])
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert 1000 <= width <= 1600
        assert 500 <= height <= 900


def test_an_hour_and_a_day_are_different_pictures(tmp_path: Path) -> None:
    periods = [GraphData(T0, day(5), {}, period_s) for period_s in (DAY_S, HOUR_S)]
    wanted = graphs.pictures(periods)
    assert [(name, data.period_s) for name, data in wanted if name == HOURLY] == [(HOURLY, DAY_S)]
    paths = graphs.draw_in_two(wanted, tmp_path)
    assert all(path.exists() for path in paths)
    assert {"latency_timeline.png", "latency_timeline_hour.svg", "hourly_messages.svg"} <= {path.name for path in paths}
    assert len(paths) == 2 * (2 * len(NAMES) - 1)


def test_a_second_process_that_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = graphs.pictures([CASES["nothing"]])
    draw = graphs.draw_all

    def fail_in_the_other(some: list[tuple[str, GraphData]], directory: Path) -> list[Path]:
        return draw(some, directory) if some[0] == wanted[0] else [Path(str(1 / 0))]

    monkeypatch.setattr(graphs, "draw_all", fail_in_the_other)
    with pytest.raises(OSError, match="second process"):
        graphs.draw_in_two(wanted, tmp_path)


def test_text_in_a_vector_picture_is_text_and_the_same_data_are_the_same_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        graphs.draw_all(graphs.pictures([CASES["a day"]]), tmp_path / folder)
    text = (tmp_path / "a" / "queue_wait.svg").read_text()
    assert "Queue wait by class" in text
    assert "Time (UTC)" in text
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_what_the_picture_shows(name: str) -> None:
    data = CASES["a gap"]
    shown = numbers(name, data)
    assert all(len(values) == len(shown.times) for values in shown.series.values())
    assert shown.times == sorted(shown.times)
    assert shown.title
    if name != HOURLY:
        assert {line.label for line in GRAPHS[name].lines} <= set(shown.series)
        assert (shown.below in shown.series) == (GRAPHS[name].volume is not None)


def test_axes_are_labelled_with_units() -> None:
    data = CASES["a day"]
    (axes,) = graphs.figure_of("processing_times", data).axes
    assert axes.get_title(loc="left") == "Request processing time"
    assert axes.get_ylabel() == "Processing time (ms)"
    assert axes.get_xlabel() == "Time (UTC)"
    above, below = graphs.figure_of("latency_timeline", data).axes
    assert above.get_ylabel() == "Latency (ms)"
    assert below.get_ylabel() == "Messages/s"
    (axes,) = graphs.figure_of(HOURLY, data).axes
    assert axes.get_xlabel() == "Hour (UTC)"
    assert axes.get_ylabel() == "Messages acknowledged"


def test_times_can_be_told_apart_where_all_is_within_minutes() -> None:
    data = GraphData(T0, [sample(T0 - 120 + 2 * n) for n in range(60)], {}, HOUR_S)
    figure = graphs.figure_of("processing_times", data)
    figure.canvas.draw()
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) > 3
    assert all(":" in label for label in labels)


def test_bars_show_the_hours_of_the_last_day_only() -> None:
    (axes,) = graphs.figure_of(HOURLY, GraphData(T0, [], {HOUR: 7, HOUR - 23: 3, HOUR - 24: 99})).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [3, *[0] * 22, 7]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0].startswith("09")  # T0 is 08:00 UTC
    assert labels[-1] == "08"


def test_lines_show_the_values() -> None:
    (axes,) = graphs.figure_of("processing_times", GraphData(T0, day(3), {})).axes
    values = {line.get_label().partition(" ")[0]: list(line.get_ydata()) for line in axes.lines}
    assert values["mean"] == [2.0, 2.0, 2.0]
    assert values["p99"] == [8.0, 8.0, 8.0]


def test_a_line_breaks_where_the_service_was_not_there_or_nothing_was_measured() -> None:
    timeline = [sample(0.0), sample(60.0), sample(120.0, None), sample(180.0), sample(1000.0)]
    _, values = drawing._points(timeline, "latency_mean_ms")
    assert [math.isnan(value) for value in values] == [False, False, True, False, True, False]


def test_a_spike_gets_a_logarithmic_axis() -> None:
    (axes,) = graphs.figure_of("processing_times", CASES["a spike"]).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "Processing time (ms, log scale)"
    (axes,) = graphs.figure_of("processing_times", CASES["a day"]).axes
    assert axes.get_yscale() == "linear"


def test_no_data_is_said() -> None:
    for axes in (
        graphs.figure_of("processing_times", CASES["nothing"]).axes[0],
        graphs.figure_of("latency_timeline", CASES["an idle day"]).axes[0],
    ):
        assert "Nothing was measured in this period" in [text.get_text() for text in axes.texts]
    (axes,) = graphs.figure_of(HOURLY, CASES["nothing"]).axes
    assert "No messages in this period" in [text.get_text() for text in axes.texts]


def test_a_picture_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.draw_all(graphs.pictures([CASES["nothing"]]), tmp_path)
    before = (tmp_path / FILES[0]).read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _self, path, **_: (path.write_bytes(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        graphs.draw_all(graphs.pictures([CASES["a day"]]), tmp_path)
    assert (tmp_path / FILES[0]).read_bytes() == before


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (1_234_567, "1.23M")]
)
def test_counts_are_short(count: int, text: str) -> None:
    assert drawing._short(count) == text
