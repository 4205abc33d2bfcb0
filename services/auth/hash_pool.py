"""The hash pool: the only place where bcrypt runs, so that it can take neither all CPU nor all memory.

A few threads (bcrypt lets go of the interpreter lock) serve one bounded first-in-first-out queue. Whoever could not be
served before their deadline is refused at once, and whoever gave up while waiting is dropped before any work is done
for them: a storm of logins must not leave behind minutes of hashing for people who have long gone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.common.clock import Clock

T = TypeVar("T")

_NICENESS = 2  # hashing gives way to the message path: on a saturated machine it gets about 40 % instead of half
_COST_WEIGHT = 0.2  # of the newest measurement in the running mean: follows a loaded machine within about ten hashes
_RETRY_AFTER_MIN_S = 1.0


class _TooLateError(Exception):
    """The deadline passed while the job waited."""


class HashJob(Generic[T]):
    """Work for the pool, and when its answer stops being of use (on the clock's monotonic scale). `has_started` tells,
    after whatever became of it, whether it has cost CPU time."""

    def __init__(self, work: Callable[[], T], *, deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.has_started = False


class HashPool:
    """A bounded pool of `workers` threads, with at most `queue_max` jobs waiting for them."""

    def __init__(self, *, workers: int, queue_max: int, clock: Clock) -> None:
        self._workers = workers
        self._pending_max = workers + queue_max
        self._clock = clock
        self._pending = 0
        self._cost_s = 0.0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hash", initializer=_give_way)

    @property
    def pending(self) -> int:
        """Jobs that wait or run."""
        return self._pending

    @property
    def expected_s(self) -> float:
        """How long a job that came now would take, waiting included, at the recent cost of a hash."""
        return (self._pending // self._workers + 1) * self._cost_s

    async def run(self, job: HashJob[T]) -> T:
        """What the work returns or raises. Raises `ParleyError` rate_limited when the queue is full, too slow for the
        deadline, or was; unavailable when the pool closed first. Cancelling drops a job that has not started."""
        if self._pending >= self._pending_max or self._clock.monotonic() + self.expected_s > job.deadline:
            raise self._busy()
        try:
            future = self._executor.submit(self._work, job)
        except RuntimeError:
            raise _stopping() from None
        self._pending += 1
        try:
            return await asyncio.wrap_future(future)
        except _TooLateError:
            raise self._busy() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _stopping() from None  # not the caller was cancelled, but the job, by close()
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Drops what waits and waits for what runs. Idempotent."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _work(self, job: HashJob[T]) -> T:
        started = self._clock.monotonic()
        if started > job.deadline:
            raise _TooLateError
        job.has_started = True
        try:
            return job.work()
        finally:
            cost_s = self._clock.monotonic() - started
            # Threads may overwrite each other here: a lost measurement does no harm.
            self._cost_s += (cost_s - self._cost_s) * (_COST_WEIGHT if self._cost_s else 1.0)

    def _busy(self) -> ParleyError:
        retry_after_s = max(_RETRY_AFTER_MIN_S, round(self.expected_s, 1))
        return ParleyError(
            ErrorCode.RATE_LIMITED, "too many logins at once, try again later", retry_after_s=retry_after_s
        )


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _stopping() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "the service is stopping")
