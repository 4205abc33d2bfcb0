"""A file that is being sent: opened once, and watched for changes. Everything here may block."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from client.files.errors import FileChangedError, FileError, because

BLOCK_BYTES: Final = 1024 * 1024
"""Hashed at a time: the interpreter lock is given back meanwhile."""


class Source:
    """An open regular file. Raises FileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Without O_NONBLOCK a named pipe would be waited for here.
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as problem:
            raise _unreadable(path, problem) from problem
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
            raise FileError(f"{path} is {kind}: only files can be sent.")
        self.size = status.st_size
        self.mtime_ns = status.st_mtime_ns

    def read(self, offset: int, count: int) -> bytes:
        """The bytes from there on. Raises FileChangedError where there are fewer."""
        try:
            data = os.pread(self._handle, count, offset)
        except OSError as problem:
            raise because("read", self.path, problem) from problem
        if len(data) < count:
            raise FileChangedError(f"{self.path} became shorter while it was being sent.")
        return data

    def hash_into(self, digest: hashlib._Hash, offset: int) -> int:
        """Adds the next block to a hash; returns where the one behind it begins."""
        data = self.read(offset, min(BLOCK_BYTES, self.size - offset))
        digest.update(data)
        return offset + len(data)

    def check_unchanged(self) -> None:
        """Raises FileChangedError where the file was written to since it was opened."""
        status = os.fstat(self._handle)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise FileChangedError(f"{self.path} was changed while it was being sent.")

    def close(self) -> None:
        """Gives it back. Idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def _unreadable(path: Path, problem: OSError | ValueError) -> FileError:
    if isinstance(problem, OSError):
        return because("read", path, problem)
    return FileError(f"{str(path)!r} cannot be the name of a file.")  # a NUL in it
