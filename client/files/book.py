"""The book: the unfinished transfers of one account at one server, on the disk, so that another run goes on with them.

A JSON file, replaced as a whole when a transfer begins, learns its id, or ends; not while it moves. The file is the
user's alone (0600), and one client's at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from client.address import Address
from client.files.errors import FileError
from client.files.transfer import Entry
from client.outbox_file import default_folder as outbox_folder

BOOK_BYTES_MAX: Final = 1_048_576
"""A hundred entries with paths of the longest kind; a larger file is not ours."""


class Book(Protocol):
    """Where unfinished transfers are kept."""

    def entries(self) -> list[Entry]:
        """What an earlier run left."""
        ...

    def keep(self, entries: Sequence[Entry]) -> None:
        """These are all that there are now. Raises FileError; then what was kept before is still kept."""
        ...

    def close(self) -> None:
        """Gives the book back; what is in it stays."""
        ...


OpenBook = Callable[[str], Book | None]
"""Opens the book of a user name; None where there is none to be had."""


class _Page(msgspec.Struct):
    version: int
    transfers: list[msgspec.Raw]


_VERSION: Final = 1


def default_folder(environ: Mapping[str, str]) -> Path:
    """Where the books are: beside the outboxes."""
    return outbox_folder(environ).with_name("transfers")


def books(folder: Path, address: Address) -> OpenBook:
    """The books of one server's accounts. None where another client of the account runs, or nothing can be kept."""

    def open_book(username: str) -> Book | None:
        name = hashlib.sha256(f"{address}\0{username}".encode()).hexdigest()[:32]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return BookFile(folder / f"{name}.json")
        except OSError:
            return None

    return open_book


class BookFile:
    """One file, locked. Raises OSError where it cannot be opened, BlockingIOError where another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock: int | None = os.open(path.with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.close()
            raise

    def entries(self) -> list[Entry]:
        """What an earlier run left. What cannot be read is passed over."""
        found: list[Entry] = []
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            with self.path.open("rb") as file:
                page = msgspec.json.decode(file.read(BOOK_BYTES_MAX), type=_Page)
            for raw in page.transfers if page.version == _VERSION else ():
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append(msgspec.json.decode(raw, type=Entry))
        return found

    def keep(self, entries: Sequence[Entry]) -> None:
        """These are all that there are now."""
        if self._lock is None:
            return
        raw = [msgspec.Raw(msgspec.json.encode(entry)) for entry in entries]
        data = msgspec.json.encode(_Page(_VERSION, raw))
        temporary = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(temporary, "wb", opener=lambda name, _: os.open(name, flags, 0o600)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as problem:
            raise FileError(f"This cannot be kept on the disk ({problem.strerror}).") from problem

    def close(self) -> None:
        """Gives the book back. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


class NoBook:
    """For a client that may keep nothing: transfers end with it."""

    def entries(self) -> list[Entry]:
        """Nothing."""
        return []

    def keep(self, entries: Sequence[Entry]) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        """Nothing to give back."""
