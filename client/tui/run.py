"""`parley chat` on a terminal: connects, then reads lines until the person leaves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from prompt_toolkit.patch_stdout import patch_stdout

from client import actions, display
from client.arguments import Options
from client.chat import Chat
from client.clock import SystemClock
from client.commands import without_password
from client.display import Kind, Line
from client.errors import ClientError, NotReadyError
from client.opening import log_in, open_session
from client.tui.terminal import Terminal

LAST_ACKNOWLEDGEMENTS_S = 5.0
"""How long leaving waits for what was just sent."""


async def run(options: Options) -> int:
    """Runs until the person leaves; returns the exit status."""
    terminal = Terminal(colour=options.has_colour)
    chat = Chat(terminal, clock=SystemClock(), shows_context=True, downloads=options.downloads)
    with patch_stdout(raw=True):
        try:
            address = await open_session(chat, options)
        except ClientError as problem:
            chat.fail_because(problem)
            return 1
        chat.show(display.note(f"Connected to {address}. /help lists the commands."))
        try:
            with _stopping_on_signals(terminal):
                ending = asyncio.create_task(_stop_at_end(chat, terminal), name="stop-at-end")
                await _talk(chat, terminal, options)
                ending.cancel()
        finally:
            await _leave(chat)
    return 1 if chat.ended.is_set() else 0


@contextlib.contextmanager
def _stopping_on_signals(terminal: Terminal) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, terminal.stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _stop_at_end(chat: Chat, terminal: Terminal) -> None:
    await chat.ended.wait()
    terminal.stop()


async def _talk(chat: Chat, terminal: Terminal, options: Options) -> None:
    await terminal.run(_begin(chat, options))
    while not (chat.is_quitting or chat.ended.is_set()):
        try:
            line = await terminal.read_line(chat)
        except EOFError:
            return
        if line.startswith("/") and not line.startswith("//"):
            chat.show(Line(Kind.ANSWER, (("dim", display.clean(f"> {without_password(line)}")),)))
        if not await terminal.run(chat.handle_line(line)):
            chat.show(display.note("Interrupted; the server may have done it all the same."))


async def _begin(chat: Chat, options: Options) -> None:
    try:
        await _log_in(chat, options)
    except ClientError as problem:
        chat.fail_because(problem)


async def _log_in(chat: Chat, options: Options) -> None:
    username = options.username
    if username is None:
        chat.show(display.note("/login NAME if you have an account here, /register NAME if not."))
        return
    password = options.password
    if password is None:
        password = await chat.screen.ask(f"Password of {username}: ", is_secret=True)
    if not password:
        raise NotReadyError("Without a password there is no login.")
    if options.registers:
        await log_in(chat.session, username, password, registers=True)
        await actions.show_whereabouts(chat)
    else:
        await actions.enter_session(chat, username, password)
    if options.room is not None:
        await actions.join_named(chat, options.room)


async def _leave(chat: Chat) -> None:
    session = chat.session
    if session.unacknowledged and not await session.settle(LAST_ACKNOWLEDGEMENTS_S):
        chat.fail(f"{session.unacknowledged} messages were not acknowledged.")
    await session.close()
