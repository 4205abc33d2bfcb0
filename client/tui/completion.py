"""Completion and memory of the input line."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory

from client.chat import Chat
from client.commands import completions, without_password


class ChatCompleter(Completer):
    """Commands, rooms and users."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may be meant at the cursor."""
        for text, replaced in completions(self._chat, document.text_before_cursor):
            yield Completion(text, start_position=-replaced)


class DiscreetHistory(InMemoryHistory):
    """The lines typed in this run, without passwords; nothing is written to a disk."""

    def append_string(self, string: str) -> None:
        """Remembers a line."""
        super().append_string(without_password(string))
