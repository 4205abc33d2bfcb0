from __future__ import annotations

from collections.abc import Callable

import pytest

from services.common.counters import Counter
from services.edge.flusher import Flusher


class Sender:
    def __init__(self, size: int) -> None:
        self.size = size
        self.flushes = 0

    def flush(self) -> tuple[int, int]:
        self.flushes += 1
        return 1, self.size


class World:
    def __init__(self) -> None:
        self.turns: list[Callable[[], None]] = []
        self.frames, self.bytes = Counter(), Counter()
        self.deliver: Callable[[], object] = lambda: False
        self.flusher = Flusher(
            call_soon=self.turns.append, deliver=self._deliver, frames=self.frames, bytes_=self.bytes
        )

    def _deliver(self) -> bool:
        return self.deliver() is True

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for one in turns:
            one()


def test_a_turn_flushes_everybody_once() -> None:
    world = World()
    one, two = Sender(10), Sender(5)
    world.flusher.mark(one)
    world.flusher.mark(two)
    world.flusher.wake()
    assert len(world.turns) == 1
    world.turn()
    assert (one.flushes, two.flushes) == (1, 1)
    assert (world.frames.value, world.bytes.value) == (2, 15)
    assert world.turns == []


def test_what_is_delivered_is_written_in_the_same_turn() -> None:
    world = World()
    late = Sender(1)
    world.deliver = lambda: world.flusher.mark(late)
    world.flusher.wake()
    world.turn()
    assert late.flushes == 1


def test_a_failing_delivery_does_not_stop_the_turns_after_it() -> None:
    world = World()

    def fail() -> None:
        raise ZeroDivisionError

    world.deliver = fail
    world.flusher.wake()
    with pytest.raises(ZeroDivisionError):
        world.turn()
    world.deliver = lambda: False
    sender = Sender(1)
    world.flusher.mark(sender)
    world.turn()
    assert sender.flushes == 1


def test_there_is_another_turn_while_there_is_more_to_deliver() -> None:
    world = World()
    left = [True, True, False]
    world.deliver = lambda: left.pop(0)
    world.flusher.wake()
    for _ in range(3):
        assert len(world.turns) == 1
        world.turn()
    assert world.turns == []
