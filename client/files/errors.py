"""What goes wrong with files on this side. The texts are for people."""

from __future__ import annotations

import errno
from pathlib import Path

from client.errors import ClientError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class FileError(ClientError):
    """A file here cannot be read, or not be written."""


class FileChangedError(FileError):
    """The file is not what it was when its transfer began."""


class HashError(FileError):
    """What arrived is not what was sent."""


class TooManyTransfersError(ClientError):
    """As many transfers as may wait are there already."""


def because(action: str, path: Path | str, problem: OSError) -> FileError:
    """The error for what the system refused; `action` is such as "read"."""
    if isinstance(problem, FileNotFoundError):
        return FileError(f"There is no file {path}.")
    if problem.errno in _FULL:
        return FileError(f"The disk is full: {path} cannot be {action}.")
    if problem.errno == errno.EFBIG:
        return FileError(f"{path} cannot be {action}: files may not be so large here.")
    if problem.errno == errno.ELOOP:
        return FileError(f"{path} cannot be {action}: it is a link.")
    return FileError(f"{path} cannot be {action}: {problem.strerror or problem}.")
