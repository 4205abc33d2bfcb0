from __future__ import annotations

from pathlib import Path

import pytest

from client.address import Address
from client.arguments import Options, read_options, read_password


def read(*argv: str, is_terminal: bool = True, **environ: str) -> Options:
    return read_options(argv, environ=environ, is_terminal=is_terminal)


def test_the_defaults() -> None:
    options = read()
    assert options == Options(address=None, home=Path())
    assert options.has_colour
    assert not options.is_plain


def test_several_addresses() -> None:
    options = read("a.example,b.example:99,[::1]:7")
    assert options.address == Address("a.example")
    assert options.others == (Address("b.example", 99), Address("::1", 7))
    for wrong in ("a.example,", ",", "a,b:x"):
        with pytest.raises(SystemExit):
            read(wrong)


def test_everything(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    options = read(
        "example.org:99", "--plain", "--user", "ada", "--password-file", str(file), "--register",
        "--room", "lobby", "--ca", "ca.pem", "--home", "/srv", "--no-color",
    )  # fmt: skip
    assert options == Options(
        address=Address("example.org", 99),
        home=Path("/srv"),
        ca=Path("ca.pem"),
        username="ada",
        password="correct horse",
        room="lobby",
        is_plain=True,
        registers=True,
        has_colour=False,
    )
    assert "correct horse" not in repr(options)


def test_without_a_terminal_it_is_plain_and_without_colour() -> None:
    options = read(is_terminal=False)
    assert options.is_plain
    assert not options.has_colour


def test_no_color_is_respected() -> None:
    assert not read(NO_COLOR="1").has_colour
    assert read(NO_COLOR="").has_colour


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a:b"], "not a port"),
        (["--plain", "--user", "ada"], "--password-file"),
        (["--register"], "need --user"),
        (["--password-file", "/nowhere/at/all", "--user", "ada"], "/nowhere/at/all"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_what_cannot_be_done_is_said(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" s \n\n", " s \n"),
        ("pä".encode(), "pä"),
    ],
)
def test_only_the_last_line_end_is_not_part_of_a_password(tmp_path: Path, content: bytes, password: str) -> None:
    (tmp_path / "p").write_bytes(content)
    assert read_password(tmp_path / "p") == password


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"\n", "empty"), (b"x" * 5000, "long"), (b"\xff", "UTF-8")]
)
def test_files_that_are_no_password(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_password(tmp_path / "p")
