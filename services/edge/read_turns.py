"""Read turns: what is read from all connections together in one turn of the event loop.

After a pause thousands of sockets may have something to read at once. Read in one turn, they would keep everybody from
being written to for tenths of a second; so a turn reads so much, and whoever comes to nothing in it is the first to be
read in the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

BYTES_PER_TURN: Final = 262_144
"""Some 5 ms of work, where they are texts of 150 bytes."""

READ_COST: Final = 2_048
"""What a read counts for beside its bytes: the calls that it takes."""


class ReadTurns:
    """Counts what is read. `call_soon` defers to the loop's next turn."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._left = BYTES_PER_TURN
        self._is_scheduled = False
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def is_over(self) -> bool:
        """Whether this turn has read enough."""
        return self._left <= 0

    @property
    def waiting_count(self) -> int:
        """How many wait for a turn."""
        return len(self._waiting)

    def spend(self, size: int) -> None:
        """So many bytes were read."""
        self._left -= size + READ_COST
        self._schedule()

    def wait(self, read: Callable[[], object]) -> None:
        """`read()` is called in the next turn that has room for it, in the order of the calls."""
        self._waiting.append(read)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        self._left = BYTES_PER_TURN
        waiting = self._waiting
        while waiting and self._left > 0:
            waiting.popleft()()
        if waiting:
            self._schedule()
