"""The client in a terminal while processes are killed (-9) under it: it says how things stand, and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.helpers.chat_program import Terminals, meet
from tests.helpers.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The child replaces itself at once, so what the warning fears cannot happen.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

FILE_BYTES = 80_000_000
LINES = 300  # the server takes 100 at once and 20 a second from then on
PATIENCE_S = 90.0


@pytest.fixture
def two_edges() -> Iterator[Stack]:
    with running_stack(edges=2) as running:
        yield running


def test_a_file_goes_on_at_the_other_edge(two_edges: Stack, terminal: Terminals, tmp_path: Path) -> None:
    data = os.urandom(FILE_BYTES)
    (tmp_path / "plan.bin").write_bytes(data)
    one, other = terminal(two_edges), terminal(two_edges, "--downloads", str(tmp_path / "got"))
    ada, _, _ = meet(one, other)
    one.enter(f"/file {tmp_path}/plan.bin")
    one.find(r"↑ plan\.bin  \S+  [1-5][0-9] %")
    assert two_edges.process is not None
    two_edges.process.send_signal(signal.SIGSTOP)  # the supervisor: the edge stays dead
    try:
        os.kill(two_edges.pids()["edge-1"], signal.SIGKILL)
        one.wait_for("[SYSTEM] The connection is lost")
        one.enter("did it arrive?")
        one.wait_for("[SYSTEM] Connected again.", timeout_s=PATIENCE_S)
        one.wait_for("[SUCCESS] plan.bin (76.3 MiB) is sent.", timeout_s=PATIENCE_S)
        other.wait_for(f"{ada}: did it arrive?", timeout_s=PATIENCE_S)
        found = other.find(r"\[file plan\.bin, 76\.3 MiB: /get ([0-9a-f]{8})\]", timeout_s=PATIENCE_S)
        other.enter(f"/get {found[1]}")
        other.wait_for("[SUCCESS] plan.bin (76.3 MiB) is saved as", timeout_s=PATIENCE_S)
        assert (tmp_path / "got" / "plan.bin").read_bytes() == data
        assert other.text.count(f"{ada}: did it arrive?") == 1
        assert other.text.count(f"{ada}: [file plan.bin") == 1
    finally:
        two_edges.process.send_signal(signal.SIGCONT)


def test_a_flood_of_lines_outlives_rooms(two_edges: Stack, terminal: Terminals) -> None:
    one, other = terminal(two_edges), terminal(two_edges)
    ada, _, _ = meet(one, other)
    last = f"line {LINES - 1:03}."
    assert two_edges.process is not None
    try:
        for number in range(LINES):
            one.enter(f"line {number:03}.")
            if number == LINES // 3:
                # The supervisor: rooms stays dead until it has been seen, however long all that typing takes.
                two_edges.process.send_signal(signal.SIGSTOP)
                os.kill(two_edges.pids()["rooms-1"], signal.SIGKILL)
        one.wait_for("not acknowledged yet", timeout_s=PATIENCE_S)
    finally:
        two_edges.process.send_signal(signal.SIGCONT)
    # The sender's first: a program whose terminal nobody reads stops before long.
    one.wait_for(lambda: last in one.text and "not acknowledged yet" not in one.text, timeout_s=PATIENCE_S)
    other.wait_for(last, timeout_s=PATIENCE_S)
    assert "[ERROR]" not in one.text
    shown = re.findall(rf"{ada}: line ([0-9]{{3}})\.", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", other.output.decode()))
    assert shown == [f"{number:03}" for number in range(LINES)]
