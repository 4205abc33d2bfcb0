"""A talker's pipe goes on after every end of a connection, wherever in its turn that comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.recorder import pipe as pipes
from tests.chaos.recorder.mailbox import Fate, Text
from tests.chaos.recorder.pipe import Pipe
from tests.chaos.recorder.wire import LostError

if TYPE_CHECKING:
    from collections.abc import Callable

LINE: Any = None


class Mail:
    """Takes texts while it is open, and settles them when the test says what became of them."""

    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[tuple[str, Callable[[Fate, float], None]]] = []

    def send(self, line: object, conn: str, text: Text, *, settled: Callable[[Fate, float], None], **_: object) -> None:
        if not self.is_open:
            raise LostError("closed")
        self.sent.append((text.key, settled))

    def settle(self, fate: Fate) -> list[str]:
        sent, self.sent = self.sent, []
        for _, settled in sent:
            settled(fate, 0.0)
        return [key for key, _ in sent]


async def test_a_text_that_finds_the_connection_closed_goes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "WAIT_S", 0.0)
    mail: Any = Mail()
    pipe = Pipe("amy/room", mail)
    pipe.put(Text("room", "amy-1", "amy-1 .", "h"))
    mail.is_open = False
    with pytest.raises(LostError):
        pipe.pump(LINE, "amy#1")
    mail.is_open = True
    pipe.put(Text("room", "amy-2", "amy-2 .", "h"))
    pipe.pump(LINE, "amy#2")
    assert mail.settle(Fate.LATER) == ["amy-1", "amy-2"]  # the connection ends again
    pipe.pump(LINE, "amy#3")
    assert mail.settle(Fate.STORED) == ["amy-1", "amy-2"]
    assert not len(pipe)
