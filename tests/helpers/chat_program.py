"""`parley chat` as people start it: in a terminal, and as a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.helpers.people import fresh
from tests.helpers.stack import ROOT, Stack, parley
from tests.helpers.terminal_program import TerminalProgram

PASSWORD = "correct horse battery"

Terminals = Callable[..., TerminalProgram]


def environment(home: Path) -> dict[str, str]:
    env = {**os.environ, "TERM": "xterm-256color", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    env.pop("NO_COLOR", None)
    return env


def register(program: TerminalProgram, name: str) -> None:
    program.wait_for("/register NAME if not")
    program.enter(f"/register {name}")
    for question in ("Password:", "again:"):
        program.wait_for(question)
        program.enter(PASSWORD)
    program.wait_for(f"[SUCCESS] Logged in as {name}.")


def meet(one: TerminalProgram, other: TerminalProgram) -> tuple[str, str, str]:
    """Two new people in a new room, which the first of them has made; their names and the room's."""
    ada, bob, room = fresh("ada"), fresh("bob"), fresh("tea")
    register(one, ada)
    register(other, bob)
    one.enter(f"/create {room}")
    one.wait_for(f"#{room}>")
    other.enter(f"/join {room}")
    other.wait_for(f"#{room}>")
    return ada, bob, room


def plain(stack: Stack, folder: Path, text: str, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    command = parley(
        "chat", "--home", str(stack.home), "--plain", "--user", user, "--password-file", str(password_file)
    )
    return subprocess.run(
        [*command, *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(folder),
        timeout=90,
    )
