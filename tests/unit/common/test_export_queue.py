from __future__ import annotations

import threading

from services.common.counters import Counter
from services.common.export_queue import BATCH_MAX, ExportQueue

WAIT_S = 20.0


class Receiver:
    """Takes batches; a test may hold it up, or let it fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.is_failing = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_called = threading.Event()

    def send(self, batch: list[int]) -> int:
        self.is_called.set()
        assert self.may_go_on.wait(WAIT_S)
        self.batches.append(batch)
        return len(batch) if self.is_failing else 0


def make(receiver: Receiver, *, queue_max: int = 10_000, interval_s: float = 3_600.0) -> ExportQueue[int]:
    queue = ExportQueue(
        receiver.send, name="test", sent=Counter(), lost=Counter(), queue_max=queue_max, interval_s=interval_s
    )
    queue.start()
    return queue


def test_what_waits_is_sent_at_the_end_in_order() -> None:
    receiver = Receiver()
    queue = make(receiver)
    for number in range(BATCH_MAX - 1):
        queue.put(number)
    queue.close(WAIT_S)
    assert [number for batch in receiver.batches for number in batch] == list(range(BATCH_MAX - 1))
    assert (queue._sent.value, queue._lost.value) == (BATCH_MAX - 1, 0)


def test_a_full_batch_is_sent_at_once() -> None:
    receiver = Receiver()
    queue = make(receiver)
    for number in range(BATCH_MAX):
        queue.put(number)
    assert receiver.is_called.wait(WAIT_S)
    queue.close(WAIT_S)


def test_a_receiver_that_does_not_take_costs_what_does_not_fit_and_no_time() -> None:
    receiver = Receiver()
    receiver.may_go_on.clear()
    queue = make(receiver, queue_max=100, interval_s=0.001)
    queue.put(0)
    assert receiver.is_called.wait(WAIT_S)  # it holds the first
    for number in range(1, 151):
        queue.put(number)
    assert queue._lost.value == 50
    assert len(queue) == 100
    receiver.may_go_on.set()
    queue.close(WAIT_S)
    assert queue._sent.value == 101


def test_what_cannot_be_sent_is_lost_and_counted() -> None:
    receiver = Receiver()
    receiver.is_failing = True
    queue = make(receiver)
    queue.put(1)
    queue.close(WAIT_S)
    queue.put(2)  # too late
    assert (queue._sent.value, queue._lost.value) == (0, 2)


def test_the_end_does_not_wait_for_a_receiver_that_hangs() -> None:
    receiver = Receiver()
    receiver.may_go_on.clear()
    queue = make(receiver)
    queue.put(1)
    queue.close(0.01)
    assert queue._sent.value == 0
    receiver.may_go_on.set()
