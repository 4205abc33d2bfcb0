"""The reporter: what the edge shows of its state, read when telemetry asks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from services.common.counters import Counters
from services.edge.admission import Admission
from services.edge.core import Core
from services.edge.directory import Directory
from services.edge.qos.classes import QosClass

if TYPE_CHECKING:
    from services.edge.connection import Connection


def report(
    counters: Counters,
    *,
    admission: Admission[Connection],
    directory: Directory[Connection],
    core: Core,
) -> None:
    """Register the edge's gauges. They are read in another thread, so each reads one number."""
    gauge, hub, publisher, pump = counters.gauge, core.hub, core.publisher, core.pump
    gauge("parley.edge.connections", "1", "Open connections.", lambda: admission.count)
    gauge("parley.edge.sessions", "1", "Logged-in connections.", lambda: directory.session_count)
    gauge("parley.edge.rooms", "1", "Rooms that somebody here is in.", lambda: hub.room_count)
    gauge("parley.edge.gaps", "1", "Holes in the feed that were read again.", lambda: hub.gap_count)
    gauge("parley.edge.publish.waiting", "1", "Texts on their way to rooms.", lambda: len(publisher))
    gauge("parley.edge.commands.running", "1", "Commands under way.", lambda: pump.running)
    for qos_class in QosClass:
        label = {"qos_class": qos_class.label}
        waiting, age = partial(pump.waiting, qos_class), partial(pump.oldest, qos_class)
        gauge("parley.edge.queue.waiting", "1", "Requests that wait to be started.", waiting, attributes=label)
        gauge("parley.edge.queue.age", "s", "How long the oldest of them has waited.", age, attributes=label)
