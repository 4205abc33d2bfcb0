from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.chat import Chat
from client.commands import COMMANDS, UsageError, completions, find, without_password
from client.display import Line
from client.replies import RoomInfo
from client.session import Session
from services.common.clock import FakeClock
from tests.helpers.fake_edge import FakeEdge


class Nowhere:
    def show(self, line: Line) -> None:
        pass

    def update(self) -> None:
        pass

    async def ask(self, question: str, *, is_secret: bool = False) -> str | None:
        return None


@pytest.fixture
def chat() -> Chat:
    chat = Chat(Nowhere(), clock=FakeClock())
    session = Session(FakeEdge(), clock=FakeClock())
    chat.attach(session)
    for room_id, name in (("r1", "Lobby"), ("r2", "tea room")):
        session.rooms.enter(RoomInfo(room_id, name, "e1", 0))
    chat.listed_rooms = {"r3": "attic", "r1": "Lobby"}
    chat.users = dict.fromkeys(["bob", "Bert", "ada\x1b[31m"])
    return chat


def test_every_command_that_was_promised_is_there() -> None:
    promised = (
        "help register login logout create join leave rooms users history switch file files get cancel trace quit"
    )
    assert list(COMMANDS) == promised.split()


def test_the_nearest_commands_are_suggested() -> None:
    assert find("JOIN").name == "join"
    for wrong, near in (("jion", "/join"), ("hsitory", "/history"), ("exit", "/help lists"), ("regist", "/register")):
        with pytest.raises(UsageError, match=near):
            find(wrong)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/", [f"/{c.name}{' ' if c.usage else ''}" for c in COMMANDS.values()]),
        ("/lo", ["/login ", "/logout"]),
        ("/LEA", ["/leave "]),
        ("/nothing", []),
        ("/nothing x", []),
        ("/join ", ["attic", "Lobby", '"tea room"']),
        ("/join t", ['"tea room"']),
        ('/join "te', ['"tea room"']),
        ("/switch ", ["Lobby", '"tea room"']),
        ("/switch lob", ["Lobby"]),
        ("/help hi", ["history"]),
        ("/login b", ["Bert", "bob"]),
        ("/quit ", []),
        ("hello b", ["Bert", "bob"]),
        ("hello ", []),
        ("", []),
        ("//b", []),
        ("ad", ["ada"]),
    ],
)
def test_completions(chat: Chat, line: str, expected: list[str]) -> None:
    assert [text for text, _ in completions(chat, line)] == expected


@pytest.mark.parametrize("line", ["/join t", '/join "te', "hello b", "/switch lob", "/join tea r"])
def test_a_completion_replaces_what_was_begun(chat: Chat, line: str) -> None:
    for text, replaced in completions(chat, line):
        whole = line[: len(line) - replaced] + text
        assert not completions(chat, whole) or text in [one for one, _ in completions(chat, whole)]
        assert len(whole.split('"')) in (1, 3)


@given(st.text())
def test_any_line_can_be_completed(line: str) -> None:
    empty = Chat(Nowhere(), clock=FakeClock())
    empty.attach(Session(FakeEdge(), clock=FakeClock()))
    for prefix in ("", "/", "/join "):
        completions(empty, prefix + line)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("/login ada secret", "/login ada"),
        ("/LOGIN ada 'my secret'", "/LOGIN ada"),
        ("/register ada secret secret", "/register ada"),
        ("  /login ada secret", "  /login ada"),
        ("/login ada", "/login ada"),
        ("/join a b c", "/join a b c"),
        ("login ada secret", "login ada secret"),
        ("", ""),
    ],
)
def test_passwords_are_not_remembered(line: str, kept: str) -> None:
    assert without_password(line) == kept
