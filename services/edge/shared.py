"""What all connections of an edge share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from services.common.clock import Clock
from services.edge.admission import Admission
from services.edge.departures import Departures
from services.edge.directory import Directory
from services.edge.flusher import Flusher
from services.edge.hub import Hub
from services.edge.message_spans import MessageSpans
from services.edge.qos.pump import Pump
from services.edge.session import Rules
from services.edge.token_bucket import UserBuckets
from services.edge.traffic import Traffic

if TYPE_CHECKING:
    from services.edge.connection import Connection


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection may take, in seconds and bytes. `login_s` is how long one may stay without a login."""

    idle_s: float
    login_s: float
    partial_frame_s: float
    stuck_s: float
    outbox_bytes_max: int


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the edge that a connection works with. `number` gives the ids of version-1 frames."""

    rules: Rules
    limits: Limits
    clock: Clock
    hub: Hub
    pump: Pump
    flusher: Flusher
    directory: Directory[Connection]
    admission: Admission[Connection]
    departures: Departures
    buckets: UserBuckets
    traffic: Traffic
    spans: MessageSpans
    number: Callable[[], int]
    call_soon: Callable[[Callable[[], None]], object]
