"""Sends requests when they are due, with as many workers as there may be, until the run ends.

Time comes in from outside, in the shape that grpcio-testing gives it, so that tests run a schedule of hours at once.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tests.ghz import pacing
from tests.ghz.calls import Outcome
from tests.ghz.durations import SECOND_NS
from tests.ghz.settings import Settings
from tests.ghz.templates import Request

ASYNC_CALLS_MAX = 1_000
"""Calls under way at most when nothing waits for them; each has a thread."""

NORMAL, TIMEOUT, CANCELLED = "normal", "timeout", "cancel"


class Time(Protocol):
    """What of grpc_testing.Time is needed here; in seconds."""

    def time(self) -> float:
        """Now."""
        ...

    def sleep_until(self, time: float) -> None:
        """Returns when it is `time`."""
        ...

    def call_at(self, behavior: Callable[[], None], time: float) -> Any:
        """Calls back at `time`; the result can be cancelled."""
        ...


class RealTime:
    """The time of this machine."""

    def time(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def sleep_until(self, time: float) -> None:
        """Sleeps; returns at once when it is past."""
        remaining_s = time - self.time()
        if remaining_s > 0:
            _sleep(remaining_s)

    def call_at(self, behavior: Callable[[], None], time: float) -> threading.Timer:
        """Calls back on a thread of its own."""
        timer = threading.Timer(max(0.0, time - self.time()), behavior)
        timer.daemon = True
        timer.start()
        return timer


_sleep = time.sleep


class Engine:
    """One run. `call` makes a request on a connection; `close` ends all calls that are under way."""

    def __init__(
        self,
        settings: Settings,
        call: Callable[[Request, int], Outcome],
        *,
        time: Time,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._call = call
        self._close = close
        self._time = time
        self._changed = threading.Condition()
        self._changes = self._worker_stretches()
        self._is_change_planned = False
        self._timers: list[Any] = []
        self._allowed = 0
        self._active = 0
        self._free: list[int] = []
        self._next_slot = itertools.count()
        self._is_over = False
        self._failure: BaseException | None = None
        self.outcomes: list[Outcome] = []
        self.reason = NORMAL
        self.total_ns = 0

    def run(self) -> None:
        """Runs to the end; then `outcomes`, `reason` and `total_ns` say how it went. Raises what `call` raised."""
        began_s = self._time.time()
        end_ns = self._settings.duration or self._settings.max_duration
        if end_ns:
            self._timers.append(self._time.call_at(self._end, began_s + end_ns / SECOND_NS))
        slots = ASYNC_CALLS_MAX if self._settings.run_async else self._most_workers()
        with ThreadPoolExecutor(max_workers=slots, thread_name_prefix="ghz") as executor:
            try:
                self._dispatch(executor, began_s, began_s + end_ns / SECOND_NS if end_ns else None)
                executor.shutdown(wait=True)
            except KeyboardInterrupt:
                self.reason = CANCELLED
                self._end()
        for timer in self._timers:
            timer.cancel()
        self.total_ns = round((self._time.time() - began_s) * SECOND_NS)
        if self._failure is not None:
            raise self._failure

    def _dispatch(self, executor: ThreadPoolExecutor, began_s: float, end_s: float | None) -> None:
        numbers = itertools.count() if self._settings.duration else iter(range(self._settings.total))
        for number, due_ns in zip(numbers, self._due_times(), strict=False):
            due_s = began_s + due_ns / SECOND_NS
            if due_ns and not self._is_over:
                self._time.sleep_until(due_s if end_s is None else min(due_s, end_s))
            slot = self._take_slot(began_s)
            if slot is None:
                return
            executor.submit(self._work, Request(number=number, worker=f"g0c{slot}"), slot)

    def _due_times(self) -> Iterator[int]:
        settings = self._settings
        if settings.load_schedule != "const":
            return pacing.due_times(
                pacing.Steps(
                    start=settings.load_start,
                    step=settings.load_step,
                    step_ns=settings.load_step_duration if settings.load_schedule == "step" else SECOND_NS,
                    end=settings.load_end,
                    max_ns=settings.load_max_duration,
                ).stretches()
            )
        return pacing.due_times(pacing.constant(settings.rps)) if settings.rps else pacing.at_once()

    def _worker_stretches(self) -> Iterator[pacing.Stretch]:
        settings = self._settings
        if settings.run_async:
            return pacing.constant(ASYNC_CALLS_MAX)
        if settings.concurrency_schedule == "const":
            return pacing.constant(settings.concurrency)
        return pacing.Steps(
            start=settings.concurrency_start,
            step=settings.concurrency_step,
            step_ns=settings.concurrency_step_duration if settings.concurrency_schedule == "step" else SECOND_NS,
            end=settings.concurrency_end,
            max_ns=settings.concurrency_max_duration,
        ).stretches()

    def _most_workers(self) -> int:
        first_stretches = itertools.islice(self._worker_stretches(), ASYNC_CALLS_MAX)
        return min(ASYNC_CALLS_MAX, max(stretch.value for stretch in first_stretches))

    def _follow_workers(self, began_s: float) -> None:
        """Plans the next change of the number of workers. Never from a callback: time may be locked then."""
        with self._changed:
            if self._is_change_planned or self._is_over:
                return
            following = next(self._changes, None)
            self._is_change_planned = True  # or there is none any more
        if following is not None:
            timer = self._time.call_at(lambda: self._allow(following.value), began_s + following.start_ns / SECOND_NS)
            self._timers.append(timer)

    def _allow(self, workers: int) -> None:
        with self._changed:
            self._allowed = workers
            self._is_change_planned = False
            self._changed.notify_all()

    def _take_slot(self, began_s: float) -> int | None:
        """Waits until one more worker may work; None when the run is over."""
        while True:
            self._follow_workers(began_s)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_over or self._active < self._allowed or not self._is_change_planned
                )
                if self._is_over:
                    return None
                if self._active < self._allowed:
                    self._active += 1
                    return heapq.heappop(self._free) if self._free else next(self._next_slot)

    def _work(self, request: Request, slot: int) -> None:
        outcome = None
        try:
            outcome = self._call(request, slot)
        except BaseException as error:  # noqa: BLE001 -- run() raises it where it is seen
            self._failure = self._failure or error
        with self._changed:
            self._active -= 1
            heapq.heappush(self._free, slot)
            is_wanted = not (self._is_over and self._settings.duration_stop == "ignore")
            if outcome is not None and is_wanted:
                self.outcomes.append(outcome)
            self._is_over = self._is_over or self._failure is not None
            self._changed.notify_all()

    def _end(self) -> None:
        """The time is up, or somebody has had enough."""
        with self._changed:
            self._is_over = True
            if self.reason == NORMAL:
                self.reason = TIMEOUT
            self._changed.notify_all()
        if self._settings.duration_stop != "wait":
            self._close()
