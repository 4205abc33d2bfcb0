"""The outbox on disk: what one account has written to one server and the server has not acknowledged.

One line of JSON for each text that was accepted and for each that is settled; what was accepted and not settled is
sent at the next login, under the key that it had, so a client that was killed loses nothing and doubles nothing. A line
is synced before the text counts as accepted; one that a crash cut short is the last one, and was never accepted.
The file is the user's alone (0600), and one client's at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from client.address import Address
from client.errors import OutboxUnwritableError

REWRITE_BYTES = 1_048_576
"""Settled lines are thrown away when the file has become so large; what waits is much less."""

Kept = tuple[str, str, str]
"""Key, room id and text."""


class Journal(Protocol):
    """Where accepted texts are kept until they are settled."""

    def texts(self) -> list[Kept]:
        """What was accepted and not settled, oldest first."""
        ...

    def add(self, key: str, room_id: str, text: str) -> None:
        """Keeps a text. Raises OutboxUnwritableError; then it is not kept."""
        ...

    def settle(self, key: str) -> None:
        """Forgets a text: it is stored, or its writer was told that it never will be. Ignores keys that it has not."""
        ...

    def close(self) -> None:
        """Gives the file back; what is not settled stays in it."""
        ...


OpenJournal = Callable[[str], Journal | None]
"""Opens the journal of a user name; None where there is none to be had."""


def default_folder(environ: Mapping[str, str]) -> Path:
    """Where the files are, by the XDG base directory specification."""
    configured = environ.get("XDG_STATE_HOME", "")
    # The specification says that a relative path there is to be ignored.
    home = Path(environ.get("HOME") or Path.home())
    base = Path(configured) if configured.startswith("/") else home / ".local" / "state"
    return base / "parley" / "outbox"


def journals(folder: Path, address: Address) -> OpenJournal:
    """The journals of one server's accounts. None where another client of the account runs, or nothing can be kept."""

    def open_journal(username: str) -> Journal | None:
        name = hashlib.sha256(f"{address}\0{username}".encode()).hexdigest()[:32]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return OutboxFile(folder / f"{name}.jsonl")
        except OSError:
            return None

    return open_journal


class OutboxFile:
    """One file, locked. Raises OSError where it cannot be opened, BlockingIOError where another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: dict[str, Kept] = {}
        self._size = 0
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file: int | None = None
        self._is_torn = False  # the last line may be there in part, or without having been accepted
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
            self._rewrite()
        except BaseException:
            self.close()
            raise

    def texts(self) -> list[Kept]:
        """What was accepted and not settled, oldest first."""
        return list(self._waiting.values())

    def add(self, key: str, room_id: str, text: str) -> None:
        """Keeps a text. Raises OutboxUnwritableError; then it is not kept."""
        try:
            self._append({"key": key, "room": room_id, "text": text})
            assert self._file is not None  # _append has written to it
            os.fdatasync(self._file)
        except OSError as error:
            self._is_torn = True
            raise OutboxUnwritableError(
                f"This cannot be kept on the disk ({error.strerror}). Nothing was sent."
            ) from error
        self._waiting[key] = (key, room_id, text)

    def settle(self, key: str) -> None:
        """Forgets a text. A settled line that is lost in a crash only makes the server answer a retry once more."""
        if self._waiting.pop(key, None) is None:
            return
        with contextlib.suppress(OSError):
            if self._size > REWRITE_BYTES:
                self._rewrite()
            else:
                self._append({"settled": key})

    def close(self) -> None:
        """Gives the file back. Idempotent."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._file = self._lock = None  # type: ignore[assignment]  # it is closed for good

    def _read(self) -> None:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a crash cut short
                entry = json.loads(line)
                if "settled" in entry:
                    self._waiting.pop(str(entry["settled"]), None)
                else:
                    key = str(entry["key"])
                    self._waiting[key] = (key, str(entry["room"]), str(entry["text"]))

    def _rewrite(self) -> None:
        """Puts a file with what waits, and nothing else, in the place of the one that there is."""
        temporary = self.path.with_suffix(".new")
        lines = [_line({"key": key, "room": room_id, "text": text}) for key, room_id, text in self._waiting.values()]
        data = b"".join(lines)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600)
        try:
            _write_all(file, data)
            os.fsync(file)
            temporary.replace(self.path)
            _sync_folder(self.path.parent)
        except BaseException:
            os.close(file)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file, self._size, self._is_torn = file, len(data), False

    def _append(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            raise OSError(0, "the outbox is closed")
        if self._is_torn:
            self._rewrite()
        line = _line(entry)
        _write_all(self._file, line)
        self._size += len(line)


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
