"""Progress: how fast a transfer moves, how long the rest takes, and how that looks. Pure: time comes in."""

from __future__ import annotations

from collections import deque
from typing import Final

SPAN_S: Final = 5.0
"""The rate is that of the last seconds: long enough to be steady, short enough to show that a network has changed."""

SAMPLES_MAX: Final = 64
BAR_CELLS: Final = 20
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Rate:
    """Bytes a second over the last seconds; `now` is a monotonic clock's."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)

    def restart(self) -> None:
        """The transfer stood still: what was before says nothing."""
        self._samples.clear()

    def note(self, now: float, done: int) -> None:
        """So many bytes are done."""
        samples = self._samples
        if samples and now - samples[-1][0] < SPAN_S / SAMPLES_MAX:
            if len(samples) > 1:
                samples[-1] = (samples[-1][0], done)
            return
        samples.append((now, done))
        while len(samples) > 2 and now - samples[1][0] >= SPAN_S:
            samples.popleft()

    def bytes_per_s(self, now: float) -> float | None:
        """The rate; None while there is too little to tell."""
        if len(self._samples) < 2:
            return None
        (begin, first), (_, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now - begin) if now > begin else None

    def left_s(self, now: float, left_bytes: int) -> float | None:
        """How long the rest takes at that rate; None where that cannot be told."""
        rate = self.bytes_per_s(now)
        return left_bytes / rate if rate else None


def size_text(count: float) -> str:
    """A number of bytes for people: 47.1 KiB."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {UNITS[unit]}"


def time_text(seconds: float) -> str:
    """A time for people: 0:07, 12:34, 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def bar(done: int, size: int, cells: int = BAR_CELLS) -> str:
    """A bar that is as full as the transfer; full only at its end."""
    filled = cells if size <= 0 or done >= size else min(cells - 1, done * cells // size)
    return "█" * filled + "░" * (cells - filled)


def percent(done: int, size: int) -> int:
    """Hundredths, 100 only at the end."""
    return 100 if size <= 0 or done >= size else done * 100 // size
