"""Somebody who is away for long, and comes back on the other edge to find everything that was said.

    python -m tests.chaos.away [--seconds 590] [--messages 1000] [--kill] [--layout sqlite|postgres]

A token serves for ten minutes after its connection has ended, and a thousand messages of a room are replayed. With
`--kill` every process of the stack is killed (-9) meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING

from tests.chaos import target
from tests.chaos.recorder.board import PASSWORD
from tests.chaos.recorder.line import Line, RefusedError
from tests.chaos.recorder.wire import LostError, trusting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.recorder.wire import Frame

A_SECOND = 18  # texts; a user may send 20
HEALS_S = 30.0


class AwayError(Exception):
    """What came back is not what was said."""


async def enter(stack: target.Target, edge: int, name: str, seen: list[Frame]) -> tuple[Line, str]:
    """A new user's connection, and its token. Raises LostError, RefusedError."""
    line = await connect(stack, edge, seen)
    credentials = {"username": name, "password": PASSWORD}
    await line.ask("register_request", credentials)
    return line, (await line.ask("auth_request", credentials))["token"]


async def connect(stack: target.Target, edge: int, seen: list[Frame]) -> Line:
    """A connection that notes the messages that come. Raises LostError."""
    line = Line(lambda frame: note(frame, seen), lambda _: None, lambda _: None)
    await line.open(stack.doors[edge].address, trusting(stack.client_ca))
    return line


def note(frame: Frame, seen: list[Frame]) -> None:
    """Keeps messages in the order in which they come."""
    if frame["type"] == "messages":
        seen.extend(frame["data"]["messages"])


async def say(line: Line, room: str, count: int) -> None:
    """Says so many texts, about as fast as one user may. Raises LostError, RefusedError."""
    for first in range(0, count, A_SECOND):
        texts = [f"text {number}" for number in range(first, min(count, first + A_SECOND))]
        await asyncio.gather(*(line.ask("text_message", {"text": text}, room) for text in texts))
        await asyncio.sleep(1.0)


async def resume(line: Line, data: Frame) -> Frame:
    """The answer to a resume, asked again for a while where auth cannot be reached yet. Raises LostError,
    RefusedError."""
    began = time.monotonic()
    while True:
        try:
            return await line.ask("resume", data)
        except RefusedError as error:
            if error.code != "unavailable" or time.monotonic() - began > HEALS_S:
                raise
        await asyncio.sleep(0.5)


async def leave_and_return(stack: target.Target, *, seconds: float, messages: int, kill: bool) -> str:
    """What happened, in a line. Raises AwayError, and LostError, RefusedError where it does not even come to that."""
    run = secrets.token_hex(3)
    seen: list[Frame] = []
    alice, _ = await enter(stack, 0, f"alice-{run}", [])
    bob, token = await enter(stack, 0, f"bob-{run}", seen)
    room = (await alice.ask("create_room", {"name": run}))["room_id"]
    joined = await bob.ask("join_room", {}, room)
    bob.hang_up("away")
    left_at = time.monotonic()
    await say(alice, room, messages)
    alice.hang_up("done")
    if kill and stack.processes is not None:
        await kill_all(stack)
    await asyncio.sleep(max(0.0, seconds - (time.monotonic() - left_at)))
    away_s = time.monotonic() - left_at
    back = await connect(stack, 1, seen)
    positions = {room: {"epoch": joined["epoch"], "seq": joined["last_seq"]}}
    began = time.monotonic()
    answer = await resume(back, {"token": token, "rooms": positions})
    [found] = [one for one in answer["rooms"] if one["room_id"] == room]
    if not found["recovered"] or found["replay"] != messages:
        raise AwayError(f"{found} after {away_s:.0f} s and {messages} messages")
    async with asyncio.timeout(HEALS_S):
        while len(seen) < messages:  # noqa: ASYNC110 -- nobody tells us
            await asyncio.sleep(0.01)
    took_s = time.monotonic() - began
    told = [(one["seq"], one["text"]) for one in seen]
    first = joined["last_seq"] + 1
    if told != [(first + number, f"text {number}") for number in range(messages)]:
        raise AwayError("the messages that came are not those that were sent, in their order")
    back.hang_up("the end")
    return (
        f"away for {away_s:.0f} s{', every process killed meanwhile' if kill else ''}: resumed on the other edge, "
        f"{messages} messages replayed in order in {took_s:.2f} s"
    )


async def kill_all(stack: target.Target) -> None:
    """kill -9 of each process, at once; returns when all of them serve again."""
    assert stack.processes is not None
    killed = {name: stack.processes.signal(name, signal.SIGKILL) for name in stack.processes.read()}
    for name, pid in killed.items():
        await stack.processes.until_serving(name, other_than=pid)


def main(argv: Sequence[str] | None = None) -> int:
    """0 where everything came."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.away", description=__doc__)
    parser.add_argument("--seconds", type=float, default=590.0, metavar="N", help="how long (590)")
    parser.add_argument("--messages", type=int, default=1_000, metavar="N", help="how many are missed (1000)")
    parser.add_argument("--kill", action="store_true", help="kill every process meanwhile")
    parser.add_argument("--layout", choices=target.LAYOUTS, default="sqlite", help="the stack to start (sqlite)")
    arguments = parser.parse_args(argv)
    with contextlib.ExitStack() as exits:
        stack = exits.enter_context(target.own(arguments.layout))
        away = leave_and_return(stack, seconds=arguments.seconds, messages=arguments.messages, kill=arguments.kill)
        try:
            print(asyncio.run(away))
        except (AwayError, LostError, RefusedError) as error:
            print(f"BROKEN: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
