"""The waterfall: where the time of a message went, as bars of characters over milliseconds. Pure.

client    text_message            ████████████████████████████████████████  4.21 ms
edge-1      text_message             ██████████████████████████████         3.02 ms
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from client.display import clean

WIDTH_MIN = 60
BAR_MIN = 16
NAME_CHARS_MAX = 24
DEPTH_MAX = 8
SPANS_MAX = 100
"""More rows than anybody reads; a message's way has about ten."""

_NS_PER_MS = 1_000_000
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL = "█"


class Bar(NamedTuple):
    """One span: who measured it, what it was, and when, in nanoseconds of one clock."""

    span_id: str
    parent_id: str
    who: str
    name: str
    start_ns: int
    end_ns: int
    error: str = ""


def draw(bars: Sequence[Bar], *, width: int) -> list[str]:
    """The lines of a waterfall that is at most `width` columns wide (60 at least); none where there are no bars.

    Children stand below their parents, in the order of their beginnings.
    """
    if not bars:
        return []
    bars = [bar._replace(end_ns=max(bar.start_ns, bar.end_ns)) for bar in bars]
    begin = min(bar.start_ns for bar in bars)
    total = max(max(bar.end_ns for bar in bars) - begin, 1)
    rows = [(bar, depth) for bar, depth in _ordered(bars)][:SPANS_MAX]
    who = max(len(_short(bar.who)) for bar, _ in rows)
    label = max(len(_label(bar, depth)) for bar, depth in rows)
    times = [_ms(bar.end_ns - bar.start_ns) for bar, _ in rows]
    time = max(map(len, times))
    room = max(BAR_MIN, max(width, WIDTH_MIN) - who - label - time - 6)
    lines = [
        f"{_short(bar.who):<{who}}  {_label(bar, depth):<{label}}  "
        f"{_bar(bar.start_ns - begin, bar.end_ns - begin, total, room)}  {shown:>{time}}"
        + (f"  {clean(bar.error)}" if bar.error else "")
        for (bar, depth), shown in zip(rows, times, strict=True)
    ]
    scale = f"{'':<{who}}  {'':<{label}}  0{_ms(total):>{room - 1}}"
    return [*lines, scale]


def _ordered(bars: Sequence[Bar]) -> list[tuple[Bar, int]]:
    """All bars with their depth, parents before children."""
    known = {bar.span_id for bar in bars}
    children: dict[str, list[Bar]] = {}
    for bar in sorted(bars, key=lambda bar: (bar.start_ns, -bar.end_ns)):
        children.setdefault(bar.parent_id if bar.parent_id in known - {bar.span_id} else "", []).append(bar)
    rows: list[tuple[Bar, int]] = []
    seen: set[str] = set()
    stack = [(bar, 0) for bar in reversed(children.get("", []))]
    while stack:
        bar, depth = stack.pop()
        if bar.span_id in seen:
            continue
        seen.add(bar.span_id)
        rows.append((bar, depth))
        stack += [(child, depth + 1) for child in reversed(children.get(bar.span_id, []))]
    return rows + [(bar, 0) for bar in bars if bar.span_id not in seen]  # circles, which only a defect makes


def _short(text: str) -> str:
    text = clean(text)
    return text if len(text) <= NAME_CHARS_MAX else text[: NAME_CHARS_MAX - 1] + "…"


def _label(bar: Bar, depth: int) -> str:
    return "  " * min(depth, DEPTH_MAX) + _short(bar.name)


def _bar(start: int, end: int, total: int, room: int) -> str:
    """The bar from `start` to `end` of `total` in `room` columns; what is shorter than a column is a thin one."""
    left = start * room * 8 // total
    right = max(left + 1, end * room * 8 // total)
    first = min(left // 8, room - 1)
    full, rest = divmod(right - first * 8, 8)
    cells = " " * first + _FULL * full + (_EIGHTHS[rest] if rest else "")
    return f"{cells[:room]:<{room}}"


def _ms(ns: int) -> str:
    milliseconds = ns / _NS_PER_MS
    if milliseconds >= 100:
        return f"{milliseconds:,.0f} ms"
    return f"{milliseconds:.2f} ms"
