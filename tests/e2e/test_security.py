"""tests/security_test.py as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.stack import ROOT


@pytest.mark.timeout(300)
def test_every_check_of_the_report_passes() -> None:
    done = subprocess.run(
        # The scanner takes minutes: `python tests/security_test.py` has it.
        [sys.executable, "tests/security_test.py", "--skip", "scanner"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed, failed, skipped = (int(part.split()[0]) for part in done.stdout.splitlines()[-1].split(", "))
    assert failed == 0
    assert passed > 30, done.stdout
    if os.environ.get("PARLEY_REQUIRE_ALL") == "1":
        assert skipped == 0, done.stdout
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tests/security_test.py", "--host", "localhost", "--port", "1", "--ca", str(tmp_path / "no"),
         "--only", "rights"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "0 passed" in done.stdout
