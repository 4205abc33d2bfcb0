"""What a manifest may say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.backup import manifest as manifests
from deploy.backup.manifest import BackupError
from tests.unit.deploy.backup.installation import Installation

if TYPE_CHECKING:
    pass


def test_a_backup_that_somebody_forged_whole_is_told_by_its_digest(old: Installation, tmp_path: Path) -> None:
    made = old.back_up(tmp_path / "backup")
    old.execute("auth", "UPDATE accounts SET password_hash = 'mine'")
    old.back_up(tmp_path / "forged")
    manifests.read(tmp_path / "backup", digest=made.digest.upper())
    with pytest.raises(BackupError, match="not the backup with the digest"):
        manifests.read(tmp_path / "forged", digest=made.digest)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "files/../../x", "files//x", ".", "manifest.json"])
def test_a_manifest_cannot_name_what_is_not_in_the_backup(old: Installation, tmp_path: Path, path: str) -> None:
    old.back_up(tmp_path / "backup")
    manifest, _ = manifests.read(tmp_path / "backup")
    manifest.files[path] = (0, "0" * 64)
    for name in (manifests.NAME, manifests.DIGEST_NAME):
        (tmp_path / "backup" / name).unlink()
    manifests.write(tmp_path / "backup", manifest)
    with pytest.raises(BackupError, match="is not a manifest"):
        manifests.read(tmp_path / "backup")
