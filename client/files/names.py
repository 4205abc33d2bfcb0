"""Names of files: what another person's name for a file becomes on this disk. Pure.

The name of a file is chosen by whoever sent it. Only its last part counts, nothing in it may be a path, a command line
option, a hidden file, a device of any system or something that a terminal obeys, and it must fit where it is put.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from services.common.wire.text import ZERO_WIDTH_NON_JOINER, is_clean_name

NAME_BYTES_MAX: Final = 240
"""File systems take 255; the rest is for what tells files of one name apart, and for temporary names."""

SUFFIX_BYTES_MAX: Final = 32
"""A name that has to be cut keeps its ending, where that is one."""

SAME_NAME_MAX: Final = 999
"""Files of one name in one folder, before somebody has to clear up."""

FALLBACK: Final = "file"

_SEPARATORS = re.compile(r"[/\\]")

_REFUSED = re.compile(
    '[<>:"|?*\x00-\x1f\x7f-\x9f'  # what Windows and its shares refuse, and controls
    "\u2044\u2215\u29f8\uff0f\u2216\u29f9\ufe68\uff3c"  # look like slashes and backslashes
    "\u2024\u2025\u2026\ufe52\uff0e"  # look like dots
    "\u02d0\u0589\u2236\ua789\ufe13\ufe55\uff1a]"  # look like colons
)

_NO_END = f". {ZERO_WIDTH_NON_JOINER}"

_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
"""Names that Windows takes for devices, whatever their ending."""


def safe_name(name: str) -> str:
    """The name under which a file may be saved; the same for a name that is safe already."""
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    name = _SEPARATORS.split(name.rstrip("/\\"))[-1]
    name = _REFUSED.sub("_", name)
    name = "".join(one if _is_visible(name, index) else "_" for index, one in enumerate(name))
    name = re.sub(r"\s+", " ", name)  # many spaces would push the real ending out of sight
    name = name.strip(" ").rstrip(". ")
    if not name:
        return FALLBACK
    if name[0] in ".-~":  # hidden, an option of a command, somebody's home
        name = f"_{name[1:]}"
    if _is_device(name):
        name = f"_{name}"
    return _cut(name)


def _is_device(name: str) -> bool:
    return name.split(".", maxsplit=1)[0].rstrip(" ").casefold() in _DEVICES


def _is_visible(name: str, index: int) -> bool:
    character = name[index]
    if character == ZERO_WIDTH_NON_JOINER and index:
        return is_clean_name(name[index - 1 : index + 2])
    return is_clean_name(f"a{character}a")


def _cut(name: str) -> str:
    """At most so many bytes, with the ending where there is one, and without half a character."""
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > SUFFIX_BYTES_MAX:
        stem, dot, suffix = name, "", ""
    room = NAME_BYTES_MAX - len(f"{dot}{suffix}".encode())
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{stem.rstrip(_NO_END)}{dot}{suffix}"


def alternatives(name: str) -> Iterator[str]:
    """The name itself, then `plan (1).pdf`, `plan (2).pdf`, …"""
    yield name
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    for number in range(1, SAME_NAME_MAX + 1):
        yield f"{stem} ({number}){dot}{suffix}"
