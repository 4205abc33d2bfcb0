"""People with the client library who talk on whatever happens, and what must be true of it afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from client.address import Address
from client.events import MessageArrived, TextFailed
from client.failover import AnyOf
from client.known_hosts import KnownHosts
from client.session import Session
from client.transport import TlsConnector
from client.trust import choose_trust
from tests.helpers.people import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.events import Event
    from tests.helpers.raw_client import Frame, RawClient
    from tests.helpers.stack import Stack

PASSWORD = "correct horse battery"
PAUSE_S = 0.02


async def until(is_so: Callable[[], bool], *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 - it happens in other tasks and processes, and nothing announces it
            await asyncio.sleep(0.01)


class Talker:
    """A person with the client library, who talks on whatever happens, and what they saw.

    They know the first edge, or the servers at `ports`.
    """

    def __init__(self, stack: Stack, folder: Path, *, ports: Sequence[int] = ()) -> None:
        self.name = fresh()
        self.seen: dict[str, list[tuple[str, int]]] = {}
        self.failed: list[Event] = []
        self.posted: dict[str, list[str]] = {}  # room id -> texts
        known_hosts = KnownHosts(folder / "known_hosts")
        connectors = []
        for port in ports or [stack.port]:
            address = Address("localhost", port)
            trust = choose_trust(address, ca=Path(stack.ca), stacks=[], known_hosts=known_hosts)
            connectors.append((address, TlsConnector(address, trust)))
        self.session = Session(AnyOf(connectors), on_event=self._on_event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, MessageArrived):
            self.seen.setdefault(event.room.room_id, []).append((event.message.text, event.message.seq))
        elif isinstance(event, TextFailed):
            self.failed.append(event)

    async def arrive(self) -> None:
        await self.session.start()
        await self.session.register(self.name, PASSWORD)
        await self.session.login(self.name, PASSWORD)

    async def talk(self, room_id: str, stop: asyncio.Event, *, pause_s: float = PAUSE_S) -> None:
        posted = self.posted.setdefault(room_id, [])
        while not stop.is_set():
            text = f"{self.name} {len(posted)}"
            self.session.post_text(room_id, text)
            posted.append(text)
            await asyncio.sleep(pause_s)


async def everything_of(client: RawClient, room_id: str) -> list[Frame]:
    """The room's whole log, page by page."""
    found: list[Frame] = []
    while True:
        page = await client.expect("history", {"after": len(found), "limit": 200}, room_id=room_id)
        found += page["messages"]
        if not page["more"]:
            return found


async def nothing_was_lost_or_doubled(talkers: Sequence[Talker], other: RawClient, *room_ids: str) -> None:
    """Everything that was posted is in the logs once and in its order, and everybody has seen the logs.

    `other` is somebody who is in none of the rooms yet.
    """
    for talker in talkers:
        assert await talker.session.settle(30)
    for room_id in room_ids:
        await other.expect("join_room", room_id=room_id)
        log = [(message["text"], message["seq"]) for message in await everything_of(other, room_id)]
        assert [seq for _, seq in log] == list(range(1, len(log) + 1))
        assert sorted(text for text, _ in log) == sorted(text for talker in talkers for text in talker.posted[room_id])
        for talker in talkers:
            own = [text for text, _ in log if text.startswith(talker.name)]
            assert own == talker.posted[room_id]
            seen = talker.seen[room_id]
            await until(lambda seen=seen, log=log: len(seen) >= len(log))
            assert seen == log
    for talker in talkers:
        assert talker.failed == []
        await talker.session.close()
