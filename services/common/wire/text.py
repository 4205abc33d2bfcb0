"""Text: what may be sent, what may be a name, and what may reach a terminal.

Texts are anybody's words in any script, so only characters that no text needs are refused. Names are compared by
eye, so whatever is invisible is refused. What is shown on a terminal must not be able to command it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_DIRTY = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

ZERO_WIDTH_NON_JOINER: Final = "\u200c"


def is_clean_text(text: str) -> bool:
    r"""Whether a text may be sent: no control characters but \n and \t (C0, DEL, C1), no surrogates."""
    return text.isprintable() or _DIRTY.search(text) is None  # isprintable: most texts, at a fraction of the cost


def is_clean_line(text: str) -> bool:
    """Whether a string is a clean text without line breaks and tabs, as keys, ids and labels are."""
    return text.isprintable() or (_DIRTY.search(text) is None and "\n" not in text and "\t" not in text)


def is_clean_name(name: str) -> bool:
    """Whether a name shows what it is: not empty, every character visible or a space between others.

    Refused are controls, format characters (bidi overrides, zero-width ones, tags), unassigned, private and surrogate
    code points, line and paragraph separators, and spaces at the ends. U+200C is accepted between two letters of the
    Arabic script, where Persian spelling needs it and where it is seen.
    """
    if name.isprintable():
        return name != "" and name[0] != " " and name[-1] != " "
    if name[0].isspace() or name[-1].isspace():
        return False
    for index, character in enumerate(name):
        if character.isprintable() or unicodedata.category(character) == "Zs":
            continue
        if character == ZERO_WIDTH_NON_JOINER and _is_between_arabic(name, index):
            continue
        return False
    return True


def _is_between_arabic(name: str, index: int) -> bool:
    neighbours = (name[index - 1 : index], name[index + 1 : index + 2])
    return all(one and unicodedata.name(one, "").startswith("ARABIC") for one in neighbours)


# Control sequences of ECMA-48, introduced by ESC or by a C1 character. A string (OSC, DCS, SOS, PM, APC) without an
# end loses its introducer only: what follows is then plain text, and hiding it would serve nobody. Its body ends at any
# other introducer too, so that no input is scanned more than once.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI … final byte
    "|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\\\|\x9c)"  # a string … BEL or ST
    "|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])"
    "|\x1b[ -/]*[0-~]?"  # any other escape sequence
)

_BREAK = re.compile("\r\n|[\n\t\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]")
_BREAK_BUT_KEPT = re.compile("\r\n|[\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]")

_FLAGS = ("gbeng", "gbsct", "gbwls")
_FLAG_SEQUENCE = "|".join(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in flag) + "\U000e007f" for flag in _FLAGS
)
_UNSAFE = re.compile(
    f"({_FLAG_SEQUENCE})"  # the flags of England, Scotland and Wales are the one use that tags have
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls: C0 but \n and \t, DEL, C1
    "\u202a-\u202e\u2066-\u206f"  # bidi embeddings, overrides, isolates; deprecated format characters
    "\ufeff\ufff9-\ufffb"  # byte order mark, interlinear annotation
    "\U000e0000-\U000e007f]"  # tags
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def sanitize_for_terminal(text: str, *, keep_newlines: bool = False) -> str:
    r"""Make text from others safe to print: it cannot move, colour, rename, reorder or answer anything.

    Escape sequences (7-bit and 8-bit), control characters, bidi overrides and isolates and invisible tags are removed;
    line and paragraph breaks and tabs become a space, but for \n and \t with ``keep_newlines``. Emoji sequences, U+200C
    and everything else that people write stay. Surrogates, which cannot be printed, become U+FFFD.
    """
    if text.isprintable():
        return text
    text = _SEQUENCE.sub("", text)
    text = _BREAK_BUT_KEPT.sub(_kept_break, text) if keep_newlines else _BREAK.sub(" ", text)
    text = _UNSAFE.sub(_kept_flag, text)
    return _SURROGATE.sub("\ufffd", text)


def _kept_break(match: re.Match[str]) -> str:
    return "\n" if match[0] == "\r\n" else " "


def _kept_flag(match: re.Match[str]) -> str:
    return match[1] or ""
