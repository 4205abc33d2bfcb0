"""A graph as lines of text: each series as a band of bars, one column for each stretch of time. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

BARS = " ▁▂▃▄▅▆▇█"
"""Nothing, and eight heights."""


@dataclass(frozen=True)
class Series:
    """A named row of values; NaN where nothing was measured."""

    name: str
    values: Sequence[float]


def draw(series: Sequence[Series], *, width: int, unit: str) -> list[str]:
    """A line of bars for each series, all on one scale, with the newest and the largest value behind it.

    Where there are more values than columns, a column shows the largest of its values: a peak is never averaged away.
    """
    name_width = max((len(one.name) for one in series), default=0)
    columns = max(10, width - name_width - 32)
    known = [value for one in series for value in one.values if not math.isnan(value)]
    top = max(known, default=0.0)
    lines = []
    for one in series:
        bars = "".join(_bar(value, top) for value in _columns(one.values, columns))
        values = [value for value in one.values if not math.isnan(value)]
        told = f"now {_number(values[-1])}  max {_number(max(values))} {unit}" if values else "nothing measured"
        lines.append(f"{one.name:<{name_width}} |{bars}| {told}".rstrip())
    return lines


def _columns(values: Sequence[float], count: int) -> list[float]:
    if len(values) <= count:
        return list(values)
    edges = [round(k * len(values) / count) for k in range(count + 1)]
    return [_largest(values[start:end]) for start, end in itertools.pairwise(edges)]


def _largest(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _bar(value: float, top: float) -> str:
    if math.isnan(value) or value <= 0 or top <= 0:
        return BARS[0]
    return BARS[max(1, math.ceil(value / top * (len(BARS) - 1)))]


def _number(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")
