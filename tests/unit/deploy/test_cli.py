from __future__ import annotations

import subprocess
import sys

import pytest

from deploy import cli
from tests.helpers.stack import ROOT


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    program = """
import sys
from deploy import cli
try:
    cli.main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"grpc", "sqlalchemy", "cryptography", "asyncio", "prompt_toolkit", "msgspec"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("up", "certs", "chat", "admin", "bench"):
        assert f"\n    {command} " in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("parley 0.")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["up", "--port", "many"], ["certs", "user", "x"]])
def test_wrong_arguments_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: parley" in capsys.readouterr().err


def test_a_start_that_fails_is_explained_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--rooms", "2"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("parley: --rooms 2: ")
    assert told.count("\n") == 1


def test_commands_with_arguments_of_their_own_get_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def forward(command: str, arguments: list[str]) -> int:
        seen.append((command, arguments))
        return 7

    monkeypatch.setattr(cli, "_forward", forward)
    assert cli.main(["chat", "--help"]) == 7
    assert cli.main(["admin", "--home", "x", "stats"]) == 7
    assert seen == [("chat", ["--help"]), ("admin", ["--home", "x", "stats"])]


def test_bench_without_the_sources_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(cli, "SOURCES", tmp_path)
    with pytest.raises(SystemExit, match="source tree"):
        cli.main(["bench"])


def test_ctrl_c_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_up", interrupt)
    assert cli.main(["up"]) == 130
