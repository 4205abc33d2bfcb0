"""tests/security_test.py as a person calls it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import security_test
from tests.helpers.stack import ROOT
from tests.security.attempt import Attempt, demand


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
    assert passed > 45, done.stdout
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


@pytest.mark.parametrize("how", ["fails", "breaks", "hangs"])
def test_one_check_that_does_not_pass_is_a_status_of_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    async def planted(_: Attempt) -> str:
        if how == "hangs":
            await asyncio.sleep(3_600)
        demand(how != "fails", "planted")
        raise KeyError("planted")

    async def fine(_: Attempt) -> str:
        return "fine"

    monkeypatch.setattr(security_test, "SECTIONS", {"rights": {"planted": planted, "fine": fine}})
    monkeypatch.setattr(security_test, "CHECK_S", 0.1)
    status = security_test.main(["--host", "localhost", "--port", "1", "--ca", "none"])
    assert status == 1
    assert "1 passed, 1 failed, 0 skipped" in capsys.readouterr().out


def test_all_that_passes_is_a_status_of_0(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(_: Attempt) -> str:
        return "fine"

    monkeypatch.setattr(security_test, "SECTIONS", {"rights": {"fine": fine}})
    assert security_test.main(["--host", "localhost", "--port", "1", "--ca", "none"]) == 0
