# ruff: noqa: S608 -- the tests' own statements
"""Restoring backups of real databases, of both kinds; what does not fit is said, and nothing happens."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from deploy.backup import manifest as manifests
from deploy.backup import postgres
from deploy.backup.manifest import BackupError
from tests.unit.deploy.backup.installation import CONTENT, EPOCH, SHA256, Installation, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable


def test_everything_comes_back_under_a_new_epoch(make: Callable[[], Installation], tmp_path: Path) -> None:
    old, new = make().fill(), make()
    made = old.back_up(tmp_path / "backup")
    assert made.counts == {"accounts": 1, "rooms": 1, "messages": 2, "files": 1}
    assert new.restore(tmp_path / "backup") == []
    assert new.everything() == old.everything()
    [(epoch,)] = new.execute("rooms", "SELECT epoch FROM rooms")
    assert epoch != EPOCH
    assert len(epoch) == len(EPOCH)
    for service, table in (("auth", "sessions"), ("auth", "edge_boots"), ("rooms", "files WHERE state = 'open'")):
        assert new.execute(service, f"SELECT count(*) FROM {table}") == [(0,)]
    assert [sha256 for sha256, *_ in new.execute("rooms", "SELECT * FROM contents WHERE NOT is_removing")] == [SHA256]
    assert (new.places.contents / SHA256[:2] / SHA256).read_bytes() == CONTENT
    assert new.places.pepper.read_bytes() == old.places.pepper.read_bytes()
    assert not new.layout.restore_mark.exists()


def test_numbers_go_on_where_they_were(make: Callable[[], Installation], tmp_path: Path) -> None:
    old, new = make().fill(), make()
    old.back_up(tmp_path / "backup")
    new.restore(tmp_path / "backup")
    new.execute(
        "rooms",
        "INSERT INTO rooms (room_id, name, name_key, topic, is_private, epoch, last_seq, last_sent_at_ms,"
        " members_version, member_count, join_count, created_at_ms) VALUES ('r2','b','b','',false,'e',0,0,0,0,0,0)",
    )
    assert [number for (number,) in new.execute("rooms", "SELECT number FROM rooms ORDER BY 1")] == [1, 2]


def test_a_restored_backup_can_be_backed_up_and_restored_over_itself(
    make: Callable[[], Installation], tmp_path: Path
) -> None:
    old = make().fill()
    old.back_up(tmp_path / "backup")
    before = old.everything()
    with pytest.raises(BackupError, match="only --overwrite replaces"):
        old.restore(tmp_path / "backup")
    old.execute("auth", "INSERT INTO accounts VALUES ('user2', 'bob', 'bob', 'hash', 1, false)")
    old.restore(tmp_path / "backup", overwrite=True)
    assert old.everything() == before
    old.back_up(tmp_path / "again")


def test_certificates_come_along_when_asked_for_only(old: Installation, tmp_path: Path) -> None:
    (old.places.certificates / "client-ca-cert.pem").write_text("cert")
    old.back_up(tmp_path / "plain")
    old.back_up(tmp_path / "full", certificates=True)
    new = Installation(tmp_path / "new")
    with pytest.raises(BackupError, match="without --certificates"):
        new.restore(tmp_path / "plain", certificates=True)
    new.restore(tmp_path / "full", certificates=True)
    assert (new.places.certificates / "client-ca-cert.pem").read_text() == "cert"


def _cut(backup: Path) -> None:
    with (backup / "databases" / "rooms.db").open("r+b") as file:
        file.truncate(4096)


def _flip(backup: Path) -> None:
    path = backup / "files" / SHA256[:2] / SHA256
    path.write_bytes(CONTENT[:-1] + b"!")


def _forge(backup: Path) -> None:
    path = backup / manifests.NAME
    path.write_text(path.read_text().replace('"accounts": 1', '"accounts": 2'))


def _smuggle(backup: Path) -> None:
    (backup / "files" / "extra").write_text("not mine")


def _link(backup: Path) -> None:
    path = backup / "auth-pepper.key"
    path.rename(backup.parent / "elsewhere")
    path.symlink_to(backup.parent / "elsewhere")


def _link_folder(backup: Path) -> None:
    (backup / "more").symlink_to(backup / "files")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, r"rooms\.db: changed or cut off"),
        (_flip, "changed or cut off"),
        (_forge, "is damaged"),
        (_smuggle, "files/extra: not in the manifest"),
        (_link, r"symbolic link|Too many levels"),
        (_link_folder, "more: not in the manifest"),
        (lambda backup: (backup / "manifest.json").unlink(), "not finished"),
        (lambda backup: (backup / "auth-pepper.key").unlink(), r"auth-pepper\.key: missing"),
        (lambda backup: (backup / "manifest.json").write_text("[" * 100_000), "is damaged"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_and_changes_nothing(
    old: Installation, tmp_path: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    old.back_up(tmp_path / "backup")
    damage(tmp_path / "backup")
    before = snapshot(old.layout.home)
    with pytest.raises(BackupError, match=reason):
        old.restore(tmp_path / "backup", overwrite=True)
    assert snapshot(old.layout.home) == before


def test_a_restore_that_fails_half_way_leaves_its_mark_and_can_be_done_again(
    old: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.back_up(tmp_path / "backup")
    new = Installation(tmp_path / "new")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("deploy.backup.restore._swap", full)
        with pytest.raises(OSError, match="No space"):
            new.restore(tmp_path / "backup")
    assert new.layout.restore_mark.exists()
    new.restore(tmp_path / "backup", overwrite=True)
    assert new.everything() == old.everything()
    assert not new.layout.restore_mark.exists()


def test_another_pepper_moves_out_of_the_way(old: Installation, tmp_path: Path) -> None:
    old.back_up(tmp_path / "backup")
    old.places.pepper.write_bytes(b"q" * 32)
    moved = old.restore(tmp_path / "backup", overwrite=True)
    [path] = [path for path in moved if path.endswith("auth-pepper.key")]
    assert Path(path).read_bytes() == b"q" * 32
    assert old.places.pepper.read_bytes() == b"p" * 32


def test_a_journal_of_the_old_database_goes_with_it(old: Installation, tmp_path: Path) -> None:
    old.back_up(tmp_path / "backup")
    (old.layout.data / "rooms.db-wal").write_bytes(b"of the old one")
    moved = old.restore(tmp_path / "backup", overwrite=True)
    assert [path for path in moved if path.endswith("rooms.db-wal")]
    assert old.execute("rooms", "SELECT count(*) FROM messages") == [(2,)]


def test_kinds_do_not_mix(old: Installation, tmp_path: Path, postgres_url: str) -> None:
    old.back_up(tmp_path / "backup")
    with pytest.raises(BackupError, match="of sqlite, and here is postgresql"):
        Installation(tmp_path / "new", postgres_url).restore(tmp_path / "backup")


def test_services_that_run_on_postgresql_are_noticed(tmp_path: Path, postgres_url: str) -> None:
    old = Installation(tmp_path / "old", postgres_url).fill()
    old.back_up(tmp_path / "backup")
    with psycopg.connect(postgres_url), pytest.raises(BackupError, match="is running"):
        old.restore(tmp_path / "backup", overwrite=True)


def test_a_service_that_is_just_ending_on_postgresql_is_none_that_runs(tmp_path: Path, postgres_url: str) -> None:
    old = Installation(tmp_path / "old", postgres_url).fill()
    old.back_up(tmp_path / "backup")
    with psycopg.connect(postgres_url) as ending:
        closing = threading.Timer(0.3, ending.close)
        closing.start()
        old.restore(tmp_path / "backup", overwrite=True)
        closing.join()


def test_what_goes_wrong_in_postgresql_leaves_everything_as_it_was(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Installation(tmp_path / "old", postgres_url).fill()
    old.back_up(tmp_path / "backup")
    before = old.everything()

    def fail(*_: object, **__: object) -> int:
        raise BackupError("it went wrong")

    monkeypatch.setattr(postgres, "renew", fail)
    with pytest.raises(BackupError, match="it went wrong"):
        old.restore(tmp_path / "backup", overwrite=True)
    assert old.everything() == before
    assert old.execute("rooms", "SELECT epoch FROM rooms") == [(EPOCH,)]


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path, postgres_url: str) -> None:
    old = Installation(tmp_path / "old", postgres_url).fill()
    old.execute("rooms", "UPDATE alembic_version SET version_num = '9999'")
    old.back_up(tmp_path / "backup")
    with pytest.raises(BackupError, match="another version of Parley"):
        old.restore(tmp_path / "backup", overwrite=True)
    assert old.execute("rooms", "SELECT count(*) FROM messages") == [(2,)]
