"""Standing in: what may be repeated is asked of one more instance where the first is gone.

A call whose time ran out is not: whoever waits for it has waited long enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

_ATTEMPTS: Final = 2
_RETRY_WITHIN_S: Final = 1.0
"""A call that failed at once found nobody there; one that failed later was with somebody who did not answer."""

T = TypeVar("T")


async def ask_in_turn(candidates: Sequence[str], call: Callable[[str], Awaitable[T]], clock: Clock) -> T:
    """What `call(target)` answers for the first target that is there. Raises ParleyError."""
    *others, last = candidates[:_ATTEMPTS]
    began = clock.monotonic()
    for target in others:
        try:
            return await call(target)
        except ParleyError as error:
            if error.code is not ErrorCode.UNAVAILABLE or clock.monotonic() - began > _RETRY_WITHIN_S:
                raise
    return await call(last)
