"""Own traces: what the client itself measures of its messages, as the first span of their traces.

At most one message a second is traced by the client's wish: that is more than anybody asks about. When the server has
stored it and it has come back, what was measured is told to the server once, which puts it beside its own spans.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from client.events import Event, MessageArrived, TextAcknowledged, TextFailed
from services.common.wire.trace_context import CONTEXT_BYTES, format_traceparent

INTERVAL_S = 1.0
UNDER_WAY_MAX = 64
"""Traced messages that have not come back; of more, the oldest is not told of."""


@dataclass
class Measured:
    """Unix times in microseconds; 0 where it has not happened."""

    context: bytes
    sent_at_us: int
    acknowledged_at_us: int = 0
    place: tuple[str, int] | None = None  # room id and seq

    def report(self, shown_at_us: int) -> dict[str, object]:
        """The data of the request that tells the server."""
        return {
            "traceparent": format_traceparent(self.context),
            "sent_at_us": self.sent_at_us,
            "acknowledged_at_us": self.acknowledged_at_us,
            "shown_at_us": shown_at_us,
        }


class OwnTraces:
    """Chooses messages and measures them. `now` is Unix time; `tell(data)` sends a report."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        tell: Callable[[dict[str, object]], object],
        new_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._now = now
        self._tell = tell
        self._new_bytes = new_bytes
        self._begun_at = float("-inf")
        self._by_key: OrderedDict[str, Measured] = OrderedDict()

    def begin(self, key: str) -> str | None:
        """The text of this key goes out: the trace context of its frame, the same each time, or None."""
        measured = self._by_key.get(key)
        now = self._now()
        if measured is None:
            if 0 <= now - self._begun_at < INTERVAL_S:
                return None
            self._begun_at = now
            measured = self._by_key[key] = Measured(self._new_bytes(CONTEXT_BYTES), _us(now))
            if len(self._by_key) > UNDER_WAY_MAX:
                self._by_key.popitem(last=False)
        return format_traceparent(measured.context)

    def on_event(self, event: Event) -> None:
        """Something has happened in the session."""
        match event:
            case TextAcknowledged(room_id=room_id, key=key, seq=seq) if key in self._by_key:
                measured = self._by_key[key]
                measured.acknowledged_at_us = _us(self._now())
                measured.place = (room_id, seq)
            case TextFailed(key=key):
                self._by_key.pop(key, None)
            case MessageArrived(room=room, message=message, is_own=True) if self._by_key:
                place = (room.room_id, message.seq)
                for key in [key for key, measured in self._by_key.items() if measured.place == place]:
                    self._tell(self._by_key.pop(key).report(_us(self._now())))


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
