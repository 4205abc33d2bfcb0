"""Bytes from one file to another, hashed on the way and synced at the end."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_BYTES: Final = 1024 * 1024
_PRIVATE: Final = 0o600


class HashedFile:
    """A new file that knows its size and SHA-256. Raises OSError as files do, also where it exists already."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        self._file = os.fdopen(descriptor, "wb")
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Appends."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> None:
        """Syncs and closes."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())


def copy(source: Path, target: Path) -> tuple[int, str]:
    """Copies a file that `target` must not have yet. Returns its size and SHA-256. Raises OSError."""
    with source.open("rb") as stream:
        written = HashedFile(target)
        try:
            while block := stream.read(_BLOCK_BYTES):
                written.write(block)
        finally:
            written.close()
    return written.size, written.sha256


def measure(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file; symbolic links are not followed. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as stream:
        return _measure(stream)


def _measure(stream: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
