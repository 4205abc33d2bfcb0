"""The outbox: what waits to be written to one connection, in four lanes.

A frame waits in the lane of its class, and higher lanes go first, so that a heartbeat passes a megabyte of history. A
reply that enters or leaves rooms waits in that of messages: it says which of them may come.
Lower lanes still make progress: now and then one of their frames goes ahead. The bytes waiting are counted; a reader
who lets them grow beyond the bound is cut off by the connection, and nobody waits for them.

Frames are shared: a message to 200 members is one tuple in 200 outboxes. Most connections are idle most of the time,
and the others mostly send on what came in this turn, so lanes exist only where something had to stay behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from services.edge.qos.classes import QosClass

Frame = tuple[bytes, QosClass, str | None, int]
"""Bytes, lane, and for live messages their room and first seq, which bookmarks need; otherwise None and 0."""

_LANES: Final = (QosClass.CRITICAL, QosClass.HIGH, QosClass.NORMAL, QosClass.LOW)

_LOWEST_FIRST_EVERY: Final = 4
"""One of so many writes begins with a frame of the lowest lane that waits, so that no lane starves."""


def frame(data: bytes, lane: QosClass) -> Frame:
    """A frame that is not a live message."""
    return (data, lane, None, 0)


class Outbox:
    """The frames of one connection. `mark(owner)` is called when there is something new to write."""

    __slots__ = ("_first", "_fresh", "_lanes", "_mark", "_owner", "_takes", "waiting_bytes")

    def __init__(self, owner: Any, mark: Callable[[Any], object]) -> None:
        self.waiting_bytes = 0
        self._owner = owner
        self._mark = mark
        self._fresh: list[Frame] = []  # posted since the last take, in order
        self._lanes: dict[QosClass, deque[Frame]] | None = None  # what had to stay behind
        self._first: dict[str, int] | None = None  # room -> first seq waiting in the lanes, while known
        self._takes = 0

    def post(self, frame: Frame) -> None:
        """Add a frame."""
        fresh = self._fresh
        if not fresh:
            self._mark(self._owner)
        fresh.append(frame)
        self.waiting_bytes += len(frame[0])

    def take(self, budget: int) -> tuple[bytes, int]:
        """Remove what goes next, up to `budget` bytes but at least one frame; return it joined, and its frame count."""
        fresh = self._fresh
        if self._lanes is None and self.waiting_bytes <= budget:
            count = len(fresh)
            data = fresh[0][0] if count == 1 else b"".join([entry[0] for entry in fresh])
            fresh.clear()
            self.waiting_bytes = 0
            return data, count
        chosen = self._choose(budget)
        data = b"".join(chosen)
        self.waiting_bytes -= len(data)
        return data, len(chosen)

    def hold(self) -> None:
        """Sort what is new into the lanes, because it cannot be written now; the next frame is marked again."""
        if self._fresh:
            self._sort_in()

    def first_waiting(self) -> dict[str, int]:
        """For each room with live messages that wait here: the first one's seq, or a lower one of the same frame."""
        if self._fresh:
            self._sort_in()
        if self._first is None:
            self._first = {}
            waiting = self._lanes.get(QosClass.NORMAL, ()) if self._lanes is not None else ()
            for _, _, room_id, seq in waiting:
                if room_id is not None:
                    self._first.setdefault(room_id, seq)
        return self._first

    def close(self) -> None:
        """Drop everything, and the owner: the connection has ended, and nothing is posted any more."""
        self._owner = None
        self._fresh.clear()
        self._lanes = None
        self._first = None
        self.waiting_bytes = 0

    def _sort_in(self) -> None:
        lanes = self._lanes
        if lanes is None:
            lanes = self._lanes = {}
            self._first = {}
        first = self._first
        for entry in self._fresh:
            _, lane, room_id, seq = entry
            waiting = lanes.get(lane)
            if waiting is None:
                waiting = lanes[lane] = deque()
            waiting.append(entry)
            if first is not None and room_id is not None:
                first.setdefault(room_id, seq)
        self._fresh.clear()

    def _choose(self, budget: int) -> list[bytes]:
        self._sort_in()
        lanes = self._lanes
        assert lanes  # something waits, and _sort_in has put it there
        chosen: list[bytes] = []
        self._takes += 1
        if self._takes % _LOWEST_FIRST_EVERY == 0:
            chosen.append(self._pop(lanes[min(lanes)]))
            budget -= len(chosen[0])
        for lane in _LANES:
            waiting = lanes.get(lane)
            while waiting and (budget > 0 or not chosen):
                chosen.append(self._pop(waiting))
                budget -= len(chosen[-1])
        for lane in [lane for lane, waiting in lanes.items() if not waiting]:
            del lanes[lane]
        if not lanes:
            self._lanes = None
            self._first = None
        return chosen

    def _pop(self, waiting: deque[Frame]) -> bytes:
        data, _, room_id, _ = waiting.popleft()
        if room_id is not None:
            self._first = None  # found again when somebody asks
        return data
