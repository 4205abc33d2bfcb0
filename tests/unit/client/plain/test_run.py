from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.common.wire.codes import ErrorCode
from tests.helpers.served_edge import ServedEdge

ROOT = Path(__file__).resolve().parents[4]


class Pipe:
    """Starts the plain client at the fake edge."""

    def __init__(self, served: ServedEdge, folder: Path) -> None:
        self.served = served
        self.folder = folder
        self.password_file = folder / "password"
        self.password_file.write_text("correct horse\n")
        self._open: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str, with_ca: bool = True) -> list[str]:
        trust = ["--ca", str(self.served.ca)] if with_ca else []
        return [sys.executable, "-m", "client", self.served.address, "--plain", *trust, *arguments]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder), "TZ": "UTC"}

    def run(self, text: str, *arguments: str, with_ca: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, with_ca=with_ca),
            input=text, capture_output=True, text=True, cwd=self.folder, env=self.env, timeout=60,
        )  # fmt: skip

    def open(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=self.folder, env=self.env,
        )  # fmt: skip
        self._open.append(process)
        return process

    def close(self) -> None:
        for process in self._open:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    @property
    def as_ada(self) -> list[str]:
        return ["--user", "ada", "--password-file", str(self.password_file)]


@pytest.fixture
def pipe(served: ServedEdge, tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(served, tmp_path)
    yield pipe
    pipe.close()


def lobby(served: ServedEdge, *members: str) -> Callable[[], list[str]]:
    room = served.do(lambda: served.edge.add_room("lobby", *members))
    return lambda: [message.text for message in room.log]


def test_a_line_is_sent_and_acknowledged(pipe: Pipe, served: ServedEdge) -> None:
    log = lobby(served)
    done = pipe.run("hi\n", *pipe.as_ada, "--room", "lobby")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert log() == ["hi"]


def test_many_lines_keep_their_order_and_none_is_lost(pipe: Pipe, served: ServedEdge) -> None:
    log = lobby(served, "ada")
    done = pipe.run("".join(f"line {n}\n" for n in range(3000)), *pipe.as_ada)
    assert (done.returncode, done.stderr) == (0, "")
    assert log() == [f"line {n}" for n in range(3000)]


def test_an_account_is_made_where_there_is_none(pipe: Pipe, served: ServedEdge) -> None:
    log = lobby(served)
    arguments = ["--user", "eve", "--password-file", str(pipe.password_file), "--register", "--room", "lobby"]
    assert pipe.run("one\n", *arguments).returncode == 0
    assert pipe.run("two\n", *arguments).returncode == 0
    assert log() == ["one", "two"]
    pipe.password_file.write_text("not the same")
    done = pipe.run("three\n", *arguments)
    assert done.returncode == 1
    assert done.stderr == "[ERROR] refused: invalid_credentials\n"


def test_commands_and_texts_that_begin_with_a_slash(pipe: Pipe, served: ServedEdge) -> None:
    log = lobby(served, "ada", "bob")
    done = pipe.run("//etc\n/history\n/users\n", *pipe.as_ada)
    assert done.returncode == 0
    assert log() == ["/etc"]
    assert "[08:00:00] ada: /etc" in done.stdout
    assert "bob" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/join nowhere\n", "There is no room 'nowhere'"),
        ("x" * 4001 + "\n", "4001 characters"),
        ("a\x1b[2J\n", "control characters"),
        ("/nonsense\n", "/help lists them"),
    ],
)
def test_what_fails_is_told_and_the_rest_goes_on(pipe: Pipe, served: ServedEdge, text: str, said: str) -> None:
    log = lobby(served, "ada")
    done = pipe.run(f"before\n{text}after\n", *pipe.as_ada)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""
    assert log() == ["before", "after"]


def test_a_refused_text_is_an_error(pipe: Pipe, served: ServedEdge) -> None:
    lobby(served, "ada")
    served.do(lambda: served.edge.refuse("text_message", ErrorCode.FORBIDDEN))
    done = pipe.run("hi\n", *pipe.as_ada)
    assert done.returncode == 1
    assert "Not sent to #lobby: “hi”: refused: forbidden" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--room", "nowhere"], "no_such_room"), (["--room", "lobby", "--user", "nobody"], "invalid_credentials")],
)
def test_without_login_or_room_nothing_is_sent(pipe: Pipe, served: ServedEdge, arguments: list[str], said: str) -> None:
    log = lobby(served)
    done = pipe.run("hi\n", *pipe.as_ada, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert log() == []


def test_an_unknown_certificate_is_refused_with_a_hint(pipe: Pipe, served: ServedEdge) -> None:
    done = pipe.run("hi\n", *pipe.as_ada, with_ca=False)
    assert done.returncode == 1
    assert "--ca FILE" in done.stderr
    assert served.edge.requests == []


def test_incoming_messages_are_lines_while_the_input_stays_open(pipe: Pipe, served: ServedEdge) -> None:
    room = served.do(lambda: served.edge.add_room("lobby", "ada", "bob"))
    process = pipe.open(*pipe.as_ada)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    served.wait_until(lambda: len(room.log) == 1)
    served.do(lambda: served.edge.say(room, "bob", "one\x1b[31m\ntwo"))
    assert process.stdout.readline() == "[08:00:00] bob: one\n"
    assert process.stdout.readline() == "           | two\n"
    process.stdin.close()
    assert process.wait(20) == 0


def test_a_lost_connection_in_the_middle_loses_and_doubles_nothing(pipe: Pipe, served: ServedEdge) -> None:
    room = served.do(lambda: served.edge.add_room("lobby", "ada"))
    process = pipe.open(*pipe.as_ada)
    assert process.stdin is not None
    for part in range(5):
        process.stdin.write("".join(f"{part * 100 + n}\n" for n in range(100)))
        process.stdin.flush()
        served.wait_until(lambda part=part: len(room.log) > part * 100 + 10)  # type: ignore[misc]
        served.cut()
    process.stdin.close()
    assert process.wait(60) == 0
    assert [message.text for message in room.log] == [str(n) for n in range(500)]


def test_a_login_that_an_operator_ended_is_an_error(pipe: Pipe, served: ServedEdge) -> None:
    served.do(lambda: served.edge.add_room("lobby", "ada"))
    process = pipe.open(*pipe.as_ada)
    served.wait_until(lambda: any(one.username for one in served.edge.connections))
    served.do(lambda: served.edge.connections[0].event("goodbye", {"reason": "revoked"}))
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert "This session was ended, by you elsewhere or by an operator" in process.stderr.read()


def test_a_reader_that_went_away_ends_it_quietly(pipe: Pipe, served: ServedEdge) -> None:
    room = served.do(lambda: served.edge.add_room("lobby", "ada", "bob"))
    process = pipe.open(*pipe.as_ada)
    assert process.stdout is not None
    served.wait_until(lambda: any(one.username for one in served.edge.connections))
    process.stdout.close()
    served.do(lambda: served.edge.say(room, "bob", "anybody?"))
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""
