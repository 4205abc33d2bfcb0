"""points: what instances report, in our own words: sources, data points, and the state kept over a restart."""

from __future__ import annotations

from typing import NamedTuple

Attributes = tuple[tuple[str, str], ...]


class Source(NamedTuple):
    """Who counted: the kind of service, from its certificate, and the name that the instance gives itself."""

    service: str
    instance: str


class Point(NamedTuple):
    """One data point. `is_sum` tells a cumulative counter from a gauge; times are the sender's, in Unix ns.

    `start_ns` is when the sender's process began to count; 0 for a gauge.
    """

    metric: str
    attributes: Attributes
    is_sum: bool
    value: float
    start_ns: int
    time_ns: int


class Run(NamedTuple):
    """How far one process had counted one series."""

    metric: str
    attributes: Attributes
    start_ns: int
    value: float


class Checkpoint(NamedTuple):
    """The newest runs of an instance, and the sender's time at which they stood so."""

    source: Source
    time_ns: int
    runs: tuple[Run, ...]
