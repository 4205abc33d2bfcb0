"""Durations as Go writes them: "250ms", "1m30s". Source: the documentation of Go's time.ParseDuration."""

from __future__ import annotations

import re
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)

SECOND_NS = 1_000_000_000

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign
    "μs": 1_000,  # the Greek letter
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3_600 * SECOND_NS,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
MAX_NS = 2**63 - 1


def parse(text: str) -> Nanoseconds:
    """The duration that `text` names. Raises ValueError for anything else, and for what is negative."""
    if text == "0":
        return Nanoseconds(0)
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group() for part in parts) != text:
        raise ValueError(f'{text!r} is no duration; one is written as "250ms", "1m30s" or "0"')
    total = sum(round(float(part[1]) * _UNITS_NS[part[2]]) for part in parts)
    if total > MAX_NS:
        raise ValueError(f"{text!r} is longer than 292 years")
    return Nanoseconds(total)


def show(duration_ns: float) -> str:
    """A duration for people: in the unit that fits."""
    if duration_ns < 10_000:
        return f"{duration_ns:.0f} ns"
    if duration_ns < SECOND_NS:
        return f"{duration_ns / 1_000_000:.2f} ms"
    return f"{duration_ns / SECOND_NS:.2f} s"
