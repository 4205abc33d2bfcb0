"""stats_file: performance_stats.json, one JSON line an interval, for people and for programs that read along.

A line is written with one system call at the end of the file, so that whoever reads along sees whole lines. A crash
may still leave a torn line behind: `repair` removes it at the next start, so that every line of the file parses.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

# About 1 kB a minute: a file holds a week, and all of them together a month.
FILE_BYTES_MAX = 10 * 1024 * 1024
# Older files kept, as performance_stats.json.1 (the newest) and so on.
OLD_FILES_KEPT = 4
_BLOCK_BYTES = 65_536


class StatsFile:
    """Appends to the file, and renames it when it is full. All calls block for a disk write.

    Args:
        path: The file; its directory is made when it is missing.
        file_bytes_max: A line that would make the file longer starts a new one.
    """

    def __init__(self, path: Path, *, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = path
        self._file_bytes_max = file_bytes_max

    def repair(self) -> int:
        """Remove a torn last line and return how many bytes it had. A line that lacks only its end gets it."""
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                whole = _end_of_last_line(file.fileno(), size)
                if whole == size:
                    return 0
                if size - whole <= _BLOCK_BYTES and _is_statistics(os.pread(file.fileno(), size - whole, whole)):
                    file.write(b"\n")
                    return 0
                file.truncate(whole)
                return size - whole
        except FileNotFoundError:
            return 0

    def append(self, timestamp: datetime, stats: Mapping[str, float]) -> None:
        """Write one line. Raises OSError; then nothing of the line is left in the file."""
        record = {"timestamp": timestamp.isoformat(timespec="milliseconds"), "stats": dict(stats)}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        size = self._path.stat().st_size if self._path.exists() else 0
        if size and size + len(line) > self._file_bytes_max:
            self._rotate()
            size = 0
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, size)
                raise OSError(f"only {written} of {len(line)} bytes fitted on the disk")
        finally:
            os.close(descriptor)

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, OLD_FILES_KEPT + 1))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Return how many bytes of the file belong to whole lines."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _is_statistics(tail: bytes) -> bool:
    try:
        return isinstance(json.loads(tail), dict)
    except ValueError:
        return False
