"""Files with the client as people use it: in a terminal and as a pipe, against the whole stack."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from tests.helpers.chat_program import PASSWORD, Terminals, environment, meet, plain
from tests.helpers.people import fresh
from tests.helpers.stack import Stack

# The child replaces itself at once, so what the warning fears cannot happen.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

DATA = os.urandom(3_000_000)


def test_a_file_goes_from_one_terminal_to_another(stack: Stack, terminal: Terminals, tmp_path: Path) -> None:
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "my plan.bin").write_bytes(DATA)
    one, other = terminal(stack), terminal(stack, "--downloads", str(tmp_path / "got"))
    ada, _, _ = meet(one, other)
    one.type(f"/file {folder}/my\t")
    one.wait_for("my plan.bin")
    one.enter("")
    one.wait_for("[SUCCESS] my plan.bin (2.9 MiB) is sent.")
    found = other.find(r"\[file my plan\.bin, 2\.9 MiB: /get ([0-9a-f]{8})\]")
    other.enter(f"/get {found[1]}")
    other.wait_for("[SUCCESS] my plan.bin (2.9 MiB) is saved as")
    saved = tmp_path / "got" / "my plan.bin"
    assert saved.read_bytes() == DATA
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    other.enter(f"/get {found[1]}")
    # It says so afterwards; a program whose terminal nobody reads would stop before.
    other.wait_for((tmp_path / "got" / "my plan (1).bin").exists)
    other.enter("/files")
    other.wait_for(ada)
    other.enter("/get nothing")
    other.wait_for("[ERROR] No file 'nothing' is known here")


def test_a_pipe_sends_and_fetches(stack: Stack, tmp_path: Path) -> None:
    ada, room = fresh("ada"), fresh("tea")
    (tmp_path / "plan.bin").write_bytes(DATA)
    lines = f"/create {room}\n/file {tmp_path}/plan.bin\n/file {tmp_path}/missing\n"
    sent = plain(stack, tmp_path, lines, ada, "--register")
    assert "[SUCCESS] plan.bin (2.9 MiB) is sent." in sent.stderr
    assert "[ERROR] There is no file" in sent.stderr
    assert sent.returncode == 1  # because of the one that is missing
    got = plain(stack, tmp_path, f"/get plan.bin {tmp_path}/copy.bin\n", ada, "--room", room)
    assert got.returncode == 0, got.stderr
    assert hashlib.sha256((tmp_path / "copy.bin").read_bytes()).digest() == hashlib.sha256(DATA).digest()
    assert [path.name for path in tmp_path.glob(".parley-*")] == []
    assert PASSWORD not in got.stderr
    assert environment(tmp_path)["HOME"] == str(tmp_path)
