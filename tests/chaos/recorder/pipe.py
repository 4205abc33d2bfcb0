"""A pipe: one person's texts to one room, in an order that must hold through refusals and losses too.

As docs/protocol.md says, every text tells whether it follows one without an answer. When one is turned away, nothing
new is sent until everything behind it is answered; then all goes again from the first on. So whoever reads the room
sees the texts in the order in which they were put in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from tests.chaos.recorder.mailbox import Fate
from tests.chaos.recorder.wire import LostError

if TYPE_CHECKING:
    from tests.chaos.recorder.line import Line
    from tests.chaos.recorder.mailbox import Mailbox, Text

WINDOW = 64
WAIT_S = 0.2


class Pipe:
    """Texts for one room; what was put in stays until it is stored, or refused for good."""

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self._name = name
        self._mailbox = mailbox
        self._texts: deque[Text] = deque()  # in their order
        self._under_way: set[str] = set()  # keys
        self._is_cut = False  # one was turned away, and what is behind it is not all answered
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, text: Text) -> None:
        """The next text."""
        self._texts.append(text)

    def pump(self, line: Line, conn: str) -> None:
        """Sends what may be sent. Raises LostError."""
        if self._is_cut or asyncio.get_running_loop().time() < self._not_before:
            return
        for text in list(self._texts)[:WINDOW]:
            if text.key not in self._under_way:
                follows = bool(self._under_way)
                self._under_way.add(text.key)

                def settled(fate: Fate, wait_s: float, text: Text = text) -> None:
                    self._settled(text, fate, wait_s)

                try:
                    self._mailbox.send(line, conn, text, follows=follows, pipe=self._name, settled=settled)
                except LostError:
                    self._under_way.discard(text.key)  # it was not sent, so that nothing will settle it
                    raise

    def _settled(self, text: Text, fate: Fate, wait_s: float) -> None:
        self._under_way.discard(text.key)
        if fate is Fate.LATER:
            self._is_cut = True
            self._not_before = asyncio.get_running_loop().time() + max(WAIT_S, wait_s)
        else:
            self._texts.remove(text)
        if not self._under_way:
            self._is_cut = False
