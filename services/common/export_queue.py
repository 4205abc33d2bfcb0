"""The export queue: what is to be sent elsewhere waits here, bounded, and goes in batches from a thread of its own.

Whoever has something to send never waits for whoever receives it. What does not fit, and what could not be sent at the
one attempt that it gets, is lost and counted: a span or a log line is worth less than the time of those who chat.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from services.common.counters import Counter

T = TypeVar("T")

QUEUE_MAX: Final = 4_096
"""At some 2 KB each this is 8 MB, and a hundred times what a second brings at most."""

BATCH_MAX: Final = 512
INTERVAL_S: Final = 1.0
"""How long the first of a batch waits for others; who looks for a trace waits as long."""


class ExportQueue(Generic[T]):
    """A bounded queue with a thread. `send` blocks, and returns how many of a batch were lost."""

    def __init__(
        self,
        send: Callable[[list[T]], int],
        *,
        name: str,
        sent: Counter,
        lost: Counter,
        queue_max: int = QUEUE_MAX,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._send = send
        self._sent = sent
        self._lost = lost
        self._queue_max = queue_max
        self._interval_s = interval_s
        self._items: deque[T] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __len__(self) -> int:
        return len(self._items)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Queues an item, or counts it as lost. Never waits; from any thread."""
        if len(self._items) >= self._queue_max or self._is_closing:
            self._lost.add()
            return
        self._items.append(item)
        if len(self._items) >= BATCH_MAX:
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Sends what waits, for at most that long; what is left then is lost. Blocks."""
        self._is_closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            is_last = self._is_closing
            for _ in range(len(self._items) // BATCH_MAX + 1):
                batch = [self._items.popleft() for _ in range(min(len(self._items), BATCH_MAX))]
                if batch:
                    lost = min(self._send(batch), len(batch))
                    self._lost.add(lost)
                    self._sent.add(len(batch) - lost)
            if is_last:
                self._lost.add(len(self._items))
                return
