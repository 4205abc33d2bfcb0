from __future__ import annotations

from pathlib import Path

import pytest

from client.files.paths import SHOWN_MAX, completions, default_downloads, typed_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("plan.pdf", "Plan two.pdf", ".hidden", "evil\x1b[2J", "line\nbreak"):
        (tmp_path / name).write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("p", ["photos/", "plan.pdf"]),
        ("", ["photos/", "Plan two.pdf", "plan.pdf"]),
        ("Plan t", ["Plan two.pdf"]),
        ("photos/", ["photos/a.jpg"]),
        ("./ph", ["./photos/"]),
        ("~/pl", ["~/plan.pdf"]),
        (".", [".hidden"]),
        ("e", []),
        ("missing/x", []),
        ("a\0b/", []),
    ],
)
def test_paths_that_begin_like_that(folder: Path, begun: str, found: list[str]) -> None:
    assert sorted(completions(begun)) == sorted(found)


def test_whole_paths_and_many(folder: Path) -> None:
    assert completions(f"{folder}/pl") == [f"{folder}/plan.pdf"]
    assert completions("", only_folders=True) == ["photos/"]
    for number in range(300):
        (folder / f"n{number}").write_text("")
    assert len(completions("n")) == SHOWN_MAX


def test_what_was_typed(folder: Path) -> None:
    assert typed_path("~/x") == folder / "x"
    assert typed_path("a/../b") == folder / "b"
    assert typed_path("/etc/./x") == Path("/etc/x")
    assert default_downloads({"HOME": "/nowhere/ada"}) == Path("/nowhere/ada/Downloads")
