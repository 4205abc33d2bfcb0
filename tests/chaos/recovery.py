"""How long people wait when something was killed: the figures that a log gives besides its verdict.

Only faults that strike alone count, or a second one would be measured with the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.events import Close, Fault, Invoke, Ok, Open

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.chaos.events import AnyEvent

ALONE_S = 5.0  # so long before and after it nothing else may be broken
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
    for fault in _alone(faults):
        if fault.target.startswith("rooms"):
            waits = found.acknowledged.setdefault(fault.kind, [])
            waits += [
                min(late) for room in acks.values() if (late := [ok - fault.t0 for at, ok in room if at > fault.t0])
            ]
        elif fault.target.startswith("edge"):
            lost = [c for edge, c, at in closes if edge == fault.target and fault.t0 <= at <= fault.t0 + CUT_S]
            waits = found.back.setdefault(fault.kind, [])
            waits += [min(later) - fault.t0 for c in lost if (later := [t for t in opens[c] if t > fault.t0])]
    return found


def _alone(faults: list[Fault]) -> Iterator[Fault]:
    for fault in faults:
        if fault.kind in KILLS:
            near = [
                other
                for other in faults
                if other is not fault and other.t0 < fault.t0 + ALONE_S and other.t1 > fault.t0 - ALONE_S
            ]
            if not near:
                yield fault
