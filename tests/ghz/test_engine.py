"""The engine in time that tests make: grpcio-testing's."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc_testing
import pytest

from tests.ghz import settings
from tests.ghz.calls import Outcome
from tests.ghz.engine import Engine

if TYPE_CHECKING:
    from tests.ghz.templates import Request

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_S = 20.0


class Time:
    """Fake time, in which whoever sleeps moves time on, and that notes for when they slept."""

    def __init__(self) -> None:
        self.fake: Any = grpc_testing.strict_fake_time(0)
        self.sleeps: list[float] = []
        self.time = self.fake.time
        self.call_at = self.fake.call_at

    def sleep_until(self, time: float) -> None:
        self.sleeps.append(time)
        self.fake.sleep_until(time)


class Run:
    """An engine in a thread. Calls are held until `gate` is set, which it is unless `is_held`."""

    def __init__(self, *, is_held: bool = False, **values: Any) -> None:
        self.time = Time()
        self.gate = threading.Event()
        if not is_held:
            self.gate.set()
        self.made: list[Request] = []
        self.is_closed = False
        self._changed = threading.Condition()
        asked = settings.from_values({"call": "a.B/C", "host": "x", **values})
        self.engine = Engine(asked, self._call, time=self.time, close=self._close)
        self._thread = threading.Thread(target=self.engine.run, daemon=True)
        self._thread.start()

    def _call(self, request: Request, _connection: int) -> Outcome:
        with self._changed:
            self.made.append(request)
            self._changed.notify_all()
        assert self.gate.wait(LONG_S)
        return Outcome(NOW, 1_000, "OK", "")

    def _close(self) -> None:
        self.is_closed = True
        self.gate.set()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.made) >= count, LONG_S), f"{len(self.made)} of {count} calls"

    def join(self) -> None:
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()


def test_a_constant_rate_is_kept() -> None:
    run = Run(total=4, concurrency=2, rps=2)
    run.join()
    assert run.time.sleeps == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert sorted(request.number for request in run.made) == [0, 1, 2, 3]
    assert (len(run.engine.outcomes), run.engine.reason, run.engine.total_ns) == (4, "normal", 2_000_000_000)


def test_an_hour_of_steps_takes_no_time() -> None:
    steps = {"load-schedule": "step", "load-start": 1, "load-step": 1, "load-step-duration": "30m"}
    run = Run(total=5_400, concurrency=1, **steps)
    run.join()
    assert run.time.sleeps[:1_800] == pytest.approx(list(range(1, 1_801)))
    assert run.time.sleeps[1_800:] == pytest.approx([1_800 + number / 2 for number in range(1, 3_601)])
    assert run.engine.total_ns == 3_600_000_000_000


def test_no_more_calls_than_workers_are_under_way() -> None:
    run = Run(is_held=True, total=9, concurrency=3)
    run.wait_for(3)
    assert len(run.made) == 3
    assert {request.worker for request in run.made} == {"g0c0", "g0c1", "g0c2"}
    run.gate.set()
    run.join()
    assert len(run.engine.outcomes) == 9


def test_workers_come_by_their_schedule() -> None:
    steps = {
        "concurrency-schedule": "step",
        "concurrency-start": 2,
        "concurrency-step": 2,
        "concurrency-step-duration": "10s",
        "concurrency-end": 6,
    }
    run = Run(is_held=True, total=6, concurrency=6, **steps)
    for count in (2, 4, 6):
        run.wait_for(count)
        assert len(run.made) == count
        run.time.fake.sleep_for(10)
    run.gate.set()
    run.join()


def test_nothing_waits_for_calls_that_are_asynchronous() -> None:
    run = Run(is_held=True, total=50, concurrency=1, **{"async": True})
    run.wait_for(50)
    run.gate.set()
    run.join()
    assert len(run.engine.outcomes) == 50


@pytest.mark.parametrize(("stop", "counted"), [("close", 2), ("ignore", 0)])
def test_the_end_of_the_time_ends_what_is_under_way(stop: str, counted: int) -> None:
    run = Run(is_held=True, duration="2500ms", rps=1, concurrency=5, **{"duration-stop": stop})
    run.join()
    assert run.time.sleeps == pytest.approx([1, 2, 2.5])
    assert run.is_closed
    assert (len(run.made), len(run.engine.outcomes), run.engine.reason) == (2, counted, "timeout")


def test_what_is_under_way_at_the_end_may_be_waited_for() -> None:
    run = Run(is_held=True, total=500, rps=1, concurrency=5, **{"max-duration": "2500ms", "duration-stop": "wait"})
    run.wait_for(2)
    with run.engine._changed:
        assert run.engine._changed.wait_for(lambda: run.engine.reason == "timeout", LONG_S)
    run.gate.set()
    run.join()
    assert not run.is_closed
    assert len(run.engine.outcomes) == 2


def test_what_goes_wrong_with_the_data_ends_the_run_and_is_raised() -> None:
    def fail(_request: object, _connection: int) -> Outcome:
        raise settings.SettingsError("data: does not fit")

    asked = settings.from_values({"call": "a.B/C", "host": "x", "total": 1_000})
    with pytest.raises(settings.SettingsError, match="does not fit"):
        Engine(asked, fail, time=Time()).run()
