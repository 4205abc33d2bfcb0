"""A connection to Parley that measures how long each of its requests waits for its answer."""

from __future__ import annotations

import re
import time
from collections import Counter

from tests.bench.link import Link
from tests.bench.servers.parley import frame

_ANSWER = re.compile(rb'"type":"([a-z_]+)","re":(\d+)[,}]')
"""What every reply of version 2 begins with; `re` is the time at which the request was made, in µs.

What follows the number is matched too, or a read that ends within it would give another time.
"""

_TAIL_BYTES = 64


class Requester:
    """Puts requests on a link and reads the answers. Answer types are counted, waits are kept in seconds.

    With `in_flight`, each answer is followed by a new request, so that so many are always under way.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.sent = 0
        self.answers: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}
        self._tail = b""
        self._refill: tuple[str, dict[str, object], str | None] | None = None
        link.count_raw(self._on_data)

    @property
    def outstanding(self) -> int:
        return self.sent - sum(self.answers.values())

    def send(self, kind: str, data: dict[str, object], *, room_id: str | None = None, count: int = 1) -> None:
        envelope: dict[str, object] = {"id": time.monotonic_ns() // 1000}
        if room_id is not None:
            envelope["room_id"] = room_id
        self.sent += count
        self.link.write(frame(kind, data, **envelope) * count)

    def keep_in_flight(self, count: int, kind: str, data: dict[str, object], *, room_id: str | None = None) -> None:
        self._refill = (kind, data, room_id)
        self.send(kind, data, room_id=room_id, count=count)

    def stop(self) -> None:
        self._refill = None

    def _on_data(self, data: bytes) -> None:
        data = self._tail + data
        now = time.monotonic_ns() // 1000
        end = found = 0
        for match in _ANSWER.finditer(data):
            kind = match[1].decode()
            self.answers[kind] += 1
            self.waits.setdefault(kind, []).append((now - int(match[2])) / 1e6)
            end = match.end()
            found += 1
        # An answer that the read cut through is found with the next one.
        self._tail = data[max(end, len(data) - _TAIL_BYTES) :]
        if self._refill is not None and found:
            kind, body, room_id = self._refill
            self.send(kind, body, room_id=room_id, count=found)


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
