"""`parley chat --plain`: sends each line of the input, writes what others say, ends when all is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine
from typing import Any, TextIO

from client.arguments import Options
from client.chat import Chat
from client.clock import SystemClock
from client.display import Kind, Line
from client.errors import ClientError
from client.opening import log_in, open_session
from client.plain.lines import read_lines

UNACKNOWLEDGED_MAX = 500
"""Texts on their way before the next line is read: the writer of the pipe waits, instead of this process's memory."""

LAST_ACKNOWLEDGEMENTS_S = 60.0
"""How long the end of the input waits for acknowledgements: a server that restarts is back much sooner."""


PROGRESS_EVERY_S = 5.0
"""How often a transfer is told of."""

STILL_S = 60.0
"""How long the end of the input waits for transfers in which nothing moves; they go on at the next login."""


class PlainScreen:
    """Messages and answers go to one stream, notes and errors to the other."""

    def __init__(self, out: TextIO, notes: TextIO, *, colour: bool) -> None:
        self._out = out
        self._notes = notes
        self._colour = colour
        self.has_lost_reader = asyncio.Event()

    def show(self, line: Line) -> None:
        """Writes a line."""
        stream = self._out if line.kind in (Kind.MESSAGE, Kind.ANSWER) else self._notes
        try:
            stream.write(line.render(colour=self._colour) + "\n")
            stream.flush()
        except BrokenPipeError:
            self.has_lost_reader.set()

    def update(self) -> None:
        """Nothing stays in sight."""

    async def ask(self, question: str, *, is_secret: bool = False) -> str | None:
        """Nobody is there to answer."""
        return None


async def run(options: Options) -> int:
    """Runs until the input ends; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    screen = PlainScreen(sys.stdout, sys.stderr, colour=options.has_colour)
    chat = Chat(
        screen,
        clock=SystemClock(),
        shows_own=False,
        ends_with_login=True,
        downloads=options.downloads,
        tells_progress_s=PROGRESS_EVERY_S,
    )
    try:
        await open_session(chat, options)
    except ClientError as problem:
        chat.fail_because(problem)
        return 1
    try:
        await _until_first(_talk(chat, options), screen.has_lost_reader.wait(), chat.ended.wait())
    finally:
        await chat.session.close()
    if screen.has_lost_reader.is_set():
        # What is still buffered would raise once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 1 if chat.error_count else 0


async def _until_first(*coroutines: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _talk(chat: Chat, options: Options) -> None:
    try:
        if options.username is not None:
            await log_in(chat.session, options.username, options.password or "", registers=options.registers)
        if options.room is not None:
            chat.switch(await chat.session.join_room(options.room))
        elif len(chat.session.rooms) == 1:
            chat.switch(next(iter(chat.session.rooms)))
    except ClientError as problem:
        chat.fail_because(problem)
        return
    async with contextlib.aclosing(read_lines(sys.stdin.fileno())) as lines:
        async for line in lines:
            await chat.handle_line(line)
            if chat.is_quitting:
                break
            await chat.session.wait_until_below(UNACKNOWLEDGED_MAX)
    if not await chat.session.settle(LAST_ACKNOWLEDGEMENTS_S):
        chat.fail(f"{chat.session.unacknowledged} messages were not acknowledged.")
    await _finish_files(chat)


async def _finish_files(chat: Chat) -> None:
    """Waits for transfers while one of them moves."""
    ended = asyncio.ensure_future(chat.session.files.wait_until_ended())
    try:
        before = -1
        while not ended.done():
            moved = sum(transfer.sent_bytes + transfer.done_bytes for transfer in chat.session.files)
            if moved == before:
                left = len(list(chat.session.files))
                chat.fail(f"{left} files are not complete; they go on at the next login.")
                return
            before = moved
            await asyncio.wait([ended], timeout=STILL_S)
    finally:
        ended.cancel()
