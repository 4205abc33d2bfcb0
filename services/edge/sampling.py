"""Sampling: which texts and commands are traced. Pure.

By chance, a part of all, by counting down to the next one: what is not chosen costs an integer comparison for a whole
batch. By wish, everything of a room or of a user, for a while. How many traces are begun in a second is bounded each
way, so that neither load nor anybody's wish makes tracing expensive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.token_bucket import TokenBucket

TARGETS_MAX: Final = 100
"""Rooms and users at a time; each is looked for in every text while there is one."""

WISH_RATE_MAX: Final = 20.0
"""Traces a second that clients may begin, and as many for what failed or was slow: each costs about a millisecond of
all processes together, and neither a crowd of clients nor a failure may take more than a fiftieth of a core."""

TARGET_RATE_MAX: Final = 200.0
"""Traces a second of the rooms and users that operators watch: they want all, and know why."""

_NEVER: Final = 2**62
_NONE: Final[tuple[int, ...]] = ()


class Target(NamedTuple):
    """Whose messages are all traced; one of the two is empty."""

    room_id: str = ""
    username: str = ""


class Sampler:
    """Decides. Times are monotonic; `uniform()` gives numbers from 0 up to, not including, 1."""

    def __init__(self, *, ratio: float, rate_max: float, uniform: Callable[[], float]) -> None:
        self.ratio = ratio
        self.rate_max = rate_max
        self.started = 0
        self.limited = 0
        self._uniform = uniform
        self._by_chance = _bucket(rate_max)
        self._by_wish = _bucket(WISH_RATE_MAX)
        self._by_operator = _bucket(TARGET_RATE_MAX)
        self._by_fault = _bucket(WISH_RATE_MAX)
        self._targets: dict[Target, float] = {}
        self.skip = self._draw()  # texts until the next one that is due by chance

    def configure(self, *, ratio: float, rate_max: float) -> None:
        """From now on, so much."""
        self.ratio = ratio
        self.rate_max = rate_max
        self._by_chance = _bucket(rate_max)
        self.skip = self._draw()

    def due(self, count: int) -> list[int]:
        """Which of the next `count` texts are due by chance, by their index."""
        found = []
        index = self.skip
        while index < count:
            found.append(index)
            index += 1 + self._draw()
        self.skip = index - count
        return found

    def may_begin(self, now: float) -> bool:
        """Whether a trace that is due by chance may begin."""
        return self._take(self._by_chance, now)

    def may_begin_wish(self, now: float) -> bool:
        """Whether a trace that a client wants may begin."""
        return self._take(self._by_wish, now)

    def may_begin_target(self, now: float) -> bool:
        """Whether a trace of a room or user that an operator watches may begin."""
        return self._take(self._by_operator, now)

    def may_report(self, now: float) -> bool:
        """Whether what failed or was slow may have a trace."""
        return self._take(self._by_fault, now)

    @property
    def has_targets(self) -> bool:
        """Whether rooms or users are looked for."""
        return bool(self._targets)

    def is_target(self, room_id: str, username: str) -> bool:
        """Whether everything of this room or user is traced."""
        return Target(room_id=room_id) in self._targets or Target(username=username) in self._targets

    def targets(self, now: float) -> dict[Target, float]:
        """The rooms and users that are traced, and until when."""
        self._targets = {target: until for target, until in self._targets.items() if until > now}
        return dict(self._targets)

    def watch(self, target: Target, *, until: float, now: float) -> None:
        """Trace everything of a room or user. Raises ParleyError quota_exceeded."""
        if target not in self.targets(now) and len(self._targets) >= TARGETS_MAX:
            raise ParleyError(ErrorCode.QUOTA_EXCEEDED, f"{TARGETS_MAX} rooms and users are traced already")
        self._targets[target] = until

    def unwatch(self, target: Target) -> None:
        """End that."""
        self._targets.pop(target, None)

    def _take(self, bucket: TokenBucket, now: float) -> bool:
        if bucket.take(now) > 0:
            self.limited += 1
            return False
        self.started += 1
        return True

    def _draw(self) -> int:
        """How many are not chosen before the next one that is: a geometric distribution."""
        if self.ratio <= 0:
            return _NEVER
        if self.ratio >= 1:
            return 0
        return int(math.log1p(-self._uniform()) / math.log1p(-self.ratio))


def _bucket(rate: float) -> TokenBucket:
    return TokenBucket(rate=rate, burst=max(1, math.ceil(rate)))
