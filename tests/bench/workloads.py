"""The workloads: each takes a server and gives figures by name."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from tests.bench.link import MARKER, Link, make_text
from tests.bench.server import Server

Figures = dict[str, float]

WARM_UP_S = 1.0
CONNECTING_AT_ONCE = 32


async def connect_all(server: Server, users: list[str], *, at_once: int = CONNECTING_AT_ONCE) -> list[Link]:
    """Logs all users in, a bounded number at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(user: str) -> Link:
        async with slots:
            return await server.open(user)

    return list(await asyncio.gather(*(one(user) for user in users)))


def close_all(links: list[Link]) -> None:
    for link in links:
        link.abort()


LAG_WINDOWS = 16
"""How many windows the slowest deliveries may lie behind what is confirmed, so that buffers do not grow for ever."""
WATCHED_SHARE = 10
"""One in so many members of a room is counted at once where the others are counted afterwards."""


@dataclass
class Room:
    """A room whose sender keeps a number of messages in flight: sent, and not yet confirmed to it.

    What confirms is what the protocol has: an acknowledgement, the sender's own echo, or else a member's delivery.
    A sender that reads many confirmations at once sends as many new messages in one write.
    """

    server: Server
    name: str
    sender: Link
    members: list[Link]
    window: int = 0
    sent: int = 0
    delivered: int = 0
    confirmed: int = 0
    stamps: list[int] | None = None
    _per_message: int = field(init=False)
    _kept: list[Link] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._per_message = self._served(self.members)
        for link in self.members:
            link.count(self._on_delivered, self.stamps)
        witness = self._witness()
        witness.count(
            self._on_delivered if witness in self.members else (lambda _: None),
            self.stamps,
            self._on_confirmed,
            self.server.confirmation or MARKER,
        )

    def _served(self, members: list[Link]) -> int:
        """How many of the members get a message."""
        return len(members) - (self.sender in members and not self.server.echoes)

    def _witness(self) -> Link:
        """Who is told that a message was taken."""
        return self.sender if self.server.confirmation or self.server.echoes else self.members[-1]

    def keep_most(self) -> None:
        """Before the first message: what most members get is kept, and counted by `count_kept`.

        The others show how far the deliveries are.
        """
        watched = [self.sender, self._witness(), *self.members[: max(1, len(self.members) // WATCHED_SHARE)]]
        self._kept = [link for link in self.members if link not in watched]
        self._per_message = self._served([link for link in self.members if link in watched])
        for link in self._kept:
            link.keep()

    def mark(self) -> tuple[int, list[int]]:
        """A moment: the deliveries that were counted up to now, and the positions in what is kept."""
        return self.delivered, [link.kept() for link in self._kept]

    def count_kept(self, *marks: tuple[int, list[int]]) -> list[int]:
        """Counts what is kept, and from now on at once; returns the deliveries up to each of the moments."""
        totals = [delivered for delivered, _ in marks]
        for index, link in enumerate(self._kept):
            counts = link.count_kept(*(positions[index] for _, positions in marks))
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
        self._per_message, self._kept = self._served(self.members), []
        return totals

    def _on_delivered(self, count: int) -> None:
        self.delivered += count
        if self.window and self.sent - self.confirmed < self.window:
            self.fill()

    def _on_confirmed(self, count: int) -> None:
        self.confirmed += count
        if self.window:
            self.fill()

    def fill(self) -> None:
        """Sends until the window is full."""
        missing = self.window - (self.sent - self.confirmed)
        if missing > 0 and self.outstanding <= self.window * LAG_WINDOWS * self._per_message:
            now = time.monotonic_ns()
            self.send(*(make_text(now) for _ in range(missing)))

    def send(self, *texts: bytes) -> None:
        self.sent += len(texts)
        self.sender.write(b"".join([self.server.publish(self.sender, self.name, text) for text in texts]))

    @property
    def outstanding(self) -> int:
        return self.sent * self._per_message - self.delivered


async def make_rooms(server: Server, count: int, size: int, *, stamps: list[int] | None = None) -> list[Room]:
    """Rooms of `size` members each, all connected and joined."""
    rooms = []
    for number in range(count):
        name = f"room{number}x{size}"
        members = await connect_all(server, [f"u{number}n{index}" for index in range(size)])
        for link in members:
            await server.join(link, name)
        sender = members[0] if server.sends_as_member else await server.open(f"s{number:04}")
        rooms.append((name, sender, members))
    await asyncio.sleep(0.3)
    return [Room(server, name, sender, members, stamps=stamps) for name, sender, members in rooms]


async def drained(rooms: list[Room], timeout: float = 30.0) -> int:
    """Stops sending and waits for the rest; returns the deliveries that never came."""
    for room in rooms:
        room.window = 0
    deadline = time.monotonic() + timeout
    while any(room.outstanding > 0 for room in rooms) and time.monotonic() < deadline:  # noqa: ASYNC110 - an event for each delivery is load
        await asyncio.sleep(0.02)
    return sum(room.outstanding for room in rooms)


async def closed_loop(server: Server, seconds: float, *, count: int, size: int, window: int) -> Figures:
    """Each room keeps `window` messages in flight; figures are per CPU-second of the server.

    What comes is counted afterwards for most members, so that the server does not wait for the driver.
    """
    rooms = await make_rooms(server, count, size)
    for room in rooms:
        room.keep_most()
        room.window = window
        room.fill()
    await asyncio.sleep(WARM_UP_S)
    cpu, own, wall = server.cpu(), time.process_time(), time.monotonic()
    begin, sent = [room.mark() for room in rooms], sum(room.sent for room in rooms)
    async with server.measured():
        await asyncio.sleep(seconds)
    cpu, own, wall = server.cpu() - cpu, time.process_time() - own, time.monotonic() - wall
    end = [room.mark() for room in rooms]
    sent = sum(room.sent for room in rooms) - sent
    delivered = 0
    for room, *marks in zip(rooms, begin, end, strict=True):
        room.window = 0
        before, after = room.count_kept(*marks)
        delivered += after - before
    lost = await drained(rooms)
    for room in rooms:
        close_all([*room.members, room.sender])
    return {
        "deliveries_per_cpu_s": delivered / cpu,
        "messages_per_cpu_s": sent / cpu,
        "deliveries_per_s": delivered / wall,
        "messages_per_s": sent / wall,
        "server_busy": cpu / wall,
        "driver_busy": own / wall,
        "lost": lost,
    }


async def paced(server: Server, seconds: float, *, count: int, size: int, rate: float) -> Figures:
    """Messages at a fixed rate over all rooms; figures are latencies from the send to each delivery."""
    stamps: list[int] = []
    rooms = await make_rooms(server, count, size, stamps=stamps)
    begin = time.monotonic()
    own, cpu = time.process_time(), server.cpu()
    number = 0
    async with server.measured():
        while (now := time.monotonic()) < begin + seconds:
            while number < (now - begin) * rate:
                rooms[number % count].send(make_text(time.monotonic_ns()))
                number += 1
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
    own, cpu = time.process_time() - own, server.cpu() - cpu
    lost = await drained(rooms)
    for room in rooms:
        close_all([*room.members, room.sender])
    stamps.sort()

    def percentile(share: float) -> float:
        return stamps[min(len(stamps) - 1, int(len(stamps) * share))] / 1e6

    return {
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
        "max_ms": stamps[-1] / 1e6,
        "server_busy": cpu / seconds,
        "driver_busy": own / seconds,
        "lost": lost,
    }


async def idle(server: Server, seconds: float, *, count: int) -> Figures:
    """Memory that a connection takes which is logged in and does nothing."""
    warm = await connect_all(server, [f"w{number:04}" for number in range(50)])
    before = server.memory()
    links = await connect_all(server, [f"i{number:04}" for number in range(count)])
    await asyncio.sleep(min(seconds, 2.0))
    after = server.memory()
    cpu = server.cpu()
    async with server.measured():
        await asyncio.sleep(seconds)
    cpu = server.cpu() - cpu
    alive = sum(not link.closed for link in links)
    close_all([*warm, *links])
    return {"kib_per_connection": (after - before) / 1024 / count, "idle_cpu_share": cpu / seconds, "alive": alive}


async def login_storm(server: Server, seconds: float, *, count: int) -> Figures:
    """Known users log in, 64 at a time; figures per CPU-second of the server."""
    del seconds
    users = [f"l{number:04}" for number in range(count)]
    close_all(await connect_all(server, users))
    await asyncio.sleep(1.0)
    cpu, wall = server.cpu(), time.monotonic()
    async with server.measured():
        links = await connect_all(server, users, at_once=64)
    cpu, wall = server.cpu() - cpu, time.monotonic() - wall
    close_all(links)
    return {"logins_per_cpu_s": count / cpu, "logins_per_s": count / wall}


async def reconnect_storm(server: Server, seconds: float, *, count: int) -> Figures:
    """All clients lose their connection in one moment and come back at once."""
    del seconds
    users = [f"r{number:04}" for number in range(count)]
    links = await connect_all(server, users)
    close_all(links)
    await asyncio.sleep(0.5)
    cpu, wall = server.cpu(), time.monotonic()
    async with server.measured():
        links = await connect_all(server, users, at_once=count)
    cpu, wall = server.cpu() - cpu, time.monotonic() - wall
    close_all(links)
    return {"back_after_s": wall, "ms_cpu_per_client": cpu / count * 1000}
