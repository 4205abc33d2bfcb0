"""A rooms service without gRPC: the real log, store and presence on a database of its own, with a clock to move.

async with rooms_world(tmp_path) as world:
    room = await world.create("alice", "lobby")
    outcome = await world.say("alice", room, "hello")
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.db import Database, PostgresAccess, migrate
from services.common.tasks import TaskSet
from services.rooms import directory as directory_module
from services.rooms.attendance import Attendance
from services.rooms.bus import LocalBus
from services.rooms.counts import RoomsCounts
from services.rooms.directory import Directory, Quotas
from services.rooms.log import MessageLog, read_after
from services.rooms.messages import Message, Outcome, Publish, Run
from services.rooms.presence import Presence, Session
from services.rooms.repair import Repair
from services.rooms.store import RoomRecord, find_room
from services.rooms.stream import Stream
from services.rooms.streams import Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from services.rooms.bus import Bus

MIGRATIONS = Path(directory_module.__file__).with_name("migrations")
ACCESS = PostgresAccess(schema="rooms")
_numbers = itertools.count(1)


def user_id(name: str) -> str:
    return f"id{name}"


def session(name: str, *, boot_id: str = "boot-1", number: int = 1) -> Session:
    return Session(f"session-{name}-{number}", user_id(name), name, boot_id)


def publish(name: str, room_id: str, text: str, key: str | None = None) -> Publish:
    number = next(_numbers)
    return Publish(number, room_id, user_id(name), name, text, f"e{number}" if key is None else key)


async def until(condition: Callable[[], object]) -> None:
    """Gives the other tasks turns until something has become true."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("it did not happen")


@dataclass
class FakePiece:
    """A run that is sent as itself, with a size that a test can reckon with: one byte a character."""

    run: Run
    payload: Any = None

    @property
    def room_id(self) -> str:
        return self.run.room_id

    @property
    def epoch(self) -> str:
        return self.run.epoch

    @property
    def first_seq(self) -> int:
        return self.run.first_seq

    @property
    def last_seq(self) -> int:
        return self.run.last_seq

    @property
    def size(self) -> int:
        return sum(len(message.text) for message in self.run.messages)

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.run.messages]

    def after(self, seq: int) -> FakePiece:
        assert seq < self.last_seq
        messages = [message for message in self.run.messages if message.seq > seq]
        return FakePiece(Run(self.run.room_id, self.run.epoch, messages))


@dataclass
class RoomsWorld:
    """Everything of one instance."""

    database: Database
    clock: FakeClock
    bus: Bus
    counts: RoomsCounts
    log: MessageLog
    attendance: Attendance
    directory: Directory
    streams: Streams
    tasks: TaskSet
    events: list[Any] = field(default_factory=list)

    async def create(self, name: str, room: str, *, is_private: bool = False, topic: str = "") -> RoomRecord:
        return await self.directory.create_room(
            session(name), name=room, topic=topic, is_private=is_private, is_exclusive=False
        )

    async def join(self, name: str, room: RoomRecord) -> RoomRecord:
        return await self.directory.join_room(session(name), room.room_id, is_exclusive=False)

    async def leave(self, name: str, room: RoomRecord) -> str:
        return await self.directory.leave_room(session(name), room.room_id)

    async def append(self, *publishes: Publish) -> list[Outcome]:
        """Appends in one call and returns the outcomes."""
        answered: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        gathered: list[Outcome] = []

        def answer(part: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
            assert outcomes is not None
            assert len(part) == len(outcomes)
            gathered.extend(outcomes)
            if len(gathered) == len(publishes):
                answered.set_result(gathered)

        self.log.append(publishes, answer)
        return await answered

    async def say(self, name: str, room: RoomRecord, text: str, key: str | None = None) -> Outcome:
        return (await self.append(publish(name, room.room_id, text, key)))[0]

    async def stored(self, room: RoomRecord) -> list[Message]:
        """The whole log of a room."""
        return await self.database.read(lambda c: read_after(c, room.number, 0, 2**62, 1_000_000))

    async def room(self, room: RoomRecord) -> RoomRecord:
        """The room as it is now."""
        return await self.database.read(lambda c: find_room(c, room.room_id, None))

    def repair(self) -> Repair:
        """What puts right what the bus loses."""
        return Repair(
            self.database,
            log=self.log,
            streams=self.streams,
            attendance=self.attendance,
            bus=self.bus,
            clock=self.clock,
            counts=self.counts,
        )

    def stream(self, *, bytes_max: int = 1_000_000, boot_id: str = "boot-1") -> Stream:
        """An open stream that sends its pieces as they are, and catches up by itself."""
        stream = Stream(
            boot_id, log=self.log, encode=FakePiece, clock=self.clock, counts=self.counts, bytes_max=bytes_max
        )
        self.streams.add(stream)
        self.tasks.spawn(stream.catch_up(), name="catch-up")
        return stream


@contextlib.asynccontextmanager
async def rooms_world(
    folder: Path,
    *,
    pending_max: int = 1_000,
    owned_max: int = 100,
    joined_max: int = 500,
    crowd: int = 100,
    url: str = "",
    bus: Bus | None = None,
    **options: Any,
) -> AsyncIterator[RoomsWorld]:
    """`url` is of PostgreSQL, or left out for a file; `bus` is one between instances; `options` go to Database."""
    url = url or f"sqlite:///{folder / 'rooms.db'}"
    migrate(url, MIGRATIONS, access=ACCESS)
    counts = RoomsCounts(Counters())
    database = Database(url, access=ACCESS, on_commit=counts.on_commit, **options)
    clock = FakeClock()
    bus = bus or LocalBus()
    tasks = TaskSet()
    attendance = Attendance(Presence(crowd=crowd), bus=bus, clock=clock)
    log = MessageLog(database, bus=bus, clock=clock, counts=counts, pending_max=pending_max)
    directory = Directory(
        database,
        attendance=attendance,
        bus=bus,
        clock=clock,
        quotas=Quotas(owned_max=owned_max, joined_max=joined_max),
        counts=counts,
    )
    streams = Streams(bus=bus, encode=FakePiece)
    world = RoomsWorld(database, clock, bus, counts, log, attendance, directory, streams, tasks)
    bus.subscribe(world.events.append)
    try:
        yield world
    finally:
        await tasks.close()
        await database.close()
