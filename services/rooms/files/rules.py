"""What a file may be called and how much there may be of them. Pure: no I/O, no clock.

A name is kept as it was given. It is never part of a path here; what it may hold is decided for those who will save it,
and look at it, elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.text import is_clean_name

NAME_BYTES_MAX: Final = 255
"""What the common file systems allow."""

MIME_CHARS_MAX: Final = 100
"""RFC 6838 allows 127 for each half; what is in use is far shorter."""

FILE_ID_CHARS: Final = 32
SHA256_CHARS: Final = 64

PIECE_BYTES_MAX: Final = 1024 * 1024
"""A version-1 sender's piece; frames of version 1 hold some 45 KB."""

_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """How much is taken. Quotas count unfinished files too, with their whole size."""

    file_bytes_max: int
    user_bytes_max: int
    user_files_max: int
    room_bytes_max: int
    room_files_max: int
    unfinished_max: int
    """Files that one person may have offered and not finished."""
    transfers_max: int
    """Uploads, and downloads, under way at one instance."""
    free_bytes_min: int
    """What an offer must leave free on the disk, for the database and everybody else."""
    retention_s: float
    """How long posted files are kept; 0: for ever."""
    unfinished_retention_s: float
    """How long an unfinished file waits for its sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A file that somebody wants to send. `sha256` is empty where it is not known before the end.

    `transfer_id` is the sender's own name for this transfer, or empty.
    """

    name: str
    size: int
    sha256: str
    mime: str = ""
    transfer_id: str = ""
    piece_bytes: int = 0

    @property
    def is_open_ended(self) -> bool:
        """Whether size and hash are known only when the last byte is there."""
        return not self.sha256


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a quota is used."""

    count: int
    size: int
    unfinished_count: int = 0


def check_offer(offer: Offer, limits: FileLimits) -> None:
    """Raises ParleyError bad_request or too_large where the file cannot be taken from anybody."""
    if not is_file_name(offer.name):
        raise _bad_request(f"a file name has 1 to {NAME_BYTES_MAX} bytes, shows what it is, and holds no path")
    if len(offer.mime) > MIME_CHARS_MAX or not (offer.mime.isascii() and offer.mime.isprintable()):
        raise _bad_request(f"mime: at most {MIME_CHARS_MAX} printable ASCII characters")
    if offer.sha256 and not is_sha256(offer.sha256):
        raise _bad_request("sha256: 64 lower-case hex digits")
    if offer.transfer_id and not is_file_id(offer.transfer_id):
        raise _bad_request("transfer_id: 32 lower-case hex digits")
    if not 0 <= offer.piece_bytes <= PIECE_BYTES_MAX:
        raise _bad_request(f"piece_bytes: 0 to {PIECE_BYTES_MAX}")
    if offer.size < 0:
        raise _bad_request("size: not below 0")
    if offer.size > limits.file_bytes_max:
        raise ParleyError(ErrorCode.TOO_LARGE, f"a file has at most {limits.file_bytes_max} bytes")


def check_user_quota(offer: Offer, limits: FileLimits, user: Usage) -> None:
    """Raises ParleyError quota_exceeded where the person may not have one more file; `user` is what they have."""
    if user.unfinished_count >= limits.unfinished_max:
        raise _no_room(f"you have {user.unfinished_count} unfinished files: finish or cancel one")
    if user.count >= limits.user_files_max:
        raise _no_room(f"one person may have {limits.user_files_max} files")
    if user.size + offer.size > limits.user_bytes_max:
        raise _no_room(f"the files of one person may have {limits.user_bytes_max} bytes")


def check_room_quota(offer: Offer, limits: FileLimits, room: Usage) -> None:
    """Raises ParleyError quota_exceeded where there may be no more files in the room; `room` is what it has."""
    if room.count >= limits.room_files_max:
        raise _no_room(f"one room may have {limits.room_files_max} files")
    if room.size + offer.size > limits.room_bytes_max:
        raise _no_room(f"the files of one room may have {limits.room_bytes_max} bytes")


def is_file_name(name: str) -> bool:
    """Whether this may be a file's name: it can be seen whole, and it is not a path."""
    if not 1 <= len(name) <= NAME_BYTES_MAX or not is_clean_name(name):
        return False
    return len(name.encode()) <= NAME_BYTES_MAX and not {"/", "\\"} & set(name) and name not in {".", ".."}


def is_file_id(text: str) -> bool:
    """Whether this could be a file's id."""
    return len(text) == FILE_ID_CHARS and _HEX.issuperset(text)


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 as it is written everywhere here."""
    return len(text) == SHA256_CHARS and _HEX.issuperset(text)


def _no_room(message: str) -> ParleyError:
    return ParleyError(ErrorCode.QUOTA_EXCEEDED, message)


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)
