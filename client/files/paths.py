"""Paths as people type them: where they lead, and how they may go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from services.common.wire.text import is_clean_line

ENTRIES_MAX: Final = 5_000
"""Looked at in one folder: the input line waits meanwhile."""

SHOWN_MAX: Final = 200


def typed_path(text: str) -> Path:
    """The path that somebody typed: `~` is their home, and what is relative begins where the program was started."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - resolve() would follow links


def completions(begun: str, *, only_folders: bool = False) -> list[str]:
    """Paths that begin like that, as they have to be typed; folders end with a slash. Hidden ones only if asked for."""
    folder, slash, start = begun.rpartition("/")
    where = os.path.expanduser(folder + slash) or "."  # noqa: PTH111 - an empty user name is no path
    try:
        with os.scandir(where) as entries:
            found = [_shown(entry) for entry in islice(entries, ENTRIES_MAX) if _is_meant(entry, start, only_folders)]
    except (OSError, ValueError):
        return []
    return [f"{folder}{slash}{name}" for name in sorted(found, key=str.casefold)[:SHOWN_MAX]]


def _is_meant(entry: os.DirEntry[str], start: str, only_folders: bool) -> bool:
    name = entry.name
    if not name.startswith(start) or (name.startswith(".") and not start) or not is_clean_line(name):
        return False
    return not only_folders or _is_folder(entry)


def _shown(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if _is_folder(entry) else entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def default_downloads(environ: Mapping[str, str]) -> Path:
    """Where files go when nobody said: the folder of that name in the home."""
    return Path(environ.get("HOME") or Path.home()) / "Downloads"
