from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from client.files.errors import FileChangedError, FileError
from client.files.source import BLOCK_BYTES, Source


def test_a_file_is_read_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = os.urandom(2 * BLOCK_BYTES + 5)
    path.write_bytes(data)
    source = Source(path)
    digest, offset = hashlib.sha256(), 0
    while offset < source.size:
        offset = source.hash_into(digest, offset)
    assert (source.size, digest.hexdigest()) == (len(data), hashlib.sha256(data).hexdigest())
    assert source.read(7, 5) == data[7:12]
    source.check_unchanged()
    source.close()
    source.close()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in [
        (tmp_path / "missing", "There is no file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a file"),
        (Path("/dev/null"), "not a file"),
        (Path("a\0b"), "cannot be the name"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(FileError, match=why):
            Source(path)


def test_a_file_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    source = Source(path)
    path.write_bytes(b"01234")
    with pytest.raises(FileChangedError, match="shorter"):
        source.read(0, 10)
    with pytest.raises(FileChangedError, match="changed"):
        source.check_unchanged()
    source.close()
