from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC

import pytest

from client import commands
from client.chat import Chat
from client.display import Line
from client.session import Session
from services.common.clock import FakeClock
from services.common.wire.codes import ErrorCode
from tests.helpers.fake_edge import FakeEdge


class Paper:
    """A screen whose lines can be read, and which answers what it was told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.answers: list[str | None] = []
        self.questions: list[tuple[str, bool]] = []

    def show(self, line: Line) -> None:
        self.lines.append(line.render(colour=False))

    def update(self) -> None:
        pass

    async def ask(self, question: str, *, is_secret: bool = False) -> str | None:
        self.questions.append((question, is_secret))
        return self.answers.pop(0) if self.answers else None


class Table:
    """A chat at a fake edge."""

    def __init__(self) -> None:
        self.paper = Paper()
        self.edge = FakeEdge()
        self.edge.accounts = {"ada": "correct horse", "bob": "battery staple"}
        self.clock = FakeClock()
        self.chat = Chat(self.paper, clock=self.clock, zone=UTC, shows_context=True)
        self.session = Session(self.edge, on_event=self.chat.on_event, clock=self.clock)
        self.chat.attach(self.session)

    async def type(self, *lines: str) -> list[str]:
        """Types lines; returns what was shown since."""
        before = len(self.paper.lines)
        for line in lines:
            await self.chat.handle_line(line)
            for _ in range(20):
                await asyncio.sleep(0)
        return self.paper.lines[before:]

    async def until(self, condition: Callable[[], object], *, advance_s: float = 0.0, patience: int = 1000) -> None:
        for _ in range(patience):
            if condition():
                return
            await asyncio.sleep(0.0005 if patience > 1000 else 0)  # what is on a thread needs real time
            if advance_s:
                await self.clock.advance(advance_s)
        raise AssertionError(f"it never came: {self.paper.lines}")


@pytest.fixture
async def table() -> AsyncIterator[Table]:
    table = Table()
    await table.session.start()
    yield table
    await table.session.close()


async def test_text_before_login_and_before_a_room_says_what_to_do(table: Table) -> None:
    [line] = await table.type("hello")
    assert line.startswith("[ERROR] You are not logged in: /login NAME")
    await table.type("/login ada 'correct horse'")
    [line] = await table.type("hello")
    assert line.startswith("[ERROR] You are in no room: /rooms")
    assert table.chat.error_count == 2


async def test_register_logs_in_and_asks_for_what_was_left_out(table: Table) -> None:
    table.paper.answers = ["eve", "a good password", "a good password"]
    shown = await table.type("/register")
    assert table.paper.questions == [
        ("User name: ", False),
        ("Password: ", True),
        ("The same password again: ", True),
    ]
    assert shown[:2] == ["[SUCCESS] The account eve is yours.", "[SUCCESS] Logged in as eve."]
    assert table.edge.accounts["eve"] == "a good password"
    assert await table.type("/login eve") == ["[SUCCESS] You are logged in as eve already."]
    [line, usage] = await table.type("/login ada")
    assert "/logout first" in line
    assert usage == "[ERROR] Usage: /login [USER [PASSWORD]]"


async def test_two_different_passwords_register_nothing(table: Table) -> None:
    table.paper.answers = ["a good password", "another one"]
    [line, _] = await table.type("/register eve")
    assert "not the same" in line
    assert "eve" not in table.edge.accounts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/register a b c", "in quotes"),
        ("/login", "A user name is needed"),
        ("/login ada", "A password is needed"),
        ("/join", "Which room?"),
        ("/create", "What is the room to be called?"),
        ("/switch", "You are in: none yet"),
        ("/leave", "Which room?"),
        ("/users", "Which room?"),
        ("/history", "The history of which room?"),
        ("/history 0", "A number from 1 to 1000"),
        ("/history 1001", "A number from 1 to 1000"),
        ("/history ٣", "A number from 1 to 1000"),
        ("/switch nowhere", "You are not in a room 'nowhere'"),
        ("/jion lobby", "Did you mean /join?"),
        ("/l", "Did you mean /login or /logout or /leave?"),
        ("/zzz", "/help lists them"),
        ("/", "/help lists the commands"),
        ("/ join", "/help lists the commands"),
        ("/etc/passwd\nsecond line", "A command is one line"),
        ("/help nothing", "There is no command /nothing"),
    ],
)
async def test_commands_explain_themselves(table: Table, line: str, said: str) -> None:
    shown = await table.type(line)
    assert said in "\n".join(shown)
    assert all(one.startswith("[ERROR] ") for one in shown)


async def test_requests_that_need_a_login_say_so(table: Table) -> None:
    for line in ("/logout", "/create tea", "/join tea", "/rooms"):
        [shown] = await table.type(line)
        assert shown == "[ERROR] You are not logged in."


async def test_empty_lines_do_nothing(table: Table) -> None:
    assert await table.type("", "   ", "\n", "\r\n") == []


async def test_a_wrong_password_and_another_login(table: Table) -> None:
    assert await table.type("/login ada wrong") == ["[ERROR] refused: invalid_credentials"]
    table.edge.has_old_session = True
    [line] = await table.type("/login ada 'correct horse'")
    assert line.startswith("[ERROR] refused: already_logged_in (since 08:00:00, ")
    table.edge.refuse("auth_request", ErrorCode.RATE_LIMITED, retry_after_s=30)
    assert await table.type("/login ada x") == ["[ERROR] refused: rate_limited (try again in 30 seconds)"]


async def test_rooms_talk_and_history(table: Table) -> None:
    await table.type("/login ada 'correct horse'")
    [made] = await table.type('/create "tea room" all about tea')
    assert made == "[SUCCESS] The room #tea room (room0000) is yours, and you are in it."
    assert await table.type("hello") == ["[08:00:00] ada: hello"]
    assert await table.type("//etc/passwd") == ["[08:00:00] ada: /etc/passwd"]
    table.edge.add_room("attic", room_id="attic123")
    shown = await table.type("/rooms")
    assert shown[0].split() == ["ID", "NAME", "ONLINE", "MEMBERS", "TOPIC"]
    assert shown[1].split() == ["*", "room0000", "tea", "room", "1", "1", "all", "about", "tea"]
    assert shown[2].split() == ["attic123", "attic", "0", "0"]
    assert (await table.type("/rooms nothing"))[0] == "No room matches 'nothing'."
    shown = await table.type("/join atti")
    assert shown == ["[SUCCESS] You are in #attic", "[SYSTEM] Online: ada"]
    assert await table.type("up here") == ["[08:00:00] ada: up here"]
    table.edge.say(table.edge.rooms["room0000"], "bob", "hello ada")
    await table.until(lambda: table.paper.lines[-1] == "[08:00:00] #tea room bob: hello ada")
    assert await table.type("/switch tea") == ["[SUCCESS] Your text goes to #tea room now."]
    assert await table.type("/history 2") == ["[08:00:00] ada: /etc/passwd", "[08:00:00] bob: hello ada"]
    assert (await table.type("/users"))[1].split() == ["ada", "owner", "online"]
    assert await table.type("/leave") == [
        "[SUCCESS] You left #tea room.",
        "[SYSTEM] You are still in: attic. /switch ROOM says where your text goes.",
    ]
    [line] = await table.type("to whom?")
    assert "No room is chosen" in line
    [line, _] = await table.type("/join nowhere")
    assert "There is no room 'nowhere'" in line


async def test_joining_shows_what_was_said_last_but_not_twice(table: Table) -> None:
    room = table.edge.add_room("lobby", "bob")
    for number in range(30):
        table.edge.say(room, "bob", f"old {number}")
    await table.type("/login ada 'correct horse'")
    shown = await table.type("/join lobby")
    assert [line for line in shown if "old" in line] == [f"[08:00:00] bob: old {n}" for n in range(20, 30)]
    assert await table.type("new") == ["[08:00:00] ada: new"]


async def test_history_pages_backwards_and_names_the_days(table: Table) -> None:
    room = table.edge.add_room("lobby", "ada")
    for number in range(450):
        table.edge.say(room, "bob", str(number))
    await table.type("/login ada 'correct horse'")
    table.clock._start += 86_400
    shown = await table.type("/history 450")
    assert shown[0] == "--- Friday, 2027-01-15 ---"
    assert shown[1:-1] == [f"[08:00:00] bob: {n}" for n in range(450)]
    assert shown[-1] == "--- Saturday, 2027-01-16 ---"


async def test_a_text_that_is_too_long_is_not_sent(table: Table) -> None:
    table.edge.add_room("lobby", "ada")
    await table.type("/login ada 'correct horse'")
    [line] = await table.type("x" * 4001)
    assert line == ("[ERROR] This is too long: 4001 characters, and a message may have 4000. Nothing was sent.")


async def test_a_text_that_fails_is_named(table: Table) -> None:
    table.edge.add_room("lobby", "ada")
    await table.type("/login ada 'correct horse'")
    table.edge.refuse("text_message", ErrorCode.FORBIDDEN)
    assert await table.type("y" * 50) == [f"[ERROR] Not sent to #lobby: “{'y' * 39}…”: refused: forbidden"]


async def test_presence_and_losses_are_told(table: Table) -> None:
    room = table.edge.add_room("lobby", "ada", "bob")
    await table.type("/login ada 'correct horse'")
    connection = table.edge.connections[0]
    for action in ("join", "online", "offline", "leave"):
        connection.send(table.edge.encoder.presence(room.room_id, action, username="bob"))
    connection.send(table.edge.encoder.presence(room.room_id, "count", online=120))
    connection.send(table.edge.encoder.presence(room.room_id, "waving", username="bob"))
    connection.event("notice", {"text": "tea\x1b[31m at five"})
    connection.send(table.edge.encoder.presence(room.room_id, "leave", username="ada"))
    await table.until(lambda: "no longer a member" in table.paper.lines[-1])
    assert table.paper.lines[-7:] == [
        "[SYSTEM] bob joined the room.",
        "[SYSTEM] bob is online.",
        "[SYSTEM] bob went offline.",
        "[SYSTEM] bob left the room.",
        "[SYSTEM] 120 people are online.",
        "[SYSTEM] From the operators: tea at five",
        "[SYSTEM] #lobby: You are no longer a member of this room.",
    ]


async def test_a_lost_connection_is_told_once(table: Table) -> None:
    table.edge.add_room("lobby", "ada")
    await table.type("/login ada 'correct horse'")
    table.edge.is_down = True
    before = len(table.paper.lines)
    table.edge.cut()
    await table.until(lambda: table.edge.attempts > 5, advance_s=1.0)
    table.edge.is_down = False
    await table.until(lambda: "Connected again." in table.paper.lines[-1], advance_s=1.0)
    assert table.paper.lines[before:] == [
        "[SYSTEM] The connection is lost: the server closed the connection. Trying to connect again …",
        "[SYSTEM] Connected again.",
    ]


async def test_the_end_of_a_login_is_told(table: Table) -> None:
    table.edge.add_room("lobby", "ada")
    await table.type("/login ada 'correct horse'")
    table.edge.connections[0].event("goodbye", {"reason": "revoked"})
    await table.until(lambda: "no longer logged in" in table.paper.lines[-1])
    told = "[SYSTEM] This session was ended, by you elsewhere or by an operator. /login logs in again."
    assert table.paper.lines[-2] == told
    assert table.chat.current is None


async def test_logout_and_quit(table: Table) -> None:
    await table.type("/login ada 'correct horse'")
    assert await table.type("/logout") == ["[SUCCESS] ada is logged out."]
    await table.type("/QUIT")
    assert table.chat.is_quitting


async def test_help_lists_every_command(table: Table) -> None:
    shown = "\n".join(await table.type("/help"))
    assert all(f"/{name}" in shown for name in commands.COMMANDS)
    for name in commands.COMMANDS:
        [usage, *details] = await table.type(f"/help {name}")
        assert usage.startswith(f"/{name}")
        assert details


@pytest.mark.parametrize("answer", ["yes", "no", None])
async def test_a_session_elsewhere_is_ended_only_by_who_says_so(table: Table, answer: str | None) -> None:
    table.edge.refuse("auth_request", ErrorCode.ALREADY_LOGGED_IN)
    table.paper.answers = [answer]
    lines = await table.type("/login ada 'correct horse'")
    assert table.paper.questions == [("ada is logged in somewhere else. End that session? Type yes: ", False)]
    logins = table.edge.sent("auth_request")
    if answer == "yes":
        assert [login.get("takeover") for login in logins] == [None, True]
        assert lines[0] == "[SUCCESS] Logged in as ada."
    else:
        assert len(logins) == 1
        assert lines[0].startswith("[ERROR] refused: already_logged_in")
