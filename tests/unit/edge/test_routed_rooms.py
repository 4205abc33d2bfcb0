from __future__ import annotations

from typing import Any

import pytest

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.decisions import User
from services.edge.routed_rooms import RoutedRooms
from services.edge.routes import Routes

AMY = User("u1", "amy", "s1", 0.0)
TARGETS = ("a:1", "b:1")


class Backend:
    """Answers every call with its own name, or fails after `slowness_s`."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.name = name
        self.failure: ErrorCode | None = None
        self.slowness_s = 0.0
        self.calls: list[str] = []
        self._clock = clock

    def __getattr__(self, method: str) -> Any:
        async def call(*_: object, **__: object) -> str:
            self.calls.append(method)
            if self.failure is not None:
                await self._clock.advance(self.slowness_s)
                raise ParleyError(self.failure, "no")
            return self.name

        return call


class World:
    def __init__(self) -> None:
        self.routes = Routes(TARGETS)
        clock = FakeClock()
        self.backends = {target: Backend(target, clock) for target in TARGETS}
        self.rooms: Any = RoutedRooms(self.backends, self.routes, clock)  # type: ignore[arg-type]

    def owner_of(self, room: str) -> Backend:
        return self.backends[self.routes.owner(room)]


async def test_a_call_goes_to_the_instance_of_its_room() -> None:
    world = World()
    for number in range(20):
        room = f"room{number}"
        assert await world.rooms.list_members(AMY, room) == world.owner_of(room).name


async def test_an_instance_that_is_gone_is_not_asked() -> None:
    world = World()
    world.routes.set_live("b:1", True)
    for number in range(20):
        assert await world.rooms.join_room(AMY, f"room{number}", exclusive=False) == "b:1"
    assert not world.backends["a:1"].calls


async def test_what_may_be_repeated_is_asked_of_the_other_once() -> None:
    world = World()
    world.owner_of("room1").failure = ErrorCode.UNAVAILABLE
    answer = await world.rooms.join_room(AMY, "room1", exclusive=False)
    assert answer != world.owner_of("room1").name
    for backend in world.backends.values():
        backend.failure = ErrorCode.UNAVAILABLE
        backend.calls.clear()
    with pytest.raises(ParleyError):
        await world.rooms.join_room(AMY, "room1", exclusive=False)
    assert [len(backend.calls) for backend in world.backends.values()] == [1, 1]


@pytest.mark.parametrize(
    ("method", "code", "slowness_s"),
    [
        ("leave_room", ErrorCode.UNAVAILABLE, 0.0),  # would be answered with "not a member" where it had worked
        ("join_room", ErrorCode.NO_SUCH_ROOM, 0.0),
        ("join_room", ErrorCode.UNAVAILABLE, 5.0),
    ],
)
async def test_nothing_else_is(method: str, code: ErrorCode, slowness_s: float) -> None:
    world = World()
    owner = world.owner_of("room1")
    owner.failure, owner.slowness_s = code, slowness_s
    more = {"exclusive": False} if method == "join_room" else {}
    with pytest.raises(ParleyError):
        await getattr(world.rooms, method)(AMY, "room1", **more)
    assert sum(len(backend.calls) for backend in world.backends.values()) == 1
