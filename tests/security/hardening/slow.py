"""Slow readers and slow writers: each costs the edge a bounded amount, for a bounded time, and the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.helpers.people import People
from tests.helpers.raw_client import ClosedError, NoAnswerError
from tests.security.hardening.world import Finding, address, chatting, connect_from, percentile

if TYPE_CHECKING:
    from tests.helpers.stack import Stack

WRITERS = 200
READERS = 50
FLOOD_S = 20.0
CUT_S_MAX = 30.0
MEMORY_MIB_MAX = 150
"""What they may add: 50 readers at 1 MiB each in the outbox and as much again in TLS and the kernel's accounts."""

P99_FACTOR_MAX = 2.0
_TEXT = "x" * 3_000


async def writers(stack: Stack) -> list[Finding]:
    """200 connections that send a frame byte by byte, one a second."""
    async with AsyncExitStack() as exits, chatting(stack, exits) as chat:
        before = await chat.measure(5)
        clients = [await connect_from(stack, address()) for _ in range(WRITERS)]
        began = time.monotonic()
        ends: list[float] = []

        async def dribble(number: int) -> None:
            client = clients[number]
            with contextlib.suppress(ClosedError, NoAnswerError):
                await client.send_bytes(struct.pack(">I", 60_000) + b"{")
                while True:
                    await client.send_bytes(b" ")
                    if await client.is_closed(1.0):
                        break
            ends.append(time.monotonic() - began)

        begin = len(chat.latencies_s)
        async with asyncio.timeout(2 * CUT_S_MAX):
            await asyncio.gather(*(dribble(number) for number in range(WRITERS)))
        during = chat.latencies_s[begin:]
    base, worst = percentile(before, 0.99), percentile(during, 0.99)
    return [
        Finding(
            "slow writers are cut off",
            f"{len(ends)}, after {min(ends):.1f} to {max(ends):.1f} s",
            min(ends) > 1 and max(ends) <= CUT_S_MAX,  # at once would mean that they were refused for something else
        ),
        Finding(
            "chat p99 meanwhile",
            f"{worst * 1e3:.1f} ms ({base * 1e3:.1f} before)",
            worst <= max(0.05, P99_FACTOR_MAX * base),
        ),
    ]


async def readers(stack: Stack) -> list[Finding]:
    """50 members of a room that never read, while 3 KB texts come as fast as limits allow."""
    at_rest = stack.memory_kib("edge-1") / 1024
    peak = at_rest
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        talkers = [await people.person() for _ in range(5)]
        room_id = await people.room(*talkers)
        stuck = []
        for _ in range(READERS):
            client = await people.person()
            await client.expect("join_room", room_id=room_id)
            raw: socket.socket = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stuck.append(client)
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < FLOOD_S:
            replies = await asyncio.gather(
                *(talker.request("text_message", {"text": _TEXT}, room_id=room_id) for talker in talkers)
            )
            sent += sum(reply["type"] == "success" for reply in replies)
            for talker in talkers:
                talker.events.clear()
            peak = max(peak, stack.memory_kib("edge-1") / 1024)
            await asyncio.sleep(0.05)
        reply = await talkers[0].expect("user_list", {}, room_id=room_id)
        left = len([user for user in reply["members"] if user["online"]]) - len(talkers)
        for client in stuck:
            client.abort()
    return [
        Finding("texts of 3 KB to members who do not read", f"{sent} in {FLOOD_S:.0f} s", sent > 100),
        Finding(
            "memory of the edge, at rest and at most",
            f"{at_rest:.0f} and {peak:.0f} MiB",
            peak - at_rest <= MEMORY_MIB_MAX,
        ),
        Finding("of them still connected", f"{left} of {READERS}", left == 0),
    ]
