"""The client as people use it, in a pseudo-terminal and as a pipe, against the whole stack."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.chat_program import PASSWORD, Terminals, meet, plain, register
from tests.helpers.people import fresh
from tests.helpers.stack import ROOT, Stack, eventually, parley

# The child replaces itself at once, so what the warning fears cannot happen.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def admin(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        parley("admin", "--home", str(stack.home), *arguments), capture_output=True, text=True, cwd=ROOT, timeout=90
    )


def test_two_people_meet_talk_leave_and_find_it_all_again(stack: Stack, terminal: Terminals) -> None:
    ada, bob, room = fresh("ada"), fresh("bob"), fresh("tea")
    one, other = terminal(stack), terminal(stack)
    register(one, ada)
    register(other, bob)
    one.enter(f"/create {room} all about tea")
    one.wait_for(f"#{room}>")
    other.enter(f"/rooms {room}")
    other.wait_for("all about tea")
    other.enter(f"/join {room}")
    other.wait_for(f"#{room}>")
    one.wait_for(f"{bob} joined the room.")
    other.type("half a sen")
    other.wait_for("half a sen")
    one.enter("hello from ada")
    other.wait_for(f"{ada}: hello from ada")
    other.wait_for(lambda: f"#{room}> half a sen" in other.lines)
    other.enter("tence")
    one.wait_for(f"{bob}: half a sentence")
    one.wait_for(lambda: one.text.count("hello from ada") == 1)
    one.enter("/quit")
    assert one.wait_for_end() == 0
    again = terminal(stack, "--user", ada)
    again.wait_for(f"Password of {ada}:")
    again.enter(PASSWORD)
    again.wait_for(f"#{room}>")
    again.wait_for(f"{bob}: half a sentence")
    assert PASSWORD.encode() not in again.output
    other.wait_for(f"{ada} is online.")


def test_a_second_login_is_told_since_when_the_first_lives(stack: Stack, terminal: Terminals) -> None:
    name = fresh("ada")
    first, second = terminal(stack), terminal(stack)
    register(first, name)
    second.wait_for("/register NAME if not")
    second.enter(f"/login {name} '{PASSWORD}'")
    second.wait_for("End that session?")
    second.enter("no")
    second.wait_for("(since ")
    first.enter("/logout")  # it has not suffered; that it is gone is known elsewhere when this is answered
    first.wait_for("not logged in")
    first.enter("/quit")
    assert first.wait_for_end() == 0
    second.enter(f"/login {name} '{PASSWORD}'")
    second.wait_for("[SUCCESS]")


def test_a_pipe_sends_and_reads(stack: Stack, tmp_path: Path) -> None:
    ada, bob, room = fresh("ada"), fresh("bob"), fresh("tea")
    made = plain(stack, tmp_path, f"/create {room}\nfirst\n", ada, "--register")
    assert made.returncode == 0, made.stderr
    lines = "".join(f"line {n}\n" for n in range(50))
    done = plain(stack, tmp_path, lines, bob, "--register", "--room", room)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    read = plain(stack, tmp_path, "/history 60\n", bob)
    assert [line.split(": ", 1)[1] for line in read.stdout.splitlines()] == [
        "first",
        *(f"line {n}" for n in range(50)),
    ]
    wrong = plain(stack, tmp_path, "hi\n", bob, "--room", fresh("nowhere"))
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("[ERROR] ")


def test_killed_services_cost_no_message(own_stack: Stack, terminal: Terminals) -> None:
    one, other = terminal(own_stack), terminal(own_stack)
    ada, _, _ = meet(one, other)
    for number, service in enumerate(("edge-1", "rooms-1", "auth-1", "edge-1")):
        os.kill(own_stack.pids()[service], 9)
        one.enter(f"message {number}")
        other.wait_for(f"{ada}: message {number}", timeout_s=60)
        one.wait_for(f"{ada}: message {number}", timeout_s=60)
    shown = [line.split(": ", 1)[1] for line in other.lines if "message" in line]
    assert shown == [f"message {number}" for number in range(4)]
    assert own_stack.stop() == 0
    one.wait_for("[SYSTEM] The connection is lost")
    one.enter("written in the dark")
    own_stack.start()
    other.wait_for(f"{ada}: written in the dark", timeout_s=90)
    assert other.text.count("written in the dark") == 1


def test_operators_see_and_steer(own_stack: Stack, terminal: Terminals) -> None:
    ada, room = fresh("ada"), fresh("tea")
    one = terminal(own_stack)
    register(one, ada)
    one.enter(f"/create {room}")
    one.wait_for(f"#{room}>")
    [connection] = json.loads(admin(own_stack, "connections", "--json").stdout)
    assert (connection["username"], connection["edge"], connection["protocol"]) == (ada, "edge-1", 2)
    [account] = json.loads(admin(own_stack, "accounts", "list", "--json").stdout)
    assert (account["username"], account["online"]) == (ada, True)
    assert room in admin(own_stack, "rooms", "list").stdout
    changed = json.loads(admin(own_stack, "qos", "set", "--target", "low=1234", "--concurrency", "7", "--json").stdout)
    assert changed["edge-1"]["concurrency"] == 7
    assert "1234" in admin(own_stack, "qos", "show").stdout
    assert "uptime_seconds" in admin(own_stack, "stats").stdout
    drawn = admin(own_stack, "graphs").stdout.splitlines()
    assert drawn
    assert all(Path(path).is_file() for path in drawn)
    assert admin(own_stack, "rooms", "remove-member", room, ada, "--yes").returncode == 0
    one.wait_for("You are no longer a member of this room.")
    assert admin(own_stack, "accounts", "disable", ada).returncode == 1  # nobody is there to confirm
    assert admin(own_stack, "accounts", "disable", ada, "--yes").returncode == 0
    one.wait_for("This session was ended")
    eventually(lambda: not json.loads(admin(own_stack, "accounts", "list", "--json").stdout)[0]["online"])
    one.enter(f"/login {ada} '{PASSWORD}'")
    one.wait_for("[ERROR]")
    assert admin(own_stack, "accounts", "enable", ada).returncode == 0
    one.enter(f"/login {ada} '{PASSWORD}'")
    one.wait_for("[SUCCESS] Logged in")
