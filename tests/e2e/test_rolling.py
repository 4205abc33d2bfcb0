"""A rolling restart of everything, on PostgreSQL and Redis, while people chat, run commands, come and go."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from client.errors import ClientError
from tests.helpers.many_stack import running_many
from tests.helpers.people import People, fresh
from tests.helpers.stack import FAST_CONFIG, Stack
from tests.helpers.talkers import PASSWORD, Talker, nothing_was_lost_or_doubled, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

RESTARTED_S = 240.0
"""Seven processes, one after the other, on a machine that is busy with tests."""

PAUSE_S = 0.05
CONFIG = f"{FAST_CONFIG}\n[edge]\ntext_rate = 0\ncommand_rate = 0\n"


@pytest.fixture
def many() -> Iterator[Stack]:
    """Two edges and two rooms processes on a PostgreSQL and a Redis."""
    with running_many(CONFIG) as running:
        yield running.stack


class Tally:
    """What was done, and what somebody saw go wrong."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []

    async def of(self, what: str, doing: Awaitable[object]) -> None:
        try:
            await doing
        except ClientError as error:
            self.errors.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.done[what] += 1


async def command(talker: Talker, room_id: str, stop: asyncio.Event, tally: Tally) -> None:
    """Makes rooms and leaves them, reads, and looks who is there."""
    session = talker.session
    while not stop.is_set():
        name = fresh("room")
        await tally.of("create", session.create_room(name))
        for room in [room for room in session.rooms if room.name == name]:
            await tally.of("leave", session.leave_room(room.room_id))
        await tally.of("users", session.list_users(room_id))
        await tally.of("history", session.history(room_id, limit=10))
        await tally.of("rooms", session.list_rooms())
        await tally.of("join", session.join_room(room_id))
        await asyncio.sleep(PAUSE_S)


async def come_and_go(make: Callable[[], Talker], room_id: str, stop: asyncio.Event, tally: Tally) -> None:
    """Somebody new each time: registers, logs in, joins, says a word, logs out, and logs in once more."""
    while not stop.is_set():
        talker = make()
        session = talker.session
        await tally.of("start", session.start())
        await tally.of("register", session.register(talker.name, PASSWORD))
        for _ in range(2):
            await tally.of("login", session.login(talker.name, PASSWORD))
            await tally.of("join", session.join_room(room_id))
            await tally.of("text", session.send_text(room_id, f"{talker.name} was here"))
            await tally.of("logout", session.logout())
        await session.close()
        await asyncio.sleep(PAUSE_S)


async def restart_everything(stack: Stack) -> None:
    before = stack.pids()
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGUSR1)
    async with asyncio.timeout(RESTARTED_S):
        while not any("all processes are restarted" in line for line in stack.output):
            assert not any("given up" in line for line in stack.output), stack.output
            await asyncio.sleep(PAUSE_S)
    assert not set(before.values()) & set(stack.pids().values())


@pytest.mark.timeout(RESTARTED_S + 120)
async def test_nobody_sees_an_error_whatever_they_do(many: Stack, tmp_path: Path) -> None:
    ports = [many.port, many.port + 1]
    async with AsyncExitStack() as exits:
        people = [Talker(many, tmp_path, ports=ports[number % 2 :] + ports[: number % 2]) for number in range(6)]
        for person in people:
            await person.arrive()
        talkers, commanders = people[:4], people[4:]
        talked = (await talkers[0].session.create_room(fresh("room"))).room_id
        visited = (await talkers[0].session.create_room(fresh("room"))).room_id
        for person in people[1:]:
            await person.session.join_room(talked if person in talkers else visited)
        stop, tally = asyncio.Event(), Tally()
        doing = [asyncio.create_task(talker.talk(talked, stop)) for talker in talkers]
        doing += [asyncio.create_task(command(person, visited, stop, tally)) for person in commanders]
        for order in (ports, ports[::-1]):
            make = lambda order=order: Talker(many, tmp_path, ports=order)  # noqa: E731 - the same again and again
            doing.append(asyncio.create_task(come_and_go(make, visited, stop, tally)))
        await restart_everything(many)
        await until(lambda: all(person.session.state == "live" for person in people))
        stop.set()
        await asyncio.gather(*doing)
        assert tally.errors == [], tally.done
        assert min(tally.done[what] for what in ("create", "leave", "users", "history", "rooms", "register")) > 5
        assert min(tally.done[what] for what in ("login", "logout", "text")) > 10
        for person in commanders:
            await person.session.close()
        other = await People(many, exits).person(edge=2)
        await nothing_was_lost_or_doubled(talkers, other, talked)
