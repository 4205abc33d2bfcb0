"""Two bystanders who talk while something else happens, and notice when they are disturbed."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.helpers.stack import whole_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.people import People
    from tests.helpers.raw_client import RawClient
    from tests.helpers.stack import Stack

EVERY_S = 0.1  # half of what a person may send
# A message that takes longer than this over a healthy stack was held up by somebody. The machine that the tests run
# on is busy with the test itself, so this is far above what people get.
DISTURBED_S = 5.0


class Witness:
    """What the bystanders saw."""

    def __init__(self) -> None:
        self.exchanged = 0
        self.longest_s = 0.0


@asynccontextmanager
async def undisturbed(people: People) -> AsyncIterator[Witness]:
    """While this is open, one person talks to another; every message must arrive in time, in order and once."""
    speaker, listener = await people.person(), await people.person()
    room_id = await people.room(speaker, listener)
    witness = Witness()
    stop = asyncio.Event()
    talk = asyncio.create_task(_talk(speaker, listener, room_id, witness, stop))
    try:
        yield witness
    finally:
        stop.set()
        await talk
    assert witness.exchanged > 0
    assert witness.longest_s < DISTURBED_S, f"a bystander waited {witness.longest_s:.1f} s"


async def _talk(speaker: RawClient, listener: RawClient, room_id: str, witness: Witness, stop: asyncio.Event) -> None:
    while not stop.is_set() or not witness.exchanged:
        started = time.monotonic()
        text = f"still undisturbed {witness.exchanged}"
        await speaker.say(room_id, text)
        [message] = await listener.messages(room_id, 1)
        assert (message["text"], message["seq"]) == (text, witness.exchanged + 1)
        witness.exchanged += 1
        witness.longest_s = max(witness.longest_s, time.monotonic() - started)
        await asyncio.sleep(EVERY_S)


class CleanLogs:
    """Reads what is logged from now on."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._path = stack.home / "logs" / "server.log"
        self._start = self._path.stat().st_size
        self._output_start = len(stack.output)

    def check(self) -> None:
        """Bad input is no news for an operator's error log, and never a traceback."""
        lines = whole_lines(self._path, self._start)
        assert not [line for line in lines if "Traceback" in line]
        events = [json.loads(line) for line in lines]
        assert not [event for event in events if event["level"] in {"error", "critical"}]
        assert self._stack.output[self._output_start :] == []
