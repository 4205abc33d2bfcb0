"""The flusher: once per turn of the event loop, what the turn has produced is written, one write per connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from services.common.counters import Counter


class Flushable(Protocol):
    """Who has something to write."""

    def flush(self) -> tuple[int, int]:
        """Write it; return how many frames and bytes that were."""
        ...


class Flusher:
    """Collects who has something to write. `deliver()` comes first: the hub gives out what there is, or a part of it,
    and says whether there is more for the next turn.

    `call_soon` defers to the loop's next turn.
    """

    def __init__(
        self,
        *,
        call_soon: Callable[[Callable[[], None]], object],
        deliver: Callable[[], bool],
        frames: Counter,
        bytes_: Counter,
    ) -> None:
        self._call_soon = call_soon
        self._deliver = deliver
        self._frames = frames
        self._bytes = bytes_
        self._marked: list[Flushable] = []
        self._is_scheduled = False

    def mark(self, sender: Flushable) -> None:
        """`sender` has something to write."""
        self._marked.append(sender)
        if not self._is_scheduled:
            self.wake()

    def wake(self) -> None:
        """There is something to deliver or to write."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        is_more = False
        try:
            is_more = self._deliver()
        finally:
            marked, self._marked = self._marked, []
            self._is_scheduled = False
            if is_more:
                self.wake()
        frames = size = 0
        for sender in marked:
            sent = sender.flush()
            frames += sent[0]
            size += sent[1]
        self._frames.add(frames)
        self._bytes.add(size)
