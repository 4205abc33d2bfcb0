"""Servers that a test needs and that somebody else has written: found, or the test is skipped by name."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.stack import free_ports


def find_program(name: str, *directories: Path) -> str:
    """The program's path. Where it is not installed the test is skipped, or, with PARLEY_REQUIRE_ALL=1, fails."""
    places = os.pathsep.join([*map(str, directories), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=places)
    if found is not None:
        return found
    if os.environ.get("PARLEY_REQUIRE_ALL") == "1":
        pytest.fail(f"{name} is not installed, and PARLEY_REQUIRE_ALL=1 lets nothing be left out", pytrace=False)
    pytest.skip(f"{name} is not installed")


def find_go_program(name: str) -> str:
    """The path of a program that `go install` makes. Without Go the test is skipped: nothing can make the program."""
    places = [Path(sys.executable).parent, Path.home() / "go" / "bin"]
    if shutil.which("go") is None and not any(shutil.which(name, path=str(place)) for place in places):
        pytest.skip(f"{name} is not installed, nor is Go, which would install it")
    return find_program(name, *places)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, and that the kernel gives to nobody who asks for any."""
    return free_ports()
