"""The sweep: kills rooms at the first, the second, … write or sync of a send, until the send gets through.

What a process leaves behind when it dies before its n-th call is what it leaves when it dies after the one before; so
only the last call needs both. After each death the log is read from a copy of the disk, rooms starts anew on what there
is, and the same send is made again under the same keys: it must come to the same place, and whatever was acknowledged
before must be where it was.

    python -m tests.chaos.sweep [--send text|batch|file|all] [--calls N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio
from parley.rooms.v1 import rooms_pb2

from tests.chaos.shim.control import Control, When
from tests.helpers.file_calls import FileCalls
from tests.helpers.rooms_process import rooms_process
from tests.helpers.served_rooms import Edge

ROOMS: Final = ("tea", "coffee", "water")
BATCH: Final = 24
DIED_S: Final = 20.0
CALLS_MAX: Final = 400  # a send makes some dozens of calls; more means that the count does not work

Place = tuple[str, str]  # room's id, key or file's name
Entry = tuple[int, str]  # seq, text or file's hash
Act = Callable[[Edge, list[Place]], Awaitable[None]]


class SweepError(Exception):
    """The promise was broken; the message says how."""


@dataclass
class Death:
    """One send, at whose call number `call` rooms died, or did not."""

    send: str
    call: int
    places: list[Place]
    has_died: bool = False
    answered: int = 0  # acknowledgements that came all the same
    stored: dict[Place, Entry] = field(default_factory=dict)  # parts of the send that the disk had afterwards
    again_s: float = 0.0  # until the same send was acknowledged by the next rooms process


@dataclass
class Sweep:
    """The folder of one rooms process, and everything that it has acknowledged."""

    folder: Path
    control: Control
    acknowledged: dict[Place, Entry] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)  # that were asked for
    rooms: list[rooms_pb2.Room] = field(default_factory=list)

    async def found(self) -> None:
        """Makes the rooms, with something in them."""
        async with self._process() as (_, edge):
            self.rooms = [await edge.create("alice", name) for name in ROOMS]
            places = self.compose("text", 0) + self.compose("batch", 0)
            await self._say(edge, places)

    @contextlib.asynccontextmanager
    async def _process(self) -> AsyncIterator[tuple[subprocess.Popen[bytes], Edge]]:
        self.control.set("kill_countdown", 0)
        async with rooms_process(self.folder, environment=self.control.environment) as started:
            yield started

    def compose(self, send: str, call: int) -> list[Place]:
        """What is sent at this call number: new texts, or a new file."""
        if send == "text":
            places = [(self.rooms[0].room_id, f"text-{call}")]
        elif send == "batch":
            places = [(self.rooms[part % len(self.rooms)].room_id, f"batch-{call}-{part}") for part in range(BATCH)]
        else:
            places = [(self.rooms[0].room_id, f"file-{call}")]
        self.texts |= {place: f"text of {place[1]}" for place in places}
        return places

    async def run(self, send: str, *, calls_max: int = CALLS_MAX) -> list[Death]:
        """Counts up until the send gets through; the deaths. Raises SweepError."""
        act = self._upload if send == "file" else self._say
        deaths: list[Death] = []
        pending: Death | None = None
        call, when = 1, When.BEFORE
        while call <= calls_max:
            async with self._process() as (process, edge):
                await edge.open("alice")
                if pending is not None:
                    await self._again(act, edge, pending)
                death = Death(send, call, self.compose(send, call if when is When.BEFORE else -call))
                deaths.append(death)
                await self._once(act, edge, process, death, when)
            self._look(death)
            pending = death
            if death.has_died and when is When.BEFORE:
                call += 1
            elif call > 1 and when is When.BEFORE:
                call, when = call - 1, When.AFTER  # the last call, and what comes after it
            else:
                break
        async with self._process() as (_, edge):
            await edge.open("alice")
            await self._again(act, edge, deaths[-1])
        self.audit()
        return deaths

    async def _once(self, act: Act, edge: Edge, process: subprocess.Popen[bytes], death: Death, when: When) -> None:
        """Sends, and lets rooms die at the call."""
        self.control.set("kill_when", when)
        self.control.set("kill_countdown", death.call)
        with contextlib.suppress(AssertionError, TimeoutError, grpc.aio.AioRpcError):  # it breaks at any call
            await act(edge, death.places)
        death.answered = sum(place in self.acknowledged for place in death.places)
        death.has_died = self.control.get("kill_countdown") <= 0
        self.control.set("kill_countdown", 0)
        if death.has_died:
            await asyncio.wait_for(asyncio.to_thread(process.wait), DIED_S)
        elif death.answered < len(death.places):
            raise SweepError(f"{death.send}: rooms lives and has not answered")

    def _look(self, death: Death) -> None:
        """What has come to the disk: a commit, or nothing of it."""
        stored = self.audit()
        death.stored = {place: stored[place] for place in death.places if place in stored}
        if death.send == "text" and len(death.stored) not in {0, len(death.places)}:
            raise SweepError(f"call {death.call}: {len(death.stored)} of {len(death.places)} texts of one commit")

    async def _again(self, act: Act, edge: Edge, death: Death) -> None:
        """The same send under the same keys, with a new rooms process: it is answered, with what is stored."""
        began = time.monotonic()
        await act(edge, death.places)
        death.again_s = time.monotonic() - began
        for place, entry in death.stored.items():
            if self.acknowledged[place] != entry:
                raise SweepError(f"{place} was stored as {entry}, and became {self.acknowledged[place]}")

    async def _say(self, edge: Edge, places: list[Place]) -> None:
        async with edge.attach() as feed:
            numbers: dict[int, Place] = {}
            by_room: dict[str, list[Place]] = {}
            for place in places:
                by_room.setdefault(place[0], []).append(place)
            for room_id, group in by_room.items():
                sent = await feed.publish(
                    "alice", room_id, *(self.texts[place] for place in group), keys=[key for _, key in group]
                )
                numbers |= dict(zip(sent, group, strict=True))
            try:
                await feed.until(lambda: feed.results.keys() >= numbers.keys())
            finally:
                for number, place in numbers.items():
                    result = feed.results.get(number)
                    if result is not None and not result.error_code:
                        self._note(place, result.seq)

    async def _upload(self, edge: Edge, places: list[Place]) -> None:
        [place] = places
        data = self.texts[place].encode() * 100
        files = FileCalls(edge.channel)
        listed = [file for file in (await files.list("alice", place[0])).files if file.file.name == place[1]]
        if listed:  # it was posted, and only the answer was lost
            self._note(place, listed[0].seq)
            return
        offered = await files.offer("alice", place[0], data, name=place[1])
        uploading = await files.upload("alice", offered.file_id, offered.offset)
        uploading.size = len(data)
        done = await uploading.finish(data, offered.offset)
        self._note(place, done.seq)
        fetched = (await files.fetch("alice", offered.file_id))[1]
        if fetched != data:
            raise SweepError(f"{place} was acknowledged and comes as {len(fetched)} other bytes")

    def _note(self, place: Place, seq: int) -> None:
        text = self.texts[place]
        is_file = place[1].startswith("file")
        entry = (seq, hashlib.sha256(text.encode() * 100).hexdigest() if is_file else text)
        if self.acknowledged.setdefault(place, entry) != entry:
            raise SweepError(f"{place} was {self.acknowledged[place]}, and is {entry} now")

    def audit(self) -> dict[Place, Entry]:
        """What the disk has, from a copy of it; raises SweepError where that contradicts what was acknowledged."""
        stored: dict[Place, Entry] = {}
        with tempfile.TemporaryDirectory(prefix="parley-sweep-") as copy:
            for path in (self.folder / "data").glob("rooms.db*"):
                shutil.copy(path, copy)
            with contextlib.closing(sqlite3.connect(Path(copy) / "rooms.db")) as connection:
                for number, room_id, last_seq in connection.execute("SELECT number, room_id, last_seq FROM rooms"):
                    rows = connection.execute(MESSAGES, (number,)).fetchall()
                    if [row[0] for row in rows] != list(range(1, last_seq + 1)):
                        raise SweepError(f"the log of {room_id} has a gap, or more or less than {last_seq} messages")
                    for seq, key, text, name, sha256 in rows:
                        place = (room_id, name or key)
                        if place in stored:
                            raise SweepError(f"{place} is stored twice")
                        stored[place] = (seq, sha256 or text)
        for place, entry in self.acknowledged.items():
            if stored.get(place) != entry:
                raise SweepError(f"{place} was acknowledged as {entry}; the disk has {stored.get(place)}")
        for place in stored:
            if place not in self.texts:
                raise SweepError(f"nobody sent {place}")
        return stored


MESSAGES: Final = (
    "SELECT m.seq, m.key, m.text, f.name, f.sha256 FROM messages m"
    " LEFT JOIN files f ON f.room_number = m.room_number AND f.seq = m.seq WHERE m.room_number = ? ORDER BY m.seq"
)

SENDS: Final = ("text", "batch", "file")


def summary(send: str, deaths: list[Death]) -> str:
    """One line about a sweep."""
    died = [death for death in deaths if death.has_died]
    nothing = sum(not death.stored for death in died)
    whole = sum(len(death.stored) == len(death.places) for death in died)
    return (
        f"{send}: killed at {len(died)} points: {nothing} times nothing was stored, {whole} times all of it, "
        f"{len(died) - nothing - whole} times a part; {sum(death.answered > 0 for death in died)} times it had been "
        f"acknowledged; nothing was lost, and nothing came twice"
    )


async def sweep_all(sends: Sequence[str], calls: int, say: Callable[[str], Any]) -> None:
    """Sweeps one after the other in a folder of its own. Raises SweepError."""
    with tempfile.TemporaryDirectory(prefix="parley-sweep-") as folder, Control(Path(folder)) as control:
        sweep = Sweep(Path(folder), control)
        await sweep.found()
        for send in sends:
            say(summary(send, await sweep.run(send, calls_max=calls)))


def main(argv: Sequence[str] | None = None) -> int:
    """0 where nothing was lost; 1 where something was."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.sweep", description=__doc__)
    parser.add_argument("--send", choices=(*SENDS, "all"), default="all", help="what is sent (all)")
    parser.add_argument(
        "--calls", type=int, default=CALLS_MAX, metavar="N", help="at most so many (until it is through)"
    )
    arguments = parser.parse_args(argv)
    sends = SENDS if arguments.send == "all" else (arguments.send,)
    try:
        asyncio.run(sweep_all(sends, arguments.calls, lambda line: print(line, flush=True)))
    except SweepError as error:
        print(f"BROKEN: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
