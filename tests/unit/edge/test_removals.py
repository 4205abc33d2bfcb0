from __future__ import annotations

import asyncio
from typing import Any, cast

from services.common.clock import FakeClock
from services.common.counters import Counter
from services.common.errors import ParleyError
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.common.wire.events import Message
from services.common.wire.requests import History
from services.edge.decisions import User
from services.edge.hub import Hub, Subscriber
from services.edge.outbox import Outbox
from services.edge.removals import Removals

AMY = User("u1", "amy", "s1", 0.0)


class Connection:
    def __init__(self) -> None:
        self.user: User | None = AMY
        self.left: list[str] = []

    def leave(self, room_id: str) -> None:
        self.left.append(room_id)


class Rooms:
    def __init__(self) -> None:
        self.answers: list[ErrorCode | None] = []
        self.asked = 0

    async def list_messages(self, user: User, request: History) -> None:
        self.asked += 1
        assert (user, request.room_id, request.limit) == (AMY, "room", 1)
        code = self.answers.pop(0)
        if code is not None:
            raise ParleyError(code, "no")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks = TaskSet()
        self.rooms = Rooms()
        self.hub = Hub(
            wake=lambda: None, wake_feed=lambda: None, number=lambda: 1, delivered=Counter(), send_file=lambda *_: None
        )
        self.removals = Removals(hub=self.hub, rooms=cast("Any", self.rooms), tasks=self.tasks, clock=self.clock)
        self.connection = Connection()
        self.amy = Subscriber(self.connection, Outbox(None, lambda _: None), version=2, user=AMY)
        self.hub.attach(self.amy, "room", epoch="e", last_seq=5)

    async def removed(self, last_seq: int, *answers: ErrorCode | None, user_id: str = "u1") -> list[str]:
        self.rooms.answers = list(answers)
        self.removals.removed("room", user_id, last_seq)
        for _ in range(8):
            await self.clock.advance(0.2)
        await asyncio.sleep(0)
        return self.connection.left


async def test_a_removal_after_the_join_is_certain() -> None:
    world = World()
    world.hub.receive("room", "e", [Message(6, "ben", "hi", 1)], 0.0)
    world.hub.deliver(0.0)
    assert await world.removed(6) == ["room"]
    assert world.rooms.asked == 0


async def test_a_removal_that_may_be_older_than_the_join_is_asked_about() -> None:
    assert await World().removed(5, None) == []
    assert await World().removed(5, ErrorCode.NOT_A_MEMBER) == ["room"]
    assert await World().removed(3, ErrorCode.NO_SUCH_ROOM) == ["room"]


async def test_a_question_is_repeated() -> None:
    assert await World().removed(5, ErrorCode.UNAVAILABLE, ErrorCode.UNAVAILABLE, None) == []


async def test_who_cannot_be_asked_about_is_out_within_a_second() -> None:
    world = World()
    assert await world.removed(5, *[ErrorCode.UNAVAILABLE] * 5) == ["room"]
    assert world.clock.monotonic() < 2


async def test_others_are_left_alone() -> None:
    world = World()
    assert await world.removed(9, user_id="u2") == []
    assert world.rooms.asked == 0


async def test_who_has_gone_meanwhile_is_not_looked_for() -> None:
    world = World()
    world.connection.user = None
    assert await world.removed(5) == []
    world = World()
    world.hub.detach_all(world.amy)
    assert await world.removed(5) == []
