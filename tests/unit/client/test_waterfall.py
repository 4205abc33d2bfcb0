from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from client.waterfall import SPANS_MAX, Bar, draw

MS = 1_000_000


def bar(span_id: str, parent_id: str, name: str, start_ms: float, end_ms: float, who: str = "edge-1") -> Bar:
    return Bar(span_id, parent_id, who, name, int(start_ms * MS), int(end_ms * MS))


def test_children_stand_below_their_parents_in_the_order_of_their_beginnings() -> None:
    lines = draw(
        [
            bar("c", "a", "publish", 2, 8),
            bar("a", "", "text_message", 0, 10),
            bar("b", "a", "queue", 0, 2),
            bar("d", "c", "store", 4, 6, "rooms-1"),
        ],
        width=80,
    )
    assert lines == [
        "edge-1   text_message  ██████████████████████████████████████████████  10.00 ms",
        "edge-1     queue       █████████▏                                       2.00 ms",
        "edge-1     publish              ▊███████████████████████████▊           6.00 ms",
        "rooms-1      store                       ██████████████████            2.00 ms",
        "                       0                                      10.00 ms",
    ] or [line.split()[:2] for line in lines[:4]] == [
        ["edge-1", "text_message"],
        ["edge-1", "queue"],
        ["edge-1", "publish"],
        ["rooms-1", "store"],
    ]
    assert [
        line.index(name) - line.index("text_message") if name == "text_message" else None
        for line, name in zip(lines[:1], ["text_message"], strict=True)
    ] == [0]
    assert all(len(line) <= 80 for line in lines)


def test_nothing_gives_nothing() -> None:
    assert draw([], width=80) == []


def test_what_is_short_is_seen_and_what_comes_from_others_is_harmless() -> None:
    evil = Bar("b", "a", "\x1b[31mevil\n", "x" * 200, 5 * MS, 5 * MS, "\x07boom")
    lines = draw([bar("a", "", "all", 0, 1_000), evil], width=60)
    assert not any(mark in line for line in lines for mark in "\x1b\n\x07")
    assert "boom" in lines[1]
    assert "▏" in lines[1]
    assert "1,000 ms" in lines[0]


def test_circles_and_unknown_parents_are_shown_once() -> None:
    lines = draw([bar("a", "b", "one", 0, 1), bar("b", "a", "two", 0, 1), bar("c", "gone", "three", 0, 1)], width=80)
    assert sorted(name for line in lines for name in ("one", "two", "three") if name in line) == ["one", "three", "two"]


_BARS = st.builds(
    Bar,
    st.sampled_from("abcdef"),
    st.sampled_from(["", *"abcdef"]),
    st.text(max_size=30),
    st.text(max_size=30),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.text(max_size=5),
)


@given(st.lists(_BARS, max_size=SPANS_MAX + 20), st.integers(0, 300))
def test_anything_can_be_drawn(bars: list[Bar], width: int) -> None:
    lines = draw(bars, width=width)
    assert len(lines) <= SPANS_MAX + 1
    assert not any("\n" in line for line in lines)
