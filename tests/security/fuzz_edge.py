"""Fuzzes the edge of a stack of our own through TLS, on many connections, while two people chat."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol

from services.common.wire.frames import FrameDecoder
from tests.helpers.people import People
from tests.helpers.raw_client import ClosedError, NoAnswerError, RawClient, encode
from tests.helpers.stack import FAST_CONFIG, Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES_PER_CONNECTION: Final = 20
"""With 20 faulty frames the edge closes a connection and reads no more of it: with more, many would go unread."""

SENDERS: Final = 8
SAY_EVERY_S: Final = 0.1
CHAT_S_MAX: Final = 5.0
"""Of one text, on a machine that also makes the frames: what is hung is found, not what is busy."""

GROWTH_MIB_MAX: Final = 64
END: Final = "the end"
CONFIG: Final = FAST_CONFIG + "[edge]\ntext_rate = 0\ncommand_rate = 0\n"


class Fault(Exception):  # noqa: N818 - what was found
    """Something that must not happen; the text has what it takes to repeat it."""


class Frames(Protocol):
    """Makes them."""

    def frame(self) -> bytes: ...


async def fuzz_edge(made: Frames, frames: int, *, report: Callable[[str], None] = print) -> Counter[str]:
    """So many frames to a stack of our own, on connections that are logged in and on others; what they were answered
    by. Raises Fault."""
    with running_stack(config=CONFIG) as stack:
        pids, rest_mib = stack.pids(), stack.memory_kib("edge-1") / 1024
        async with AsyncExitStack() as exits:
            people = People(stack, exits)
            good = [await people.person(), await people.person()]
            room_id = await people.room(*good)
            waits: list[float] = []
            chat = asyncio.create_task(_chat(good[0], room_id, waits))
            outcomes = await _send_all(stack, made, frames)
            chat.cancel()
            await asyncio.wait([chat])
            if not chat.cancelled():
                raise Fault(f"somebody else was kept from chatting: {chat.exception()!r}")
        mib = stack.memory_kib("edge-1") / 1024
        report(
            f"others said {len(waits)} texts meanwhile, the slowest in {max(waits) * 1e3:.0f} ms; "
            f"the edge had {rest_mib:.0f} MiB before and {mib:.0f} MiB after"
        )
        if stack.pids() != pids:
            raise Fault("a process has ended")
        if mib - rest_mib > GROWTH_MIB_MAX:
            raise Fault(f"the edge grew by {mib - rest_mib:.0f} MiB")
        wrong = [line for line in stack.log_events() if line["level"] in ("error", "critical")]
        if wrong or outcomes["internal"]:
            raise Fault(f"{outcomes['internal']} internal errors, {wrong[:3]}")
    return outcomes


async def _send_all(stack: Stack, made: Frames, frames: int) -> Counter[str]:
    """Frames are made one after the other, so that a seed makes the same ones, and sent side by side."""
    outcomes: Counter[str] = Counter()
    left = frames

    async def sender(number: int) -> None:
        nonlocal left
        while left:
            batch = _batch(made, min(FRAMES_PER_CONNECTION, left))
            left -= len(batch)
            async with AsyncExitStack() as exits:
                people = People(stack, exits)
                client = await (people.person() if number % 3 else people.connect())
                await _send(client, batch, outcomes)
                client.abort()

    async with asyncio.TaskGroup() as group:
        for number in range(SENDERS):
            group.create_task(sender(number))
    return outcomes


def _batch(made: Frames, count: int) -> list[bytes]:
    """At most so many frames, of which the edge reads every one: what ends a stream comes last."""
    batch: list[bytes] = []
    decoder = FrameDecoder()
    while len(batch) < count and decoder.fault is None and not decoder.held_bytes:
        batch.append(made.frame())
        for _ in decoder.feed(batch[-1]):
            pass
    return batch


async def _send(client: RawClient, batch: list[bytes], outcomes: Counter[str]) -> None:
    """Sends, and counts the answers until the one for a request behind them. A frame whose length is wrong swallows
    what comes behind it: then there is no end but silence."""
    outcomes["connections"] += 1
    outcomes["sent"] += len(batch)
    try:
        await client.send_bytes(b"".join(batch) + encode({"type": "heartbeat", "id": END, "data": {}}))
        while True:
            frame = await client.read(1.0)
            if frame.get("re") == END:
                return
            outcomes[str(frame["data"].get("code", frame["type"]))] += 1
    except ClosedError:
        outcomes["closed by the edge"] += 1
    except NoAnswerError:
        outcomes["waiting for the rest of a frame"] += 1


async def _chat(person: RawClient, room_id: str, waits: list[float]) -> None:
    while True:
        began = time.monotonic()
        async with asyncio.timeout(CHAT_S_MAX):
            await person.say(room_id, "still here")
        person.events.clear()
        waits.append(time.monotonic() - began)
        await asyncio.sleep(SAY_EVERY_S)
