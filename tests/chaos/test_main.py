"""What `parley check` says to those who ask for what cannot be: status 2, and one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.__main__ import UNUSABLE, main
from tests.helpers import certificates
from tests.helpers.stack import free_ports

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--home", "{folder}"], "no stack is up in"),
        (["--host", "localhost"], "needs --ca"),
        (["--host", "localhost", "--port", "x", "--ca", "{ca}"], "invalid literal"),
        (["--host", "localhost", "--port", "{free}", "--ca", "{ca}"], "edge-1: cannot connect"),
        (["--host", "localhost", "--port", "{free}", "--ca", "{folder}"], "parley check: "),
        (["--home", "{folder}", "--restore"], "a stack of our own"),
        (["--history", "{folder}/none"], "No such file"),
        (["--history", "{ca}"], "line 1: "),
    ],
)
def test_nothing_could_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    ca = str(certificates.shared().client_ca)
    places = {"folder": str(tmp_path), "ca": ca, "free": str(free_ports())}
    assert main([argument.format(**places) for argument in arguments]) == UNUSABLE
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
