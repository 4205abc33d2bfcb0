"""A queue that is fair between sources: one item of each in turn, each source's own in the order in which they came.

So whoever sends a thousand waits for a thousand, and whoever sends one waits for one turn of the others. Deficit round
robin (Shreedhar and Varghese, 1995) with items of one size.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by source."""

    def __init__(self) -> None:
        self._by_source: OrderedDict[bytes, deque[T]] = OrderedDict()  # whose turn it is first
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, source: bytes, item: T) -> None:
        """Puts an item behind those of its source; a new source behind the others."""
        self._by_source.setdefault(source, deque()).append(item)
        self._length += 1

    def pop(self) -> T:
        """The next item. Raises IndexError where there is none."""
        if not self._by_source:
            raise IndexError("the queue is empty")
        source, items = self._by_source.popitem(last=False)
        item = items.popleft()
        if items:
            self._by_source[source] = items  # behind the others
        self._length -= 1
        return item

    def ahead_of(self, source: bytes) -> int:
        """How many items would be served before a new one of this source, if no other came."""
        own = len(self._by_source.get(source, ()))
        return sum(min(len(items), own + 1) for name, items in self._by_source.items() if name != source) + own

    def make_room(self, source: bytes) -> T | None:
        """Takes out the last item of the source that has most, for an item of `source`; None where `source` would then
        have as many as that one."""
        longest = self._longest(source)
        if longest is None:
            return None
        self._length -= 1
        return self._by_source[longest].pop()  # not its only one

    def would_make_room(self, source: bytes) -> bool:
        """Whether `make_room` would take something out."""
        return self._longest(source) is not None

    def _longest(self, source: bytes) -> bytes | None:
        longest = max(self._by_source, key=lambda name: len(self._by_source[name]), default=None)
        if longest is None or len(self._by_source[longest]) <= len(self._by_source.get(source, ())) + 1:
            return None
        return longest

    def remove(self, source: bytes, item: T) -> bool:
        """Takes an item out; returns whether it was there."""
        items = self._by_source.get(source)
        if items is None or item not in items:
            return False
        items.remove(item)
        self._length -= 1
        if not items:
            del self._by_source[source]
        return True

    def clear(self) -> list[T]:
        """Takes everything out."""
        items = [item for each in self._by_source.values() for item in each]
        self._by_source.clear()
        self._length = 0
        return items
