"""tests/load_test.py as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.helpers.stack import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.stack import Stack


def test_50_clients_lose_nothing(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "tests/load_test.py", "50", "--home", str(stack.home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = {line[:18].strip(): line[18:].strip() for line in done.stdout.splitlines()}
    assert told["clients connected"] == "50/50"
    assert told["messages sent"] == told["acknowledged"] == "500"
    assert told["delivered"] == "25000 of 25000"
    assert told["errors"] == "0"


def test_a_server_that_is_not_there_is_an_error(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "tests/load_test.py", "2", "--host", "localhost", "--port", "1", "--ca", stack.ca],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "0/2" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_home_without_a_stack_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tests/load_test.py", "2", "--home", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == f"load_test: no stack has its home in {tmp_path}: No such file or directory\n"
