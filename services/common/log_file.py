"""The log file that all processes of a stack append to, rotated by size.

Each line is one `write` with O_APPEND, which the kernel puts at the end as a whole, so lines of several processes do
not mix. Whoever finds the file full renames it, under a lock that the processes share; the others notice that
the name stands for another file now and open it anew (which makes an outside logrotate work too).
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# 50 MB is some 250,000 lines; six files bound what logs may take of the disk to 300 MB.
FILE_BYTES_MAX: Final = 50_000_000
OLD_FILES: Final = 5


class LogFile:
    """An append-only file that several processes share."""

    def __init__(
        self, path: Path, *, bytes_max: int = FILE_BYTES_MAX, old_files: int = OLD_FILES, mode: int = 0o640
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._old_files = old_files
        self._mode = mode
        self._mutex = threading.Lock()
        self._fd = -1

    def write(self, line: bytes) -> bool:
        """Appends one line. A full disk or a lost directory loses the line, never stops the service; returns whether it
        was written whole."""
        with self._mutex:
            try:
                self._open_current()
                is_whole = os.write(self._fd, line) == len(line)
                if os.fstat(self._fd).st_size >= self._bytes_max:
                    self._rotate()
            except OSError:
                self._close()
                return False
            return is_whole

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        with self._mutex:
            self._close()

    def _open_current(self) -> None:
        if self._fd >= 0:
            try:
                if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                    return
            except FileNotFoundError:
                pass
            self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)

    def _rotate(self) -> None:
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have rotated while this one waited for the lock.
            if self._path.stat().st_size >= self._bytes_max:
                for number in range(self._old_files - 1, 0, -1):
                    if self._old(number).exists():
                        self._old(number).replace(self._old(number + 1))
                self._path.replace(self._old(1))
        finally:
            os.close(lock)
        self._close()

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
