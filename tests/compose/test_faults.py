"""Containers are killed, stopped and started again while people talk: what was acknowledged is not lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.__main__ import BEGUN
from tests.compose.engine import ROOT, docker
from tests.helpers.stack import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compose.engine import Compose

pytestmark = pytest.mark.compose

TALK_S = 60
MOVE_IN_S = 100  # what breaks before anybody talks proves nothing


def test_the_delivery_promise_holds_while_containers_die(stack: Compose, tmp_path: Path) -> None:
    counts, log = tmp_path / "counts.json", tmp_path / "check.log"
    command = [
        sys.executable, "-m", "tests.chaos", "--host", "127.0.0.1", "--port", str(stack.port), "--ca", str(stack.ca),
        "--seconds", str(TALK_S), "--people", "8", "--json", str(counts),
    ]  # fmt: skip
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as check:
        try:
            eventually(lambda: check.poll() is not None or BEGUN in log.read_text(), timeout_s=MOVE_IN_S)
            _break_things(stack, check)
            status = check.wait(300)
        finally:
            check.kill()
    print(log.read_text())
    assert status == 0, log.read_text()
    assert json.loads(counts.read_text())
    eventually(lambda: all(_is_healthy(stack, name) for name in stack.containers()), timeout_s=60)


def _break_things(stack: Compose, check: subprocess.Popen[bytes]) -> None:
    """Five kinds of trouble, each with time to heal. The last one is over long before people stop talking."""
    for service, number, kind in (
        ("edge", 1, "kill"),
        ("rooms-1", 1, "kill"),
        ("redis", 1, "restart"),
        ("auth", 1, "kill"),
        ("edge", 2, "restart"),
    ):
        assert check.poll() is None, "the check ended early"
        container = stack.container(service, number)
        if kind == "kill":
            docker("kill", container)
            time.sleep(1)
            docker("start", container)  # the engine restarts what dies, but not what somebody killed
        else:
            docker("restart", container)
        time.sleep(3)


def _is_healthy(stack: Compose, name: str) -> bool:
    service, _, number = name.rpartition(".")
    return stack.health(service, int(number)) == "healthy"


def test_a_process_that_dies_by_itself_is_started_again(stack: Compose) -> None:
    container = stack.container("metrics")
    before = docker("inspect", "--format", "{{.RestartCount}}", container)
    docker("exec", container, "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    eventually(lambda: docker("inspect", "--format", "{{.RestartCount}}", container) != before, timeout_s=30)
    eventually(lambda: stack.health("metrics") == "healthy", timeout_s=60)


def test_what_was_written_survives_down_and_up(stack: Compose, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery")
    chat = [
        sys.executable, "-m", "deploy.cli", "chat", f"127.0.0.1:{stack.port}", "--ca", str(stack.ca), "--plain",
        "--user", "keeper", "--password-file", str(password),
    ]  # fmt: skip
    first = subprocess.run(
        [*chat, "--register"],
        cwd=ROOT,
        input="/create cellar\nkept for later\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    stack.compose("down")
    stack.up()
    again = subprocess.run(
        [*chat, "--room", "cellar"], cwd=ROOT, input="/history\n", capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "kept for later" in again.stdout


def test_backup_wipe_restore(stack: Compose, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery")

    def chat(*lines: str, room: str | None = None) -> str:
        done = subprocess.run(
            [
                sys.executable, "-m", "deploy.cli", "chat", f"127.0.0.1:{stack.port}", "--ca", str(stack.ca), "--plain",
                "--user", "saver", "--password-file", str(password), "--register", *(["--room", room] if room else []),
            ],
            cwd=ROOT, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tool = ("run", "--rm", "-T", "backup", "parley")
    chat("/create attic", "before the backup")
    said = stack.compose(*tool, "backup", "--certificates", "/var/lib/parley/backups/one")
    assert "digest " in said
    chat("after the backup", room="attic")
    stack.compose("stop", "haproxy", "edge", "auth", "rooms-1", "rooms-2")
    volumes = [f"{stack.project}_files", f"{stack.project}_auth-data"]
    wipe = [f"--volume={volume}:/wipe/{number}" for number, volume in enumerate(volumes)]
    docker("run", "--rm", "--user", "0", *wipe, "parley:test", "sh", "-c", "rm -rf /wipe/*/*")
    wiped = "DROP SCHEMA rooms CASCADE; DROP SCHEMA auth CASCADE; CREATE SCHEMA rooms AUTHORIZATION rooms;"
    stack.compose(
        "exec", "-T", "postgres", "psql", "-q", "-d", "parley", "-c", f"{wiped} CREATE SCHEMA auth AUTHORIZATION auth;"
    )
    said = stack.compose(*tool, "restore", "--certificates", "/var/lib/parley/backups/one")
    assert "restored " in said
    stack.up()
    history = chat("/history", room="attic")
    assert "before the backup" in history
    assert "after the backup" not in history
