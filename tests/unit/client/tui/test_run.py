from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.fake_edge import FakeRoom
from tests.helpers.served_edge import ServedEdge
from tests.helpers.terminal_program import TerminalProgram

ROOT = Path(__file__).resolve().parents[4]

# The served edge has a thread of its own; the child replaces itself at once, so what the warning fears cannot happen.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

Starter = Callable[..., TerminalProgram]


@pytest.fixture
def start(served: ServedEdge, tmp_path: Path) -> Iterator[Starter]:
    started: list[TerminalProgram] = []

    def starter(*arguments: str, columns: int = 80, with_ca: bool = True) -> TerminalProgram:
        env = {**os.environ, "TERM": "xterm-256color", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TZ": "UTC"}
        env.pop("NO_COLOR", None)
        env.pop("XDG_CONFIG_HOME", None)
        trust = ["--ca", str(served.ca)] if with_ca else []
        program = TerminalProgram(
            [sys.executable, "-m", "client", served.address, *trust, *arguments],
            columns=columns,
            env=env,
            cwd=str(tmp_path),
        )
        started.append(program)
        return program

    yield starter
    for program in started:
        program.close()


@pytest.fixture
def lobby(served: ServedEdge) -> FakeRoom:
    return served.do(lambda: served.edge.add_room("lobby", "ada", "bob"))


def log_in(program: TerminalProgram) -> None:
    program.wait_for("Password of ada:")
    program.enter("correct horse")
    program.wait_for("#lobby>")


def test_a_whole_session(start: Starter, served: ServedEdge) -> None:
    program = start()
    program.wait_for("/register NAME if not")
    program.enter("hello?")
    program.wait_for("[ERROR] You are not logged in")
    program.enter("/register eve")
    program.wait_for("Password:")
    program.enter("very secret words")
    program.wait_for("again:")
    program.enter("very secret words")
    program.wait_for("[SUCCESS] Logged in as eve.")
    assert "secret" not in program.text
    program.enter("/create tea all about tea")
    program.wait_for("#tea>")
    program.enter("hello, world")
    program.wait_for("[08:00:00] eve: hello, world")
    program.enter("//etc/passwd")
    program.wait_for("eve: /etc/passwd")
    program.enter("/jion x")
    program.wait_for("Did you mean /join?")
    program.enter("/join")
    program.wait_for("Usage: /join ROOM")
    program.enter("/rooms")
    program.wait_for("all about tea")
    program.enter("/users")
    program.wait_for("owner")
    program.enter("/quit")
    assert program.wait_for_end() == 0
    assert served.edge.accounts["eve"] == "very secret words"


def test_the_prompt_stays_whole_while_messages_arrive(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    program.type("half a sen")
    program.wait_for("#lobby> half a sen")
    for number in range(60):
        served.do(lambda number=number: served.edge.say(lobby, "bob", f"message {number}"))  # type: ignore[misc]
    program.wait_for("message 59")
    program.wait_for(lambda: "#lobby> half a sen" in program.lines)
    assert [line for line in program.lines if "half" in line] == ["#lobby> half a sen"]
    shown = [line for line in program.lines if "message" in line]
    assert shown == [f"[08:00:00] bob: message {n}" for n in range(60 - len(shown), 60)]
    assert len(shown) > 15
    program.enter("tence")
    program.wait_for("ada: half a sentence")
    program.wait_for(lambda: program.lines[-1].split() == ["live", "|", "ada", "|", "#lobby"])  # the toolbar


def test_hostile_text_moves_and_colours_nothing(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    evil = "a\x1b[2J\x1b[Hb\x1b]0;title\x07c\u202ed\x9b31me\r[SYSTEM] forged\n[09:00:00] root: trust me"
    served.do(lambda: served.edge.say(lobby, "b\x1b[31mob", evil))
    program.wait_for("trust me")
    assert "[08:00:00] bob: abcde [SYSTEM] forged" in program.lines
    assert "           | [09:00:00] root: trust me" in program.text.splitlines()
    assert b"title" not in program.output
    assert b"\x1b[2J\x1b[H" not in program.output
    assert b"\xc2\x9b" not in program.output


def test_a_pasted_text_of_several_lines_is_one_message(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    program.type("\x1b[200~first\r\nsecond\r\nthird\x1b[201~")
    program.wait_for("third")
    program.type("\r")
    program.wait_for("ada: first")
    assert [message.text for message in lobby.log] == ["first\nsecond\nthird"]
    program.type("\x1b[200~" + "x" * 4001 + "\x1b[201~")
    program.wait_for("xxxxxx")
    program.type("\r")
    program.wait_for("[ERROR] This is too long: 4001 characters")
    program.enter("/history")
    program.wait_for("| third")
    assert len(lobby.log) == 1


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    program.type("a mistake")
    program.wait_for("#lobby> a mistake")
    program.type("\x03")
    program.wait_for(lambda: "#lobby>" in program.lines)
    program.type("\x04")
    assert program.wait_for_end() == 0
    assert lobby.log == []


def test_tab_completes_commands_rooms_and_users(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    served.do(lambda: served.edge.add_room("tea room", "ada"))
    program = start("--user", "ada", "--room", "lobby")
    log_in(program)
    program.type("/sw\ttea\t")
    program.wait_for('#lobby> /switch "tea room"')
    program.type("\r")
    program.wait_for("#tea room>")
    program.type("hello bo\t")
    program.wait_for("#tea room> hello bob")


def test_the_input_history_knows_no_passwords(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start()
    program.wait_for("/register NAME if not")
    program.enter('/login ada "correct horse"')
    program.wait_for("#lobby>")
    program.type("\x1b[A")  # arrow up
    program.wait_for("#lobby> /login ada")
    assert "correct" not in program.text
    assert b"correct horse" not in program.output.rpartition(b"Logged in")[2]


def test_a_lost_connection_comes_back_with_what_was_missed_and_what_was_typed(
    start: Starter, served: ServedEdge, lobby: FakeRoom
) -> None:
    program = start("--user", "ada")
    log_in(program)
    served.stop_listening()
    served.cut()
    program.wait_for("[SYSTEM] The connection is lost")
    program.enter("typed while away")
    program.wait_for("1 not acknowledged yet")
    served.do(lambda: served.edge.say(lobby, "bob", "said while away"))
    served.listen()
    program.wait_for("ada: typed while away")
    program.wait_for("bob: said while away")
    assert program.text.count("said while away") == 1
    program.wait_for(lambda: program.lines[-1].strip().startswith("live"))


def test_the_terminal_is_left_as_it_was_after_a_signal(start: Starter, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    program.child.kill(signal.SIGTERM)
    assert program.wait_for_end() == 0
    assert program.output.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?2004l" in program.output[-200:]


def test_an_unknown_certificate_is_shown_and_trusted_only_after_yes(
    start: Starter, served: ServedEdge, lobby: FakeRoom, tmp_path: Path
) -> None:
    known_hosts = tmp_path / ".config" / "parley" / "known_hosts"
    refusing = start(with_ca=False, columns=120)
    refusing.wait_for("Type yes:")
    refusing.enter("no")
    assert refusing.wait_for_end() == 1
    assert not known_hosts.exists()
    accepting = start("--user", "ada", with_ca=False, columns=120)
    accepting.wait_for("Type yes:")
    accepting.enter("yes")
    log_in(accepting)
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    assert known_hosts.read_text().startswith(f"localhost:{served.port} sha256:")
    accepting.enter("/quit")
    assert accepting.wait_for_end() == 0
    again = start("--user", "ada", with_ca=False, columns=120)
    log_in(again)
    assert b"Type yes" not in again.output
    again.enter("/quit")
    again.wait_for_end()
    known_hosts.write_text(f"localhost:{served.port} sha256:{'0' * 64}\n")
    changed = start("--user", "ada", with_ca=False, columns=120)
    assert changed.wait_for_end() == 1
    assert "somebody may be listening in" in changed.text


def test_the_stack_on_this_machine_is_found_and_believed(
    start: Starter, served: ServedEdge, lobby: FakeRoom, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    processes = [{"name": "edge-1", "pid": 1, "client_port": served.port, "grpc": "", "prometheus": ""}]
    description = {"client_ca": str(served.ca), "grpc_ca": str(served.ca), "processes": processes}
    (tmp_path / "run" / "stack.json").write_text(json.dumps(description))
    program = start("--user", "ada", with_ca=False)
    log_in(program)


def test_no_color_and_narrow_terminals(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada", "--no-color", columns=30)
    log_in(program)
    served.do(lambda: served.edge.say(lobby, "bob", "wide " * 20 + "end"))
    program.wait_for("end")
    assert b"\x1b[1;3" not in program.output
    assert b"\x1b[36m" not in program.output


def test_ctrl_c_gives_up_on_a_command_that_takes_too_long(start: Starter, served: ServedEdge, lobby: FakeRoom) -> None:
    program = start("--user", "ada")
    log_in(program)
    served.edge.silent_types = {"list_rooms"}
    program.enter("/rooms")
    served.wait_until(lambda: bool(served.edge.sent("list_rooms")))
    program.type("typed mean\x03while")
    program.wait_for("[SYSTEM] Interrupted")
    program.wait_for("#lobby> typed meanwhile")
