"""A set of numbers that come mostly in order: kept as ranges, so that it stays small."""

from __future__ import annotations

from bisect import bisect_right


class Coverage:
    """Numbers that were added."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # inclusive

    def add(self, number: int) -> None:
        """Adds one number; adding it again changes nothing."""
        index = bisect_right(self._starts, number) - 1
        if index >= 0 and number <= self._ends[index]:
            return
        if index >= 0 and number == self._ends[index] + 1:
            self._ends[index] = number
        else:
            index += 1
            self._starts.insert(index, number)
            self._ends.insert(index, number)
        if index + 1 < len(self._starts) and self._starts[index + 1] == number + 1:
            self._ends[index] = self._ends[index + 1]
            del self._starts[index + 1], self._ends[index + 1]

    def end_of(self, number: int) -> int:
        """The last of the numbers that follow `number` without a gap; `number` itself where it was not added."""
        index = bisect_right(self._starts, number) - 1
        return max(number, self._ends[index]) if index >= 0 and number <= self._ends[index] else number

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number <= self._ends[index]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, ascending, with both ends."""
        return list(zip(self._starts, self._ends, strict=True))
