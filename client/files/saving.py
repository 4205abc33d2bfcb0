"""Saving: bytes from others go into a folder, under a name that was free, and nowhere else.

While a file comes in it has a hidden name of its own that nobody could foresee; it gets its name only when its hash is
right. Everything goes through the folder's descriptor: the folder cannot be exchanged for another one meanwhile, no
link is followed, nothing that is there is written to, and only the user may read what is new. All of it may block.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from client.files.errors import FileError, HashError, because
from client.files.names import SAME_NAME_MAX, alternatives

PART_PREFIX: Final = ".parley-"
PART_SUFFIX: Final = ".part"

_MODE: Final = 0o600
_NEW: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HASH_BLOCK_BYTES: Final = 1024 * 1024
_SPARE_BYTES: Final = 1024 * 1024
"""What a download leaves free: names and sizes take room too."""


def part_name(token: str) -> str:
    """The name of a file that is coming in; `token` is random."""
    return f"{PART_PREFIX}{token}{PART_SUFFIX}"


class Part:
    """A file that is coming in, below `folder`. `offset` says how far it has come. Raises FileError."""

    def __init__(self, folder: Path, name: str, *, size: int) -> None:
        """Goes on with the part of that name where it is one, and begins it where there is none."""
        self.folder = folder
        self.name = name
        self.offset = 0
        self.is_older = False  # some of it was written by an earlier run of the program
        self._hash = hashlib.sha256()
        self._handle = -1
        try:
            self._folder = os.open(folder, _FOLDER)
        except OSError as problem:
            raise _no_folder(folder, problem) from problem
        try:
            self._open(size)
            self._check_room(size - self.offset)
        except OSError as problem:
            self.close()
            raise because("saved", folder, problem) from problem
        except BaseException:
            self.close()
            raise

    def _open(self, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._handle = os.open(self.name, _OLD, dir_fd=self._folder)
        if self._handle < 0:
            self._handle = os.open(self.name, _NEW, _MODE, dir_fd=self._folder)
            return
        status = os.fstat(self._handle)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        if not is_ours:
            raise FileError(f"{self.folder / self.name} is not what this program left there: it is not touched.")
        if status.st_size > size:
            self.restart()
            return
        while block := os.pread(self._handle, _HASH_BLOCK_BYTES, self.offset):
            self._hash.update(block)
            self.offset += len(block)
            self.is_older = True

    def _check_room(self, needed: int) -> None:
        status = os.fstatvfs(self._folder)
        free = status.f_bavail * status.f_frsize
        if needed and free < needed + _SPARE_BYTES:
            raise FileError(f"The disk is too full: {needed} bytes are to be saved in {self.folder}, {free} are free.")

    def append(self, pieces: Sequence[bytes]) -> None:
        """Writes behind what is there."""
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                self._hash.update(piece)
                self.offset += len(piece)
        except OSError as problem:
            raise because("saved", self.folder, problem) from problem

    def restart(self) -> None:
        """Throws away what has come in."""
        try:
            os.ftruncate(self._handle, 0)
        except OSError as problem:
            raise because("saved", self.folder, problem) from problem
        self._hash, self.offset, self.is_older = hashlib.sha256(), 0, False

    def finish(self, wanted: str, sha256: str) -> Path:
        """Gives the file the name, or the first one like it that is free. Raises HashError before that."""
        if self._hash.hexdigest() != sha256:
            raise HashError("What arrived is not what was sent. Nothing was saved.")
        try:
            os.fsync(self._handle)
            self._check_own()
            name = self._take_name(wanted)
            os.fsync(self._folder)
        except OSError as problem:
            raise because("saved", self.folder / wanted, problem) from problem
        return self.folder / name

    def _check_own(self) -> None:
        ours, there = os.fstat(self._handle), os.stat(self.name, dir_fd=self._folder, follow_symlinks=False)
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise FileError(f"Somebody put another file in the place of {self.folder / self.name}. Nothing was saved.")

    def _take_name(self, wanted: str) -> str:
        for name in alternatives(wanted):
            try:
                self._link(name)
            except FileExistsError:
                continue
            return name
        raise FileError(f"There are {SAME_NAME_MAX} files like {wanted} in {self.folder} already. Nothing was saved.")

    def _link(self, name: str) -> None:
        """Neither of the two ways can replace what is there. Raises FileExistsError, OSError."""
        try:
            os.link(self.name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, such as FAT: take the name first, and put the file there
            os.close(os.open(name, _NEW, _MODE, dir_fd=self._folder))
            os.rename(self.name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            os.unlink(self.name, dir_fd=self._folder)

    def discard(self) -> None:
        """Removes what has come in, if this made it. Idempotent."""
        with contextlib.suppress(OSError, FileError):
            self._check_own()
            os.unlink(self.name, dir_fd=self._folder)
        self.close()

    def close(self) -> None:
        """Lets go of it; what has come in stays. Idempotent."""
        for descriptor in (self._handle, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._handle = self._folder = -1


def discard_part(folder: Path, name: str) -> None:
    """Removes what an earlier run left, where that is a file of this user's. Never raises."""
    if not (name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)) or "/" in name:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, _FOLDER)
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def _no_folder(folder: Path, problem: OSError) -> FileError:
    if isinstance(problem, FileNotFoundError | NotADirectoryError):
        return FileError(f"There is no folder {folder}.")
    return FileError(f"Nothing can be saved in {folder}: {problem.strerror}.")
