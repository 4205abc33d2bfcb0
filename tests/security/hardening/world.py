"""A stack of its own with its real limits, people who chat all the while, and the machine's numbers about it."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.helpers.people import People, fresh
from tests.helpers.raw_client import RawClient, encode, tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from tests.helpers.stack import Stack

CONFIG = "[metrics]\nstop_grace_s = 0.1\n"
"""Everything else as it is delivered: bcrypt at 12 rounds, all limits on."""

CHATTERS = 10
CHAT_EVERY_S = 0.1
PASSWORD = "correct horse battery"
_TARGETS = itertools.count(2)


@dataclass(frozen=True)
class Finding:
    """One number against its bound."""

    what: str
    seen: str
    is_good: bool

    def __str__(self) -> str:
        return f"  {'ok  ' if self.is_good else 'FAIL'} {self.what}: {self.seen}"


def percentile(values: list[float], part: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def address() -> str:
    """A loopback address that nobody else uses: to the server another client."""
    number = next(_TARGETS)
    return f"127.{1 + number // 62_500 % 200}.{number // 250 % 250}.{number % 250 + 1}"


async def connect_from(stack: Stack, source: str, *, hello: bool = True) -> RawClient:
    """A connection to the first edge from that address."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        stack.port,
        ssl=tls_context(stack.ca),
        server_hostname="localhost",
        local_addr=(source, 0),
        ssl_handshake_timeout=30,
    )
    client = RawClient(reader, writer)
    if hello:
        await client.request("hello", {"protocol": 2, "client": "hardening/1"})
    return client


def plain_context() -> ssl.SSLContext:
    """For connections that only have to get through the handshake: verifying would cost the driver most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass
class Chat:
    """People in one room who say something ten times a second each, and how long each text took to come back."""

    latencies_s: list[float] = field(default_factory=list)
    failures: int = 0

    async def prepare(self, people: People) -> None:
        self._members = [await people.person() for _ in range(CHATTERS)]
        self._room_id = await people.room(*self._members)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for number, member in enumerate(self._members):
                group.create_task(self._talk(member, number * CHAT_EVERY_S / CHATTERS, stop))

    async def measure(self, seconds: float) -> list[float]:
        """The latencies of that time."""
        begin = len(self.latencies_s)
        await asyncio.sleep(seconds)
        return self.latencies_s[begin:]

    async def _talk(self, member: RawClient, offset_s: float, stop: asyncio.Event) -> None:
        await asyncio.sleep(offset_s)
        while not stop.is_set():
            began = time.monotonic()
            reply = await member.request("text_message", {"text": "still here"}, room_id=self._room_id)
            if reply["type"] == "success":
                self.latencies_s.append(time.monotonic() - began)
            else:
                self.failures += 1
            member.events.clear()
            await asyncio.sleep(max(0.0, CHAT_EVERY_S - (time.monotonic() - began)))


@asynccontextmanager
async def chatting(stack: Stack, exits: AsyncExitStack) -> AsyncIterator[Chat]:
    """A chat that goes on in the body; what fails in it fails the body."""
    chat, stop = Chat(), asyncio.Event()
    await chat.prepare(People(stack, exits))
    running = asyncio.create_task(chat.run(stop))
    try:
        yield chat
    finally:
        stop.set()
        await running


async def good_login_s(stack: Stack, name: str) -> float:
    """How long somebody with an account needs to get in from elsewhere; infinite where they are refused."""
    began = time.monotonic()
    client = await connect_from(stack, address())
    try:
        reply = await client.request("auth_request", {"username": name, "password": PASSWORD})
        return time.monotonic() - began if reply["data"]["success"] else float("inf")
    finally:
        client.abort()


async def make_accounts(stack: Stack, count: int) -> list[str]:
    """Accounts, one after the other."""
    names = []
    client = await connect_from(stack, address())
    for _ in range(count):
        name = fresh()
        await client.expect("register_request", {"username": name, "password": PASSWORD})
        names.append(name)
    client.abort()
    return names


def frame(type_: str, **data: object) -> bytes:
    """A request without an id."""
    return encode({"type": type_, "data": data})
