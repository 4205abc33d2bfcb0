"""The hash pool: the only way to bcrypt, so that it can take neither all CPU nor all memory.

A few threads (bcrypt lets go of the interpreter lock) serve one bounded queue that is fair between the addresses that
people come from: a storm of logins from somewhere keeps nobody waiting who comes from elsewhere, and where the queue is
full, whoever has most in it gives way. Whoever could not be served before their deadline is refused at once, and who
gave up while waiting is dropped before any work is done for them: a storm must not leave behind minutes of hashing for
people who have long gone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from services.auth.fair_queue import FairQueue
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
    """Work for the pool, when its answer stops being of use (on the clock's monotonic scale), and where whoever wants
    it comes from. `has_started` tells, after whatever became of it, whether it has cost CPU time."""

    def __init__(self, work: Callable[[], T], *, deadline: float, source: bytes = b"") -> None:
        self.work = work
        self.deadline = deadline
        self.source = source
        self.has_started = False


class HashPool:
    """A bounded pool of `workers` threads, with at most `queue_max` jobs waiting for them. Used from one event loop."""

    def __init__(self, *, workers: int, queue_max: int, clock: Clock) -> None:
        self._workers = workers
        self._queue_max = queue_max
        self._clock = clock
        self._running = 0
        self._waiting: FairQueue[tuple[HashJob[Any], asyncio.Future[Any]]] = FairQueue()
        self._cost_s = 0.0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hash", initializer=_give_way)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def pending(self) -> int:
        """Jobs that wait or run."""
        return self._running + len(self._waiting)

    def expected_s(self, source: bytes = b"") -> float:
        """How long a job from there that came now would take, waiting included, at the recent cost of a hash."""
        return ((self._running + self._waiting.ahead_of(source)) // self._workers + 1) * self._cost_s

    def admit(self, *, deadline: float, source: bytes) -> None:
        """Refuses whom `run` would refuse now, before anything is looked up for them. Raises `ParleyError`
        rate_limited."""
        is_late = self._clock.monotonic() + self.expected_s(source) > deadline
        if is_late or (self._is_full and not self._waiting.would_make_room(source)):
            raise self._busy(source)

    async def run(self, job: HashJob[T]) -> T:
        """What the work returns or raises. Raises `ParleyError` rate_limited when the queue is full, too slow for the
        deadline, or was; unavailable when the pool closed first. Cancelling drops a job that has not started."""
        self._loop = asyncio.get_running_loop()
        if self._is_closed:
            raise _stopping()
        if self._clock.monotonic() + self.expected_s(job.source) > job.deadline:
            raise self._busy(job.source)
        if self._is_full:
            self._make_room(job.source)
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.push(job.source, (job, future))
        self._start_jobs()
        try:
            return await future
        except _TooLateError:
            raise self._busy(job.source) from None
        except asyncio.CancelledError:
            self._waiting.remove(job.source, (job, future))
            raise

    def close(self) -> None:
        """Drops what waits and waits for what runs. Idempotent, and may be called from another thread."""
        self._is_closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop_waiting)
        self._executor.shutdown(wait=True, cancel_futures=True)

    @property
    def _is_full(self) -> bool:
        return self._running >= self._workers and len(self._waiting) >= self._queue_max

    def _make_room(self, source: bytes) -> None:
        given_up = self._waiting.make_room(source)
        if given_up is None:
            raise self._busy(source)
        job, future = given_up
        if not future.done():
            future.set_exception(self._busy(job.source))

    def _start_jobs(self) -> None:
        while self._running < self._workers and self._waiting and not self._is_closed:
            job, future = self._waiting.pop()
            self._running += 1
            work = asyncio.wrap_future(self._executor.submit(self._work, job))
            work.add_done_callback(partial(self._finish, future))

    def _finish(self, future: asyncio.Future[Any], work: asyncio.Future[Any]) -> None:
        self._running -= 1
        self._start_jobs()
        if work.cancelled():  # by close()
            error: BaseException | None = _stopping()
        else:
            error = work.exception()
        if future.done():
            return  # nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(work.result())

    def _drop_waiting(self) -> None:
        for _, future in self._waiting.clear():
            if not future.done():
                future.set_exception(_stopping())

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

    def _busy(self, source: bytes) -> ParleyError:
        retry_after_s = max(_RETRY_AFTER_MIN_S, round(self.expected_s(source), 1))
        return ParleyError(
            ErrorCode.RATE_LIMITED, "too many logins at once, try again later", retry_after_s=retry_after_s
        )


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        niceness = os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICENESS  # never more than the rest of the service
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def _stopping() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "the service is stopping")
