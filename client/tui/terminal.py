"""The terminal: a prompt that stays whole at the bottom while lines appear above it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import PasswordProcessor
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.shortcuts import CompleteStyle

from client import display
from client.chat import Chat
from client.display import Line
from client.events import State
from client.files.transfer import Phase
from client.files.words import progress_text
from client.tui.completion import ChatCompleter, DiscreetHistory

STATE_STYLES = {
    State.CONNECTING: "fg:ansired",
    State.BEHIND: "fg:ansiyellow",
    State.LIVE: "fg:ansigreen",
    State.CLOSED: "fg:ansired",
}


TRANSFERS_SHOWN_MAX = 6
"""Of the screen's lines: what is said is what people look at."""

_HIDDEN = PasswordProcessor(char="")
"""Shows nothing at all: stars would tell how long a password is."""


class Terminal:
    """The screen of a Chat on a terminal; used inside `patch_stdout`, so that output does not break the prompt."""

    def __init__(self, *, colour: bool, input: Input | None = None, output: Output | None = None) -> None:  # noqa: A002
        self._colour = colour
        depth = None if colour else ColorDepth.DEPTH_1_BIT
        self._questions: PromptSession[str] = PromptSession(
            history=DummyHistory(),  # answers may be passwords
            color_depth=depth,
            input=input,
            output=output,
        )
        self._lines: PromptSession[str] = PromptSession(
            history=DiscreetHistory(),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            key_bindings=_keys(),
            erase_when_done=True,  # what was typed appears again as a message, or as the command that was run
            color_depth=depth,
            input=input,
            output=output,
        )

        self.input: Input = self._lines.input

    def show(self, line: Line) -> None:
        """Shows a line above the prompt."""
        print(line.render(colour=self._colour))

    def update(self) -> None:
        """Draws the prompt and the toolbar again."""
        self._lines.app.invalidate()

    async def ask(self, question: str, *, is_secret: bool = False) -> str | None:
        """Asks; None after Ctrl-C or Ctrl-D."""
        try:
            return await self._questions.prompt_async(question, input_processors=[_HIDDEN] if is_secret else [])
        except (KeyboardInterrupt, EOFError):
            return None

    async def read_line(self, chat: Chat) -> str:
        """The next line that was typed. Raises EOFError after Ctrl-D."""
        return await self._lines.prompt_async(
            lambda: _prompt(chat),
            bottom_toolbar=lambda: _toolbar(chat),
            completer=ChatCompleter(chat),
        )

    async def run(self, work: Coroutine[Any, Any, None]) -> bool:
        """Runs what a line asked for, until its end or Ctrl-C; returns whether it came to its end.

        What is typed meanwhile is kept for the next prompt.
        """
        task = asyncio.create_task(work, name="command")

        def on_keys() -> None:
            keys = self.input.read_keys()
            if self.input.closed or any(key.key == Keys.ControlC for key in keys):
                task.cancel()
            store_typeahead(self.input, [key for key in keys if key.key != Keys.ControlC])

        with self.input.raw_mode(), self.input.attach(on_keys):
            await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    def stop(self) -> None:
        """Ends the line that is being typed, as Ctrl-D does."""
        for session in (self._lines, self._questions):
            if session.app.is_running and not session.app.is_done:
                session.app.exit(exception=EOFError)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _clear(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return keys


def _prompt(chat: Chat) -> FormattedText:
    room = chat.current
    where = f"#{display.clean(room.name)}" if room else ""
    return FormattedText([("bold", f"{where}> ")])


def _toolbar(chat: Chat) -> FormattedText:
    session = chat.session
    parts = [
        ("", " "),
        (STATE_STYLES[session.state], session.state.value),
        ("", f" | {display.clean(session.username)}" if session.username else " | not logged in"),
    ]
    rooms = [("bold" if room is chat.current else "", display.clean(room.name)) for room in session.rooms]
    for style, name in rooms:
        parts += [("", " | " if (style, name) == rooms[0] else " "), (style, f"#{name}")]
    if session.unacknowledged:
        parts.append(("", f" | {session.unacknowledged} not acknowledged yet"))
    parts += [("", f"\n {text}") for text in _transfers(chat)]
    return FormattedText(parts)


def _transfers(chat: Chat) -> list[str]:
    """A line for each of the files that move, and one for the rest."""
    under_way = sorted(chat.session.files, key=lambda transfer: transfer.phase is Phase.WAITING)
    now = chat.clock.monotonic()
    shown = [progress_text(transfer, now) for transfer in under_way[:TRANSFERS_SHOWN_MAX]]
    if (left := len(under_way) - len(shown)) > 0:
        shown.append(f"and {left} more: /files lists them")
    return shown
