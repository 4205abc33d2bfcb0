"""Everybody who talks in a run, the rooms that they talk in, and the audits and probes at its end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder import habits
from tests.chaos.recorder.board import PASSWORD, Board, Door
from tests.chaos.recorder.cabinet import Cabinet
from tests.chaos.recorder.guest import Guest
from tests.chaos.recorder.library import LibraryPerson
from tests.chaos.recorder.line import Line, RefusedError
from tests.chaos.recorder.mailbox import identify
from tests.chaos.recorder.person import Person
from tests.chaos.recorder.wire import Frame, LostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.trust import Trust

PAGE = 200
POLL_S = 0.05
TRIES_S = 0.5


class Town:
    """People in rooms. `doors` lead to the edges themselves, past all proxies."""

    def __init__(self, board: Board, doors: list[Door], seed: int) -> None:
        self.board = board
        self.people: list[Person] = []
        self.library_people: list[LibraryPerson] = []
        self.guests: list[Guest] = []
        self.doors = doors
        self._dice = random.Random(f"{seed}:town")
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._founder = f"{board.prefix}-founder"
        self._probes = 0
        self._doing = ""  # for whoever must know where it got stuck

    async def found(self, rooms: int) -> None:
        """Makes the rooms. Raises LostError, RefusedError."""
        async with self._visit(self.doors[0], self._founder, register=True) as line:
            for number in range(rooms):
                room = await line.ask("create_room", {"name": f"{self.board.prefix} {number}"})
                self.board.rooms.append(room["room_id"])

    async def settle(
        self, people: int, talkers: int, library_people: int, guests: int, trust: Trust, *, deadline_s: float
    ) -> None:
        """Everybody moves in, and this returns when all of them are members everywhere."""
        for kind, count, habit in (("person", people, habits.act), ("talker", talkers, habits.stream)):
            for number in range(count):
                self.people.append(Person(f"{self.board.prefix}-{kind}{number}", self.board, self._seed, habit))
        for number in range(guests):
            self.guests.append(Guest(f"{self.board.prefix}-guest{number}", self.board, self._seed))
        for number in range(library_people):
            name = f"{self.board.prefix}-library{number}"
            self.library_people.append(LibraryPerson(name, self.board, self._seed, trust))
        for each in (*self.people, *self.library_people, *self.guests):
            self._tasks.append(asyncio.create_task(each.live(), name=each.name))
        try:
            async with asyncio.timeout(deadline_s):
                while any(self._outside()):
                    self.check_tasks()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TimeoutError(", ".join(self._outside())) from None

    def _outside(self) -> Iterator[str]:
        """Who has not joined every room yet, and where they stand."""
        for each in self._everybody():
            if missing := [seat for seat in each.seats.values() if not seat.epoch]:
                yield f"{each.name} ({len(missing)} rooms, {missing[0].standing.name.lower()})"

    def _everybody(self) -> Iterator[Person | LibraryPerson]:
        yield from self.people
        yield from self.library_people

    def check_tasks(self) -> None:
        """Raises what a task of ours died of: that is a mistake in this program."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def until_settled(self, timeout_s: float) -> bool:
        """Waits until everything is answered and has arrived; whether it did in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(each.is_settled for each in self._everybody()):
                    self.check_tasks()
                    await asyncio.sleep(POLL_S)
                return True
        return False

    async def disperse(self) -> None:
        """Everybody goes home."""
        for each in (*self._everybody(), *self.guests):
            each.is_stopping = True
        for person in self.people:
            person.line.hang_up("the end")
        done, late = await asyncio.wait(self._tasks, timeout=10)
        for task in late:
            task.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)

    # The end

    async def probe(self, deadline_s: float) -> None:
        """A new user on each edge logs in, makes a room, says something and hears it."""
        for door in self.doors:
            why = await self._until_it_works(self._probe, door, deadline_s)
            self.board.log.write(e.Probe, edge=door.edge, passed=not why, why=why)

    async def _until_it_works(self, attempt: Callable[[Door], object], door: Door, deadline_s: float) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await attempt(door)  # type: ignore[misc]
                return ""
            except (LostError, RefusedError, TimeoutError) as error:
                if loop.time() + TRIES_S > deadline:
                    return f"{error!r} in {self._doing}"
                await asyncio.sleep(TRIES_S)

    async def _probe(self, door: Door) -> None:
        self._probes += 1
        name = f"{self.board.prefix}-new{self._probes}"
        heard = asyncio.Event()

        def hear(frame: Frame) -> None:
            if frame["type"] == "messages" and frame["data"]["messages"][-1]["text"] == name:
                heard.set()

        async with self._visit(door, name, register=True, on_event=hear) as line:
            self._doing = "a new room, and a text to it"
            room = await line.ask("create_room", {"name": name})
            await line.ask("text_message", {"text": name}, room["room_id"])
            await heard.wait()

    async def audit(self, deadline_s: float) -> None:
        """Reads every room's log and files through each edge; one that cannot show them does not work (I12)."""
        for door in self.doors:
            why = await self._until_it_works(self._audit, door, deadline_s)
            if why:
                self.board.log.write(e.Probe, edge=door.edge, passed=False, why=f"cannot be audited: {why}")

    async def _audit(self, door: Door) -> None:
        log = self.board.log
        pages: list[tuple[str, Frame]] = []
        cabinet = Cabinet(self._founder, self.board, self._dice)
        async with self._visit(door, self._founder, on_event=cabinet.on_event, on_chunk=cabinet.on_chunk) as line:
            for room in self.board.rooms:
                after, more = 0, True
                while more:
                    self._doing = f"the history of {room} after {after}"
                    page = await line.ask("history", {"after": after, "limit": PAGE}, room)
                    pages.append((room, page))
                    more = page["more"]
                    after = page["messages"][-1]["seq"] if page["messages"] else after
            for file in self.board.files.values():
                self._doing = f"file {file.id} of {file.room}"
                await cabinet.fetch_one(line, file)
        for room, page in pages:
            entries = [
                (one["seq"], *identify(one["text"], one.get("file")), one["username"]) for one in page["messages"]
            ]
            log.write(e.Audit, source=door.edge, room=room, epoch=page["epoch"], entries=entries)

    @contextlib.asynccontextmanager
    async def _visit(
        self,
        door: Door,
        name: str,
        *,
        register: bool = False,
        on_event: Callable[[Frame], object] = lambda _: None,
        on_chunk: Callable[[bytes], None] = lambda _: None,
    ):  # type: ignore[no-untyped-def]
        """A connection for a moment."""
        line = Line(on_event, lambda _: None, on_chunk)
        try:
            self._doing = f"a login as {name}"
            await line.open(door.address, self.board.trust)
            credentials = {"username": name, "password": PASSWORD}
            if register:
                with contextlib.suppress(RefusedError):
                    await line.ask("register_request", credentials)
            await line.ask("auth_request", {**credentials, "takeover": True})
            yield line
        finally:
            line.hang_up("done")
