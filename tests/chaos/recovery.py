"""How long people wait when something was killed: the figures that a log gives besides its verdict.

Only faults that strike alone count, or a second one would be measured with the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.events import Close, Fault, Invoke, Ok, Open

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.events import AnyEvent

HEALED_S = 1.0  # so long before it nothing else may be broken
CUT_S = 1.0  # a connection that ends this soon after its edge was killed ended by that
KILLS = {"kill", "restart"}


@dataclass
class Recovery:
    """Seconds, one for each fault and room, or for each connection that a fault has cost."""

    acknowledged: dict[str, list[float]] = field(default_factory=dict)
    """By kind of fault: from the end of a rooms process to the first success for what was sent after it."""
    back: dict[str, list[float]] = field(default_factory=dict)
    """By kind of fault: from the end of an edge to its clients' next login or resume, anywhere."""


def measure(events: Iterable[AnyEvent]) -> Recovery:
    """Reads a log once."""
    faults: list[Fault] = []
    invoked: dict[tuple[str, int], float] = {}
    acks: dict[str, list[tuple[float, float]]] = {}  # room: (invoked, acknowledged)
    opens: dict[str, list[float]] = {}  # user
    closes: list[tuple[str, str, float]] = []  # (edge, user, when)
    edges: dict[str, str] = {}  # conn
    for event in events:
        if isinstance(event, Invoke):
            invoked[event.conn, event.req] = event.t
        elif isinstance(event, Ok):
            acks.setdefault(event.room, []).append((invoked.get((event.conn, event.req), 0.0), event.t))
        elif isinstance(event, Open):
            edges[event.conn] = event.edge
            opens.setdefault(event.c, []).append(event.t)
        elif isinstance(event, Close):
            closes.append((edges.pop(event.conn, ""), event.c, event.t))
        elif isinstance(event, Fault):
            faults.append(event)
    found = Recovery()
    for fault in faults:
        if fault.kind not in KILLS:
            continue
        if fault.target.startswith("rooms"):
            waits = found.acknowledged.setdefault(fault.kind, [])
            later = ([at for sent, at in room if sent > fault.t0] for room in acks.values())
        elif fault.target.startswith("edge"):
            waits = found.back.setdefault(fault.kind, [])
            lost = [c for edge, c, at in closes if edge == fault.target and fault.t0 <= at <= fault.t0 + CUT_S]
            later = ([t for t in opens[c] if t > fault.t0] for c in lost)
        else:
            continue
        waits += [round(min(times) - fault.t0, 3) for times in later if times and _is_alone(fault, min(times), faults)]
    return found


def _is_alone(fault: Fault, until: float, faults: list[Fault]) -> bool:
    return not any(other is not fault and other.t0 < until and other.t1 > fault.t0 - HEALED_S for other in faults)
