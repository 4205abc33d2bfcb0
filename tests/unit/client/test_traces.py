from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from client import traces
from client.actions import UsageError
from client.chat import Chat
from client.replies import Trace, TracedSpan
from services.common.clock import FakeClock

if TYPE_CHECKING:
    from client.display import Line

SEND = TracedSpan("send", 0, 9_000, span_id="c", service="client")
ENTRY = TracedSpan("text_message", 1_000, 7_000, span_id="t", parent_id="c", service="edge", instance="edge-1")
STORE = TracedSpan("store", 2_000, 3_000, span_id="s", parent_id="b", service="rooms", instance="rooms-1")
DELIVER = TracedSpan("deliver", 6_000, 1_000, span_id="d", parent_id="s", service="edge", instance="edge-1")
OTHERS_BATCH = TracedSpan("publish batch", 1, 1, span_id="o", parent_id="elsewhere", service="edge", instance="edge-1")
WHOLE = [SEND, ENTRY, STORE, DELIVER, OTHERS_BATCH]


class Screen:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, line: Line) -> None:
        self.lines.append(line.render(colour=False))

    def update(self) -> None:
        pass

    async def ask(self, _question: str, *, is_secret: bool = False) -> str | None:
        raise AssertionError(is_secret)


class Session:
    """A session whose server tells of more of the way each time that it is asked."""

    def __init__(self, *answers: list[TracedSpan]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def settle(self, _timeout_s: float) -> None:
        pass

    async def ask(self, _kind: str, _into: type[Trace], data: dict[str, Any]) -> Trace:
        self.asked.append(data["message_id"])
        spans = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Trace(data["message_id"], "t" if spans else "", spans)


async def shown(session: Session, *words: str) -> list[str]:
    """What /trace says."""
    clock, screen = FakeClock(), Screen()
    chat = Chat(screen, clock=clock)
    chat.attach(session)  # type: ignore[arg-type]
    chat.last_own = "room-epoch-1"
    running = asyncio.ensure_future(traces.trace(chat, list(words)))  # type: ignore[arg-type]
    while not running.done():
        await clock.advance(traces.ASK_AGAIN_S)
    await running
    return screen.lines


async def test_what_rooms_tells_later_than_the_edge_is_waited_for() -> None:
    session = Session([ENTRY], [SEND, ENTRY, DELIVER], WHOLE)
    lines = await shown(session)
    assert session.asked == ["room-epoch-1"] * 3
    assert any("rooms-1" in line and "store" in line for line in lines)


async def test_what_is_whole_is_shown_at_once() -> None:
    session = Session(WHOLE)
    await shown(session)
    assert len(session.asked) == 1


@pytest.mark.parametrize("spans", [[], [ENTRY], [SEND, ENTRY, DELIVER]])
async def test_what_never_comes_is_not_waited_for_for_ever(spans: list[TracedSpan]) -> None:
    session = Session(spans)
    lines = await shown(session)
    assert len(session.asked) == traces.ASKED_MAX
    assert ("Nobody measured" in lines[0]) == (not spans)


async def test_a_message_of_nobody_is_not_asked_for() -> None:
    chat = Chat(Screen(), clock=FakeClock())
    chat.attach(Session([]))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not sent anything"):
        await traces.trace(chat, [])  # type: ignore[arg-type]
