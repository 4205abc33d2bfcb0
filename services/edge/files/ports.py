"""Ports: what the edge asks of the service that keeps files, in its own words.

Every call raises ParleyError and nothing else; `backends` implements them over gRPC, tests in memory.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from services.edge.decisions import User


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A file that somebody wants to send.

    Where `sha256` is empty its size is known only at the end and is at most `size`. `transfer_id` is what its sender
    calls it: with a hash, the same again is the same file, even when it is posted. `piece_bytes` is what a version-1
    sender cuts it into.
    """

    name: str
    size: int
    sha256: str = ""
    mime: str = ""
    transfer_id: str = ""
    piece_bytes: int = 0


class Offered(msgspec.Struct, frozen=True):
    """What became of an offer: from `offset` on the bytes are wanted; `target` is the instance that took it."""

    file_id: str
    offset: int
    room_id: str
    target: str = ""


class FileInfo(msgspec.Struct, frozen=True):
    """A posted file."""

    file_id: str
    name: str
    size: int
    sha256: str
    mime: str
    transfer_id: str = ""
    piece_bytes: int = 0


class ListedFile(msgspec.Struct, frozen=True):
    """A file in a list; as it stands in `file_list`. `ts` is Unix time in milliseconds."""

    file_id: str
    name: str
    size: int
    sha256: str
    mime: str
    username: str
    seq: int
    ts: int
    available: bool


class FilePage(msgspec.Struct, frozen=True):
    """Posted files of a room, the newest first; the next page ends before `next_before`, 0 on the last one."""

    room_id: str
    files: list[ListedFile]
    next_before: int


class Progress(msgspec.Struct, frozen=True):
    """So much of an upload is safely stored; with `seq`, the message that posts the file is too."""

    offset: int
    seq: int | None = None


class UploadStream(Protocol):
    """The bytes of one file on their way to be stored."""

    async def write(self, offset: int, data: bytes, *, is_last: bool) -> None:
        """Send a piece; returns when another one may follow."""
        ...

    async def finish_writing(self) -> None:
        """Nothing more comes. What was written is stored all the same."""
        ...

    async def read(self) -> Progress | None:
        """What is stored by now; None at the end."""
        ...

    def cancel(self) -> None:
        """End it at once. Idempotent; to be called whatever happened."""
        ...


class DownloadStream(Protocol):
    """The bytes of one file on their way here."""

    async def describe(self) -> FileInfo:
        """What file it is; to be called first, and once."""
        ...

    async def read(self) -> bytes | None:
        """The next bytes; None at the end."""
        ...

    def cancel(self) -> None:
        """End it at once. Idempotent; to be called whatever happened."""
        ...


class FilesBackend(Protocol):
    """The files of all rooms. `room` is an id, a name or a prefix of an id."""

    async def file_bytes_max(self) -> int:
        """How large a file may be."""
        ...

    async def offer(self, user: User, room: str, offer: Offer) -> Offered:
        """Announce a file. The same offer again goes on with the same file where that is unfinished."""
        ...

    def open_upload(self, user: User, offered: Offered) -> UploadStream:
        """Begin to send the bytes of an offered file, from its offset on."""
        ...

    def open_download(self, user: User, file_id: str, offset: int) -> DownloadStream:
        """Begin to fetch a posted file."""
        ...

    async def give_up(self, user: User, file_id: str) -> None:
        """Take back a file that is not posted."""
        ...

    async def list_files(self, user: User, room: str, *, before: int, limit: int) -> FilePage:
        """A page of a room's files: those posted before that seq, or the newest (0)."""
        ...
