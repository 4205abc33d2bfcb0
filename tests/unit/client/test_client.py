from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, str(ROOT / "client" / "client.py")],
        [sys.executable, "-m", "client"],
        [sys.executable, "-m", "deploy.cli", "chat"],
    ],
)
def test_every_way_in_runs_the_same_program(command: list[str]) -> None:
    done = subprocess.run([*command, "--plain", "localhost:1"], cwd=ROOT, input="", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "[ERROR] localhost:1 cannot be reached: nobody listens there\n"
    assert done.stdout == ""


def test_plain_mode_does_not_load_what_only_a_terminal_needs() -> None:
    program = (
        "import sys, client.client; status = client.client.main(['--plain', 'localhost:1']);"
        "print(status, sorted({name.partition('.')[0] for name in sys.modules} & {'prompt_toolkit', 'grpc'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, input="", capture_output=True, text=True)
    assert done.stdout == "1 []\n"
