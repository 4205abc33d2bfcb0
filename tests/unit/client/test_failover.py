from __future__ import annotations

import pytest

from client.address import Address
from client.errors import ConnectError, TrustError
from client.failover import AnyOf
from client.transport import Transport, memory_pair

PORTS = (1, 2, 3)


class Door:
    def __init__(self, port: int, tried: list[int]) -> None:
        self.port = port
        self.tried = tried
        self.problem: Exception | None = None

    async def connect(self) -> Transport:
        self.tried.append(self.port)
        if self.problem is not None:
            raise self.problem
        return memory_pair()[0]


class World:
    def __init__(self) -> None:
        self.tried: list[int] = []
        self.doors = [Door(port, self.tried) for port in PORTS]
        self.any = AnyOf([(Address("localhost", door.port), door) for door in self.doors])


async def test_each_connection_begins_behind_the_one_before() -> None:
    world = World()
    for _ in range(4):
        await world.any.connect()
    assert world.tried == [1, 2, 3, 1]
    assert world.any.address.port == 1


async def test_who_does_not_answer_is_passed_over() -> None:
    world = World()
    world.doors[0].problem = world.doors[1].problem = ConnectError("refused")
    await world.any.connect()
    await world.any.connect()
    assert world.tried == [1, 2, 3, 1, 2, 3]


async def test_when_nobody_answers_all_reasons_are_given() -> None:
    world = World()
    for door in world.doors:
        door.problem = ConnectError(f"no {door.port}")
    with pytest.raises(ConnectError, match="no 1; no 2; no 3"):
        await world.any.connect()
    assert world.tried == [1, 2, 3]


async def test_before_the_first_connection_somebody_can_be_asked() -> None:
    world = World()
    world.doors[0].problem = TrustError("who is this", may_pin=True)
    with pytest.raises(TrustError):
        await world.any.connect()
    assert world.any.address.port == 1


async def test_later_an_impostor_does_not_keep_out_the_others() -> None:
    world = World()
    await world.any.connect()
    for door in world.doors:
        door.problem = TrustError("who is this")
    with pytest.raises(TrustError):  # nobody is who they should be
        await world.any.connect()
    world.doors[0].problem = ConnectError("refused")  # it may come back
    with pytest.raises(ConnectError):
        await world.any.connect()


def test_without_an_address_there_is_nothing_to_connect_to() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AnyOf([])
