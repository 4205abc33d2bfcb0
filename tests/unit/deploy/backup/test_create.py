"""Making backups: what goes into them, and when there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.backup import copying
from deploy.backup.manifest import BackupError
from tests.unit.deploy.backup.installation import SHA256, Installation, snapshot

if TYPE_CHECKING:
    pass


def test_a_backup_keeps_nothing_that_nobody_needs_and_is_its_owners(old: Installation, tmp_path: Path) -> None:
    old.back_up(tmp_path / "backup")
    found = snapshot(tmp_path / "backup")
    assert set(found) == {
        "manifest.json", "manifest.sha256", "auth-pepper.key", "databases/auth.db", "databases/rooms.db",
        f"files/{SHA256[:2]}/{SHA256}",
    }  # fmt: skip
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    for name in found:
        assert (tmp_path / "backup" / name).stat().st_mode & 0o077 == 0, name


def test_what_is_damaged_already_is_not_backed_up(old: Installation, tmp_path: Path) -> None:
    (old.places.contents / SHA256[:2] / SHA256).write_bytes(b"rotten")
    with pytest.raises(BackupError, match="is damaged"):
        old.back_up(tmp_path / "backup")
    (old.places.contents / SHA256[:2] / SHA256).unlink()
    with pytest.raises(BackupError, match="missing"):
        old.back_up(tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_a_damaged_database_is_not_backed_up(old: Installation, tmp_path: Path) -> None:
    path = old.layout.data / "rooms.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 4096)
    with pytest.raises(BackupError, match=r"damaged|cannot be copied|malformed"):
        old.back_up(tmp_path / "backup")


def test_an_installation_without_its_pepper_is_not_backed_up(old: Installation, tmp_path: Path) -> None:
    old.places.pepper.unlink()
    with pytest.raises(BackupError, match="no password can be verified"):
        old.back_up(tmp_path / "backup")


def test_nothing_is_written_where_something_is(old: Installation, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    with pytest.raises(BackupError, match="is there already"):
        old.back_up(tmp_path / "backup")
    (tmp_path / "other.part").mkdir()
    with pytest.raises(BackupError, match="was cut off"):
        old.back_up(tmp_path / "other")


def test_a_disk_that_is_full_leaves_no_half_of_a_backup(
    old: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying.HashedFile, "write", full)
    with pytest.raises(OSError, match="No space"):
        old.back_up(tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))


def test_a_server_that_is_away_is_a_reason_without_a_password(tmp_path: Path) -> None:
    away = Installation(tmp_path / "old", "postgresql://parley:hunter2@127.0.0.1:1/x")
    with pytest.raises(BackupError, match="PostgreSQL: ") as caught:
        away.back_up(tmp_path / "backup")
    assert "hunter2" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
