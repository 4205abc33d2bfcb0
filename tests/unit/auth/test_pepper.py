"""The pepper file: made once, never silently replaced."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from services.auth.pepper import load_pepper


def test_it_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "pepper"
    pepper = load_pepper(path, may_create=True)
    assert len(pepper) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_pepper(path, may_create=True) == pepper
    assert load_pepper(path, may_create=False) == pepper
    assert [entry.name for entry in path.parent.iterdir()] == ["pepper"]


def test_it_is_not_made_where_accounts_depend_on_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pepper_file"):
        load_pepper(tmp_path / "pepper", may_create=False)
    assert not (tmp_path / "pepper").exists()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 31, b"x" * 4097])
def test_a_pepper_of_the_wrong_size_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="32 to 4096 bytes") as caught:
        load_pepper(path, may_create=True)
    assert not content or content.decode() not in str(caught.value)


def test_what_cannot_be_read_or_made_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_pepper(tmp_path, may_create=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be made"):
        load_pepper(tmp_path / "file" / "pepper", may_create=True)


def test_instances_that_start_at_once_agree(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    peppers: list[bytes] = []

    def start() -> None:
        barrier.wait()
        peppers.append(load_pepper(tmp_path / "pepper", may_create=True))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(peppers)) == 1
    assert len(peppers) == 8
