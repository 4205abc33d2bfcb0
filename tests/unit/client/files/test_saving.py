from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from client.files.errors import FileError, HashError
from client.files.saving import Part, discard_part, part_name

DATA = b"some bytes of a file"
SHA = hashlib.sha256(DATA).hexdigest()
PART = part_name("ab" * 16)


def part(folder: Path, *, size: int = len(DATA), name: str = PART) -> Part:
    return Part(folder, name, size=size)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_gets_its_name_at_its_end(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        saved = part(tmp_path)
        saved.append([DATA[:5], DATA[5:]])
        assert names(tmp_path) == [PART]
        path = saved.finish("plan.txt", SHA)
    finally:
        os.umask(old_mask)
    saved.close()
    assert path == tmp_path / "plan.txt"
    assert names(tmp_path) == ["plan.txt"]
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1


def test_a_wrong_hash_saves_nothing(tmp_path: Path) -> None:
    saved = part(tmp_path)
    saved.append([DATA[::-1]])
    with pytest.raises(HashError):
        saved.finish("plan.txt", SHA)
    saved.discard()
    assert names(tmp_path) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_bytes(b"mine")
    (tmp_path / "plan (1).txt").mkdir()
    (tmp_path / "plan (2).txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "plan (3).txt")
    saved = part(tmp_path)
    saved.append([DATA])
    assert saved.finish("plan.txt", SHA).name == "plan (4).txt"
    assert (tmp_path / "plan.txt").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("target", ["outside", "/dev/null", "."])
def test_a_link_at_the_target_is_not_followed(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    (folder / "plan.txt").symlink_to(outside if target == "outside" else target)
    saved = part(folder)
    saved.append([DATA])
    assert saved.finish("plan.txt", SHA) == folder / "plan (1).txt"
    assert outside.read_bytes() == b"mine"
    assert names(tmp_path) == ["downloads", "outside"]


def test_a_link_at_the_part_is_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "downloads", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"mine")
    (folder / PART).symlink_to(outside)
    with pytest.raises(FileError, match="link"):
        part(folder)
    (folder / PART).unlink()
    os.link(outside, folder / PART)  # a hard link to what is somebody's
    with pytest.raises(FileError, match="not touched"):
        part(folder)
    assert outside.read_bytes() == b"mine"


def test_the_folder_is_exchanged_for_a_link_meanwhile(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "downloads", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    saved = part(folder)
    saved.append([DATA])
    folder.rename(tmp_path / "moved")
    folder.symlink_to(elsewhere)
    saved.finish("plan.txt", SHA)
    assert names(elsewhere) == []
    assert names(tmp_path / "moved") == ["plan.txt"]


def test_another_file_in_the_place_of_the_part(tmp_path: Path) -> None:
    saved = part(tmp_path)
    saved.append([DATA])
    (tmp_path / PART).rename(tmp_path / "taken away")
    (tmp_path / PART).write_bytes(b"evil")
    with pytest.raises(FileError, match="another file"):
        saved.finish("plan.txt", SHA)
    saved.discard()
    assert names(tmp_path) == [PART, "taken away"]  # what is not its own stays


def test_another_run_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    first = part(tmp_path)
    first.append([DATA[:7]])
    first.close()
    second = part(tmp_path)
    assert (second.offset, second.is_older) == (7, True)
    second.append([DATA[7:]])
    assert second.finish("plan.txt", SHA).read_bytes() == DATA


def test_a_part_that_is_too_long_or_spoilt_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(b"x" * 100)
    saved = part(tmp_path)
    assert saved.offset == 0
    saved.append([DATA[::-1]])
    saved.restart()
    assert (saved.offset, saved.is_older) == (0, False)
    saved.append([DATA])
    assert saved.finish("plan.txt", SHA).read_bytes() == DATA


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "plan.txt").write_bytes(b"mine")
    saved = part(tmp_path)
    saved.append([DATA])
    path = saved.finish("plan.txt", SHA)
    assert (path.name, path.read_bytes()) == ("plan (1).txt", DATA)
    assert (tmp_path / "plan.txt").read_bytes() == b"mine"
    assert names(tmp_path) == ["plan (1).txt", "plan.txt"]


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(FileError, match="There is no folder"):
            part(folder)


def test_more_than_the_disk_has(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="too full"):
        part(tmp_path, size=2**60)
    assert all(name == PART for name in names(tmp_path))


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = part(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(FileError, match="The disk is full"):
        saved.append([DATA])
    saved.discard()
    assert names(tmp_path) == []


def test_a_part_is_discarded_once_and_nothing_else_is(tmp_path: Path) -> None:
    saved = part(tmp_path)
    saved.discard()
    saved.discard()
    assert names(tmp_path) == []
    (tmp_path / PART).symlink_to("/etc/passwd")
    (tmp_path / "mine").write_bytes(b"")
    for name in (PART, "mine", "../x", f"{PART}/../mine"):
        discard_part(tmp_path, name)
    assert names(tmp_path) == [PART, "mine"]
    discard_part(tmp_path / "missing", PART)
    (tmp_path / PART).unlink()
    (tmp_path / PART).write_bytes(b"")
    discard_part(tmp_path, PART)
    assert names(tmp_path) == ["mine"]
