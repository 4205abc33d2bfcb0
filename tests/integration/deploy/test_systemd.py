"""The systemd units: systemd takes every line of them, and the commands in them exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.stack import ROOT, parley

UNITS = ROOT / "deploy" / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir())
EXPOSURE_MAX = 2.0  # of 10; what systemd itself calls OK
ANALYZE_S = 60


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("PARLEY_REQUIRE_ALL") == "1":
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=ANALYZE_S)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that is here in place of the installed one."""
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/parley/.venv/bin/parley", sys.executable)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_systemd_takes_every_line(units: Path, name: str) -> None:
    done = analyze("verify", "--man=no", str(units / name))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "parley" in line]
    assert (done.returncode, ours) == (0, [])


def test_a_line_that_is_none_is_found(units: Path) -> None:
    unit = units / "parley.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".service")])
def test_it_exposes_little(units: Path, name: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(units / name))
    level = re.search(rf"exposure level for {name}: ([0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize(("unit", "command"), [("parley.service", "up"), ("parley-backup.service", "backup")])
def test_its_options_exist(unit: str, command: str) -> None:
    line = re.search(rf"/opt/parley/\.venv/bin/parley {command} (.*)", (UNITS / unit).read_text())
    assert line is not None
    known = subprocess.run(
        parley(command, "--help"), capture_output=True, text=True, cwd=ROOT, timeout=ANALYZE_S
    ).stdout
    for option in re.findall(r"--[a-z-]+", line[1]):
        assert option in known, option
