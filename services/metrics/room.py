"""room: how much memory the series of all instances may take together, and do take. Pure.

A limit on their number alone would be none: a series has up to 17 texts of 128 characters, which may take 12 KB.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.metrics.points import Point

SERIES_BYTES_MAX: Final = 64_000_000
"""Some 80,000 series as ours are: 200 instances with 400 each."""

_SERIES_BYTES: Final = 550
_PAIR_BYTES: Final = 56
"""What a series and a pair of its attributes take beside their texts; measured with CPython 3.11."""


class Room:
    """Bytes that may be taken, and given back. Not for threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.taken = 0

    def take(self, size: int) -> bool:
        """Takes so many bytes, unless that would be too many; whether it did."""
        if self.taken + size > self._bytes_max:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Makes room for others."""
        self.taken -= size


def size_of(point: Point) -> int:
    """About how many bytes the series of this point takes."""
    texts = sys.getsizeof(point.metric)
    texts += sum(_PAIR_BYTES + sys.getsizeof(key) + sys.getsizeof(value) for key, value in point.attributes)
    return _SERIES_BYTES + texts
