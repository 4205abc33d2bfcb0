"""Counters for the hot path: plain integers that are read when somebody asks.

Counting costs an integer addition. Telemetry reads the values from threads of its own, every few seconds; a value that
is read while it changes is the old one or the new one, which is all that a statistic needs.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

Attributes = Mapping[str, str]
M = TypeVar("M", "Counter", "Histogram", "Gauge")


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0

    def add(self, n: float = 1) -> None:
        """Counts `n` more."""
        self.value += n


class Gauge:
    """A number that is asked for when it is needed."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    @property
    def value(self) -> float:
        """The number now."""
        return self._read()


class Histogram:
    """How many values fell below each bound, with their sum. `bounds` ascend; values above the last count too."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        if not self.bounds or any(low >= high for low, high in itertools.pairwise(self.bounds)):
            raise ValueError("bounds must be given and ascend")
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value, once or `times` over."""
        self.counts[bisect.bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound as text, how many values were at most that), the last bound being `+Inf`."""
        labels = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(labels, itertools.accumulate(self.counts), strict=True))


class Kind(Enum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Family:
    """All metrics of one name, which differ by their attributes."""

    name: str
    kind: Kind
    unit: str
    description: str
    members: dict[tuple[tuple[str, str], ...], Counter | Gauge | Histogram] = field(default_factory=dict)


class Counters:
    """The metrics of one process, by name. Asking again for the same one gives the same one."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._listeners: list[Callable[[Family], None]] = []

    def counter(
        self, name: str, unit: str = "1", description: str = "", *, attributes: Attributes | None = None
    ) -> Counter:
        """A counter, such as `counter("parley.edge.errors", "1", "Error frames sent.")`."""
        return self._member(Counter(), name, Kind.COUNTER, unit, description, attributes)

    def gauge(
        self,
        name: str,
        unit: str,
        description: str,
        callback: Callable[[], float],
        *,
        attributes: Attributes | None = None,
    ) -> Gauge:
        """A gauge; `callback` is called in a thread of telemetry's, so it only reads."""
        return self._member(Gauge(callback), name, Kind.GAUGE, unit, description, attributes)

    def histogram(
        self,
        name: str,
        unit: str,
        bounds: Sequence[float],
        description: str = "",
        *,
        attributes: Attributes | None = None,
    ) -> Histogram:
        """A histogram. It is exported as `<name>.count`, `<name>.sum` and cumulative `<name>.bucket` by `le`."""
        return self._member(Histogram(bounds), name, Kind.HISTOGRAM, unit, description, attributes)

    def families(self) -> list[Family]:
        """All metrics as they stand."""
        return list(self._families.values())

    def subscribe(self, listener: Callable[[Family], None]) -> None:
        """Calls `listener` for each family, those there are and those to come."""
        for family in self.families():
            listener(family)
        self._listeners.append(listener)

    def _member(self, new: M, name: str, kind: Kind, unit: str, description: str, attributes: Attributes | None) -> M:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Family(name, kind, unit, description)
            for listener in self._listeners:
                listener(family)
        if family.kind is not kind:
            raise ValueError(f"{name} is a {family.kind.value}")
        member = family.members.setdefault(tuple(sorted((attributes or {}).items())), new)
        assert isinstance(member, type(new))
        return member
