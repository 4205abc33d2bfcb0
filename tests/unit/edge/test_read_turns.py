from __future__ import annotations

from collections.abc import Callable

from services.edge.read_turns import BYTES_PER_TURN, READ_COST, ReadTurns


class World:
    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.turns = ReadTurns(self.scheduled.append)
        self.read: list[int] = []

    def reader(self, number: int, size: int) -> Callable[[], None]:
        def read() -> None:
            self.read.append(number)
            self.turns.spend(size)

        return read

    def turn(self) -> None:
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for one in scheduled:
            one()


def test_a_turn_reads_so_much_and_the_next_one_as_much_again() -> None:
    world = World()
    world.turns.spend(BYTES_PER_TURN - READ_COST - 1)
    assert not world.turns.is_over
    world.turns.spend(1)
    assert world.turns.is_over
    world.turn()
    assert not world.turns.is_over


def test_small_reads_count_too() -> None:
    world = World()
    count = 0
    while not world.turns.is_over:
        world.turns.spend(1)
        count += 1
    assert count <= BYTES_PER_TURN // READ_COST


def test_who_waits_is_read_in_order_and_before_others() -> None:
    world = World()
    world.turns.spend(BYTES_PER_TURN)
    for number in range(10):
        world.turns.wait(world.reader(number, BYTES_PER_TURN // 4))
    world.turn()
    assert world.read == [0, 1, 2, 3]
    assert world.turns.is_over
    world.turn()
    world.turn()
    assert world.read == list(range(10))
    assert world.turns.waiting_count == 0
    world.turn()
    assert world.scheduled == []


def test_where_nothing_is_read_nothing_is_scheduled() -> None:
    world = World()
    assert world.scheduled == []
