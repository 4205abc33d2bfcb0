"""records: what a log record is, in our own words."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

LEVELS: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""Levels with the lowest of OpenTelemetry's severity numbers that they stand for."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record. Ids are lower-case hex or empty; `level` is a severity number; times are Unix nanoseconds."""

    time_ns: int
    service: str
    instance: str
    level: int
    body: str
    trace_id: str = ""
    span_id: str = ""
    attributes: dict[str, str] = {}

    @property
    def level_name(self) -> str:
        """The name of the level."""
        return next((name for name, number in reversed(LEVELS.items()) if self.level >= number), "debug")


class LogQuery(NamedTuple):
    """Which records are wanted: the newest, at most `limit`; empty strings and a level of 0 mean any."""

    limit: int
    trace_id: str = ""
    level_min: int = 0
    instance: str = ""
