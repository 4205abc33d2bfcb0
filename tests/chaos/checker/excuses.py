"""Until when something that ended may still be seen to go on: what was broken meanwhile may have held the news up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.events import Fault

GRACE_S: Final = 1.0
"""How long an end may take to reach every edge, while nothing on the way to it is broken."""

WITHOUT_REDIS_S: Final = 5.0
"""… and while nothing but Redis is."""


def due(ended_at: float, seen_at: float, edge: str, service: str, faults: Iterable[Fault]) -> float:
    """When `edge` must have known what had ended at `ended_at`, looking at it from `seen_at`.

    `service`, rooms or auth, has told it, from the database or over Redis. A fault of another edge, of another service
    or of the clock is no excuse, and one of Redis only for as long as is promised.
    """
    latest = ended_at
    for fault in faults:
        if fault.t0 > seen_at or fault.t1 < ended_at or fault.kind == "clock":
            continue
        if fault.target == "redis":
            latest = max(latest, min(fault.t1, ended_at + WITHOUT_REDIS_S - GRACE_S))
        elif fault.target in {edge, "postgres", "all processes"} or fault.target.partition("-")[0] == service:
            latest = max(latest, fault.t1)
    return latest + GRACE_S
