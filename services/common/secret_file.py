"""A secret in a file: its first line. Secrets are never configured themselves; paths to files that hold them are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES_MAX: Final = 1_024
"""A password is shorter; a larger file is not a password."""


def read_secret(path: Path, *, key: str) -> str:
    """The first line of the file that the setting `key` names. Raises ValueError that begins with the key and never
    holds what the file says."""
    try:
        with path.open("rb") as file:
            lines = file.read(SECRET_BYTES_MAX).decode().splitlines()
    except OSError as error:
        raise ValueError(f"{key}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ValueError(f"{key}: {path} is not text in UTF-8") from None  # the error holds the bytes
    if not lines or not lines[0]:
        raise ValueError(f"{key}: {path} is empty")
    return lines[0]
