"""The guest's races, on connections whose ends and answers come in an order that the test chooses."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.chaos import events as e
from tests.chaos.recorder import guest as guests
from tests.chaos.recorder.board import Board, Door
from tests.chaos.recorder.guest import Entry, Guest, at_once
from tests.chaos.recorder.line import RefusedError
from tests.chaos.recorder.log import EventLog
from tests.chaos.recorder.wire import Frame, LostError, Trust

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.recorder.line import Line

Deed = tuple[str, str]  # edge, and what happens there


class ScriptedLine:
    """What the guest has to do with a `Line`; what comes of it is said by the test."""

    def __init__(
        self, on_event: Callable[[Frame], object], on_lost: Callable[[str], None], on_chunk: Callable[[bytes], None]
    ) -> None:
        self.is_open = True
        self.is_silent = False
        self.asked: list[str] = []
        self._on_event = on_event
        self._on_lost = on_lost
        self._login: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self, address: tuple[str, int], trust: Trust) -> None:
        LINES[address[1]] = self

    async def ask(
        self, type_: str, data: Frame, room: str | None = None, *, then: Callable[[Frame], None] | None = None
    ) -> Frame:
        self.asked.append(type_)
        if not self.is_open:
            raise LostError("lost")
        if type_ == "auth_request":
            code = await self._login
            if code == "lost":
                raise LostError("lost")
            if code:
                raise RefusedError(code, None)
        elif self.is_silent:
            await asyncio.Future()
        if then is not None:
            then({"token": "t"})
        return {}

    def suffer(self, deed: str) -> None:
        if deed == "in":
            self._login.set_result("")
        elif deed == "taken over":
            self._on_event({"type": "goodbye", "data": {"reason": "taken_over"}})
            self.suffer("closed")
        elif deed == "closed":
            self.is_open = False
            self._on_lost("closed by the server")
        elif deed == "silent":
            self.is_silent = True
        else:
            self._login.set_result(deed)


LINES: dict[int, ScriptedLine] = {}
DOORS = [Door("edge-1", "127.0.0.1", 1), Door("edge-2", "127.0.0.1", 2)]


async def spin() -> None:
    """Until everybody has done what there was to do; nothing here waits for time or for the network."""
    for _ in range(10):
        await asyncio.sleep(0)


async def race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *deeds: Deed) -> e.Race:
    LINES.clear()
    monkeypatch.setattr(guests, "Line", ScriptedLine)
    monkeypatch.setattr(guests, "ANSWERS_S", 0.01)
    path = tmp_path / "log"
    with EventLog(path) as log:
        board = Board(log, DOORS, Trust(ssl.create_default_context(), "nobody connects"), prefix="c")
        guest = Guest("guest", board, seed=1)
        lines: list[Line] = []
        running = asyncio.create_task(guest.race(lines, DOORS))
        await spin()
        for edge, deed in deeds:
            LINES[int(edge[-1])].suffer(deed)
            await spin()
        await running
    with path.open("rb") as lines_of_log:
        (raced,) = (event for event in e.decode(lines_of_log) if isinstance(event, e.Race))
    return raced


async def test_a_winner_whose_connection_had_ended_before_the_other_was_answered_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced = await race(tmp_path, monkeypatch, ("edge-2", "in"), ("edge-2", "closed"), ("edge-1", "in"))
    assert len(raced.won) == 1


async def test_two_that_are_in_at_once_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raced = await race(tmp_path, monkeypatch, ("edge-2", "in"), ("edge-1", "in"))
    assert raced.won == ["edge-1", "edge-2"]
    assert [line.asked[-1] for line in LINES.values()] == ["logout", "logout"]


async def test_one_that_was_taken_over_had_won_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raced = await race(tmp_path, monkeypatch, ("edge-2", "in"), ("edge-2", "taken over"), ("edge-1", "in"))
    assert raced.won == ["edge-1", "edge-2"]


async def test_one_at_an_edge_that_says_nothing_any_more_is_not_known_to_be_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeds = (("edge-2", "in"), ("edge-2", "silent"), ("edge-1", "in"))
    assert (await race(tmp_path, monkeypatch, *deeds)).won == ["edge-1"]


async def test_who_lost_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raced = await race(tmp_path, monkeypatch, ("edge-2", "already_logged_in"), ("edge-1", "lost"))
    assert (raced.won, raced.codes) == ([], ["lost", "already_logged_in"])


@pytest.mark.parametrize(
    ("entries", "together"),
    [
        ([], 0),
        ([Entry(1.0)], 1),
        ([Entry(1.0, 2.0), Entry(3.0)], 1),
        ([Entry(3.0), Entry(1.0, 2.0)], 1),
        ([Entry(1.0, 3.5), Entry(3.0)], 2),
        ([Entry(1.0, 2.0, was_taken=True), Entry(3.0)], 2),
        ([Entry(1.0, 2.5), Entry(2.0, 3.0), Entry(2.8), Entry(9.0)], 2),
    ],
)
def test_the_most_that_were_in_at_the_same_time(entries: list[Entry], together: int) -> None:
    assert len(at_once(entries)) == together
