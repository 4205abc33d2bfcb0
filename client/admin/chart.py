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
    """A named row of values; NaN where nothing was measured. `is_other`: of another quantity, which its name tells."""

    name: str
    values: Sequence[float]
    is_other: bool = False


def draw(series: Sequence[Series], *, width: int, unit: str) -> list[str]:
    """A line of bars for each series, all of a quantity on one scale, with the newest and the largest value behind it.

    Where there are more values than columns, a column shows the largest of its values: a peak is never averaged away.
    """
    name_width = max((len(one.name) for one in series), default=0)
    columns = max(10, width - name_width - 32)
    tops = {
        is_other: _largest([v for one in series if one.is_other == is_other for v in one.values])
        for is_other in (False, True)
    }
    lines = []
    for one in series:
        bars = "".join(_bar(value, tops[one.is_other]) for value in _columns(one.values, columns))
        values = [value for value in one.values if not math.isnan(value)]
        end = "" if one.is_other or not unit else f" {unit}"
        told = f"latest {_number(values[-1])}  max {_number(max(values))}{end}" if values else "nothing measured"
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
    if math.isnan(value) or math.isnan(top) or value <= 0:
        return BARS[0]
    return BARS[max(1, math.ceil(value / top * (len(BARS) - 1)))]


def _number(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")
