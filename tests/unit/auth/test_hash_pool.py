"""The hash pool: bounded, fair, and no work for those who have gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.auth.hash_pool import HashJob, HashPool
from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

LATER = 1e9


class Gate:
    """Work that waits until the test lets it go, and counts how often it ran."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started = threading.Semaphore(0)
        self.run_count = 0

    def work(self) -> int:
        self.run_count += 1
        self.started.release()
        assert self.open.wait(10)
        return self.run_count

    async def wait_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def pool(clock: FakeClock, gate: Gate) -> Iterator[HashPool]:
    pool = HashPool(workers=1, queue_max=2, clock=clock)
    yield pool
    gate.open.set()
    pool.close()


async def start(pool: HashPool, gate: Gate, deadline: float = LATER) -> tuple[HashJob[int], asyncio.Task[int]]:
    job = HashJob(gate.work, deadline=deadline)
    task = asyncio.create_task(pool.run(job))
    await asyncio.sleep(0)
    return job, task


async def test_results_and_errors_come_back(pool: HashPool) -> None:
    def fail() -> None:
        raise KeyError("why")

    assert await pool.run(HashJob(lambda: 42, deadline=LATER)) == 42
    with pytest.raises(KeyError, match="why"):
        await pool.run(HashJob(fail, deadline=LATER))
    assert pool.pending == 0


async def test_a_full_queue_refuses_at_once(pool: HashPool, gate: Gate) -> None:
    tasks = [(await start(pool, gate))[1] for _ in range(3)]
    with pytest.raises(ParleyError) as caught:
        await pool.run(HashJob(gate.work, deadline=LATER))
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    gate.open.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3]


async def test_who_would_be_refused_is_told_before_anything_is_looked_up(
    pool: HashPool, gate: Gate, clock: FakeClock
) -> None:
    pool.admit(deadline=LATER, source=b"")
    tasks = [(await start(pool, gate))[1] for _ in range(3)]
    with pytest.raises(ParleyError) as caught:
        pool.admit(deadline=LATER, source=b"")
    assert caught.value.code is ErrorCode.RATE_LIMITED
    pool.admit(deadline=LATER, source=b"elsewhere")  # the one with most in the queue would give way
    assert pool.pending == 3  # but did not yet
    clock.advance(5)
    gate.open.set()
    await asyncio.gather(*tasks)
    with pytest.raises(ParleyError):
        pool.admit(deadline=clock.monotonic() + 0.1, source=b"")  # a hash takes longer than that


async def test_who_gives_up_while_waiting_costs_nothing(pool: HashPool, gate: Gate) -> None:
    first, running = await start(pool, gate)
    second, waiting = await start(pool, gate)
    await gate.wait_started()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open.set()
    await running
    assert await pool.run(HashJob(lambda: 1, deadline=LATER)) == 1  # the queue has moved past the cancelled job
    assert gate.run_count == 1
    assert first.has_started
    assert not second.has_started


async def test_a_deadline_that_passes_in_the_queue_spares_the_work(
    pool: HashPool, gate: Gate, clock: FakeClock
) -> None:
    _, running = await start(pool, gate)
    job, waiting = await start(pool, gate, deadline=30.0)
    await gate.wait_started()
    clock.advance(31)
    gate.open.set()
    with pytest.raises(ParleyError) as caught:
        await waiting
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert not job.has_started
    assert await running == 1
    assert gate.run_count == 1


async def test_who_could_not_be_served_in_time_is_refused_at_once(pool: HashPool, gate: Gate, clock: FakeClock) -> None:
    _, slow = await start(pool, gate)
    await gate.wait_started()
    clock.advance(5)  # the first hash takes five seconds
    gate.open.set()
    await slow
    gate.open.clear()
    _, running = await start(pool, gate)
    with pytest.raises(ParleyError) as caught:
        await pool.run(HashJob(gate.work, deadline=clock.monotonic() + 9))
    assert caught.value.retry_after_s == pytest.approx(10)
    _, waiting = await start(pool, gate, deadline=clock.monotonic() + 11)
    gate.open.set()
    assert await asyncio.gather(running, waiting) == [2, 3]


async def test_cancelling_what_runs_does_not_wait_for_it(pool: HashPool, gate: Gate) -> None:
    job, running = await start(pool, gate)
    await gate.wait_started()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.has_started


async def test_closing_refuses_what_waits_and_what_comes(pool: HashPool, gate: Gate) -> None:
    _, running = await start(pool, gate)
    _, waiting = await start(pool, gate)
    await gate.wait_started()
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(ParleyError) as caught:
        await waiting
    assert caught.value.code is ErrorCode.UNAVAILABLE
    gate.open.set()
    assert await running == 1
    await closing
    with pytest.raises(ParleyError) as caught:
        await pool.run(HashJob(lambda: 1, deadline=LATER))
    assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_a_storm_from_somewhere_keeps_nobody_from_elsewhere_waiting(clock: FakeClock, gate: Gate) -> None:
    pool = HashPool(workers=1, queue_max=10, clock=clock)
    order: list[str] = []

    def job(name: str, source: bytes) -> HashJob[None]:
        return HashJob(lambda: order.append(name), deadline=LATER, source=source)

    _, running = await start(pool, gate)
    await gate.wait_started()
    storm = [asyncio.create_task(pool.run(job(f"storm {n}", b"storm"))) for n in range(15)]
    await asyncio.sleep(0)
    good = asyncio.create_task(pool.run(job("good", b"home")))
    gate.open.set()
    await asyncio.gather(running, good)
    results = await asyncio.gather(*storm, return_exceptions=True)
    pool.close()
    assert order[:2] == ["storm 0", "good"]
    refused = [n for n, result in enumerate(results) if isinstance(result, ParleyError)]
    assert refused == [9, 10, 11, 12, 13, 14]  # the last of the storm gave way when the queue was full
    assert {result.code for result in results if isinstance(result, ParleyError)} == {ErrorCode.RATE_LIMITED}


async def test_who_comes_from_elsewhere_is_not_refused_for_the_length_of_the_queue(
    clock: FakeClock, gate: Gate
) -> None:
    pool = HashPool(workers=1, queue_max=100, clock=clock)
    pool._cost_s = 1.0
    _, running = await start(pool, gate)
    storm = [asyncio.create_task(pool.run(HashJob(gate.work, deadline=LATER, source=b"storm"))) for _ in range(50)]
    await asyncio.sleep(0)
    assert pool.expected_s(b"storm") == 52
    assert pool.expected_s(b"home") == 3
    gate.open.set()
    await asyncio.gather(running, *storm)
    pool.close()
