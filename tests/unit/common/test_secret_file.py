"""A secret is the first line of a file, and errors do not tell what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.common.secret_file import SECRET_BYTES_MAX, read_secret

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("content", [b"correct horse", b"correct horse\n", b"correct horse\r\nmore\n"])
def test_the_first_line_is_the_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert read_secret(tmp_path / "secret", key="some_file") == "correct horse"


@pytest.mark.parametrize("content", [None, b"", b"\nsecond", b"hunter2\xff"])
def test_a_file_that_is_none_is_refused_by_its_key(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ValueError, match=r"^some_file: ") as caught:
        read_secret(tmp_path / "secret", key="some_file")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 10 * SECRET_BYTES_MAX)
    assert len(read_secret(tmp_path / "secret", key="some_file")) == SECRET_BYTES_MAX
