"""The outbox on disk: whatever happens to the file, what was accepted and not settled is there, once and in order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import outbox_file
from client.address import Address
from client.errors import OutboxUnwritableError
from client.outbox_file import OutboxFile, default_folder, journals

PATH_NAME = "outbox.jsonl"


def opened(folder: Path) -> OutboxFile:
    return OutboxFile(folder / PATH_NAME)


def test_what_is_not_settled_is_found_again(tmp_path: Path) -> None:
    one = opened(tmp_path)
    one.add("k1", "room", "first\nline \u2028 \U0001f600")
    one.add("k2", "room", "second")
    one.add("k3", "other", "third")
    one.settle("k2")
    one.settle("unknown")
    one.close()
    one.close()
    again = opened(tmp_path)
    assert again.texts() == [("k1", "room", "first\nline \u2028 \U0001f600"), ("k3", "other", "third")]
    again.close()


def test_the_file_is_the_users_alone(tmp_path: Path) -> None:
    journal = journals(tmp_path / "state" / "outbox", Address())("ada")
    assert journal is not None
    journal.add("k", "room", "secret")
    folder = tmp_path / "state" / "outbox"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert not any("ada" in path.name for path in folder.iterdir())
    journal.close()


def test_one_client_at_a_time_has_it(tmp_path: Path) -> None:
    open_journal = journals(tmp_path, Address())
    one = open_journal("ada")
    assert one is not None
    assert open_journal("ada") is None
    bob = open_journal("bob")
    assert bob is not None
    elsewhere = journals(tmp_path, Address("elsewhere"))("ada")
    assert elsewhere is not None
    for journal in (one, bob, elsewhere):
        journal.close()
    again = open_journal("ada")
    assert again is not None
    again.close()


def test_without_a_folder_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert journals(tmp_path / "file" / "outbox", Address())("ada") is None


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), garbage=st.binary(max_size=20))
def test_a_line_that_was_cut_short_costs_nothing_that_was_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    one = opened(folder)
    for number in range(5):
        one.add(f"k{number}", "room", f"text {number}")
    one.settle("k0")
    one.close()
    path = folder / PATH_NAME
    data = path.read_bytes()[:cut]
    path.write_bytes(data + garbage.replace(b"\n", b""))
    whole = data.count(b"\n")
    again = opened(folder)
    kept = [key for key, _, _ in again.texts()]
    again.close()
    expected = [f"k{number}" for number in range(min(5, whole)) if whole < 6 or number]
    assert kept[: len(expected)] == expected or kept == [f"k{number}" for number in range(1, 5)]


def test_a_disk_that_is_full_refuses_and_leaves_the_rest_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(tmp_path)
    one.add("k1", "room", "first")
    real = os.write

    def half(file: int, data: bytes) -> int:
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox_file.os, "write", half)
    with pytest.raises(OutboxUnwritableError, match="No space"):
        one.add("k2", "room", "second")
    monkeypatch.undo()
    one.add("k3", "room", "third")
    one.close()
    again = opened(tmp_path)
    assert [key for key, _, _ in again.texts()] == ["k1", "k3"]
    with pytest.raises(OutboxUnwritableError):
        one.add("k4", "room", "fourth")
    again.close()


def test_settled_lines_are_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "REWRITE_BYTES", 1_000)
    one = opened(tmp_path)
    one.add("waits", "room", "waits")
    for number in range(200):
        one.add(f"k{number}", "room", "x")
        one.settle(f"k{number}")
    assert (tmp_path / PATH_NAME).stat().st_size < 1_200
    one.close()
    again = opened(tmp_path)
    assert again.texts() == [("waits", "room", "waits")]
    again.close()


def test_the_folder_is_where_xdg_says() -> None:
    home = {"HOME": "/people/ada"}
    assert default_folder({**home, "XDG_STATE_HOME": "/x"}) == Path("/x/parley/outbox")
    assert default_folder({**home, "XDG_STATE_HOME": "x"}) == Path("/people/ada/.local/state/parley/outbox")
    assert default_folder(home) == Path("/people/ada/.local/state/parley/outbox")
