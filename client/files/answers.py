"""The server's answers about files as typed values."""

from __future__ import annotations

from typing import Any

import msgspec


class Offered(msgspec.Struct, frozen=True):
    """An offer was taken: from `offset` on the bytes are wanted."""

    file_id: str
    offset: int
    chunk_bytes: int = 65_536


class FileInfo(msgspec.Struct, frozen=True):
    """A posted file; as it stands in a message, in a list, and in the answer to `file_get`.

    `username`, `seq`, `ts` and `available` come with lists only.
    """

    file_id: str
    name: str
    size: int
    sha256: str
    mime: str = ""
    username: str = ""
    seq: int = 0
    ts: int = 0
    available: bool = True


def posted_file(data: dict[str, Any] | None) -> FileInfo | None:
    """The file of a message; None where it has none, or one that this client does not understand."""
    try:
        return None if data is None else msgspec.convert(data, FileInfo)
    except msgspec.ValidationError:
        return None


class FilePage(msgspec.Struct, frozen=True):
    """One page of a room's files, the newest first; `next_before` is None on the last."""

    files: list[FileInfo]
    next_before: int | None = None


class Progress(msgspec.Struct, frozen=True):
    """`file_ack` or `file_done`."""

    file_id: str
    offset: int = 0
    seq: int = 0
