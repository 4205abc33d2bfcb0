"""How long to wait before a process that died is started again."""

from __future__ import annotations

FIRST_S = 0.25
CEILING_S = 4.0  # so that a stack is whole again within 10 s of the last fault
STABLE_S = 10.0  # a process that served this long has earned an immediate restart


class Backoff:
    """Nothing the first time, then doubling up to the ceiling; starts anew after a stable life."""

    def __init__(self) -> None:
        self._failures = 0

    def delay_s(self, *, lived_s: float) -> float:
        """Seconds to wait now that the process has died after `lived_s` seconds."""
        if lived_s >= STABLE_S:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        # The exponent is bounded because a process may fail for weeks.
        return min(CEILING_S, FIRST_S * 2.0 ** min(self._failures - 2, 16))
