"""Kills the only rooms process (-9) again and again: `python -m tests.chaos.outages` says when texts are acknowledged.

A stack of its own on SQLite. Somebody repeats a text under its key, as a client does, from the moment of each kill on.
Between two kills the process lives for as long as earns it an immediate restart.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import statistics
import sys
import time

from deploy.local.backoff import STABLE_S
from tests.helpers.people import fresh
from tests.helpers.raw_client import RawClient
from tests.helpers.stack import Stack, running_stack

AGAIN_S = 0.1
GOAL_S = 5.0


async def outage_s(stack: Stack, client: RawClient, room_id: str) -> float:
    """Kill rooms, and send a text until it is acknowledged; the seconds that took."""
    text, key = "still there?", secrets.token_hex(8)
    began = time.monotonic()
    os.kill(stack.pids()["rooms-1"], signal.SIGKILL)
    while True:
        reply = await client.request("text_message", {"text": text, "key": key}, room_id=room_id)
        if reply["type"] == "success":
            return time.monotonic() - began
        await asyncio.sleep(AGAIN_S)


async def run(stack: Stack, kills: int) -> list[float]:
    """The seconds of each outage."""
    async with await RawClient.connect("localhost", stack.port, stack.ca) as client:
        await client.enter(fresh())
        room_id = str((await client.expect("create_room", {"name": fresh("room")}))["room_id"])
        outages = []
        for number in range(kills):
            until = time.monotonic() + STABLE_S + 1.0
            while time.monotonic() < until:
                await client.say(room_id, f"before kill {number}")
                await asyncio.sleep(1.0)
            outages.append(await outage_s(stack, client, room_id))
        return outages


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; 1 where the longest outage passes the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.outages", description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args(argv)
    with running_stack() as stack:
        outages = asyncio.run(run(stack, arguments.kills))
    print("each, s:", *(f"{one:.2f}" for one in outages))
    print(f"median {statistics.median(outages):.2f} s, longest {max(outages):.2f} s; the goal is {GOAL_S:g} s")
    return 0 if max(outages) <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
