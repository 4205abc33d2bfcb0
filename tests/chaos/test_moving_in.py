"""How people of `parley check` get in: through lost answers too, and never by waiting for one that does not come."""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from client.errors import ConnectError, ConnectionLostError, RequestError
from client.trust import Authority
from tests.chaos.recorder import library, line
from tests.chaos.recorder.board import Board
from tests.chaos.recorder.library import LibraryPerson
from tests.chaos.recorder.line import Line
from tests.chaos.recorder.log import EventLog
from tests.chaos.recorder.seat import Standing
from tests.chaos.recorder.wire import Frame, LostError, Trust

if TYPE_CHECKING:
    from pathlib import Path

TRUST = Trust(ssl.create_default_context(), "nobody connects")


class UnluckySession:
    """The first answer to everything is lost; what was asked is done all the same."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self) -> None:
        self._once("start", ConnectError("nobody listens"))

    async def register(self, username: str, password: str) -> str:
        self._once("register", ConnectionLostError("lost"))
        raise RequestError("username_taken", "That name is taken.")

    async def login(self, username: str, password: str, *, takeover: bool) -> None:
        self._once("login", ConnectionLostError("lost"))
        if not takeover:
            raise RequestError("already_logged_in", "You are logged in elsewhere.")

    async def join_room(self, room: str) -> SimpleNamespace:
        self._once("join", ConnectionLostError("lost"))
        return SimpleNamespace(epoch="e1", seq=7)

    def _once(self, call: str, error: Exception) -> None:
        self.calls.append(call)
        if self.calls.count(call) == 1:
            raise error


async def test_a_person_of_the_library_gets_in_whichever_answers_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "RETRY_S", 0.0)
    with EventLog(tmp_path / "log") as log:
        board = Board(log, [], TRUST, prefix="c")
        board.rooms = ["room"]
        person = LibraryPerson("amy", board, 1, Authority("nobody connects"))
        session = UnluckySession()
        monkeypatch.setattr(person, "_session", session)
        async with asyncio.timeout(30):
            await person._arrive()
        # A session that has been started keeps its connection by itself, and a second start would make a second one.
        assert session.calls == ["start", "start", "register", "register", "login", "login", "join", "join"]
        assert person.seats["room"].standing is Standing.IN


class SilentWire:
    """Takes everything and answers nothing."""

    last_heard = 0.0
    is_open = True
    ended = ""

    def send(self, frame: Frame) -> None:
        pass

    def abort(self, reason: str) -> None:
        self.ended = reason


async def test_a_request_without_an_answer_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ANSWER_S", 0.01)
    wire = SilentWire()
    one = Line(lambda _: None, lambda _: None, lambda _: None)
    monkeypatch.setattr(one, "_wire", wire)
    with pytest.raises(LostError, match="a request has no answer"):
        await one.ask("hello", {})
    assert wire.ended == "a request has no answer"
