"""User names: which are allowed, how they are stored, and which look alike.

A name goes through three gates. PRECIS UsernameCaseMapped (RFC 8265, 3.3) folds width and case and refuses what is no
identifier. It still accepts a Latin name with one Cyrillic letter in it, so the second gate wants one script (UTS #39,
5.1, resolved script sets) and one number system (5.3). A name that is wholly in another script passes that too
("раура" in Cyrillic), so the third gate compares skeletons (UTS #39, 4): two names with one skeleton look alike, and
of these only the first one can be registered.

The confusables data is Unicode's, as `confusable-homoglyphs` ships it. The package stores it without direction; the
direction is recovered here (see `_prototypes`).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from confusable_homoglyphs.categories import alias
from confusable_homoglyphs.utils import load
from precis_i18n import get_profile

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

USERNAME_CHARS_MIN = 3  # protocol.md, "Liveness, limits"; counted after the mapping
USERNAME_CHARS_MAX = 32
RAW_CHARS_MAX = 1024  # PRECIS is linear, but nobody needs to pay for more; the wire's own bound for a name
MARKS_MAX = 3  # stacked marks: Arabic uses two, polytonic Greek three; more only serve to disfigure a line

# Names that would lend their bearer an authority that the server did not give.
RESERVED = frozenset(
    {
        *("abuse", "hostmaster", "postmaster", "security", "webmaster"),  # RFC 2142
        *("admin", "administrator", "root", "superuser", "sysadmin", "sysop", "system"),
        *("moderator", "official", "operator", "staff", "support"),
        *("everyone", "parley", "server"),
    }
)
_SEPARATORS = str.maketrans("", "", "._-")  # "a.d.m.i.n" and "_admin_" are read as "admin"

# Scripts that are written together and count as one (UTS #39, 5.1, augmented script sets).
_WRITTEN_TOGETHER = (
    frozenset({"HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"HAN", "BOPOMOFO"}),
    frozenset({"HAN", "HANGUL"}),
)
_ANY_SCRIPT = frozenset({"COMMON", "INHERITED"})
_LEFT_TO_RIGHT_MARK = "\u200e"  # the data wraps right-to-left characters in these
# The joiners draw nothing; PRECIS allows them between letters that they shape. For looks they are not there.
_INVISIBLE = str.maketrans("", "", "\u200c\u200d")
# Alike at a glance, but not in Unicode's data, which maps single characters only: two v, and a dot on top of a dot.
_SEQUENCES = (("vv", "w"), ("i\u0307", "i"), ("j\u0307", "j"))
_SKELETON_ROUNDS_MAX = 8  # each round only maps towards prototypes; three were the most seen over all of Unicode

_PROFILE = get_profile("UsernameCaseMapped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Username:
    """An acceptable name: as it is stored and shown, and what it looks like."""

    text: str
    skeleton: str


def parse_username(raw: str) -> Username:
    """The name a person may register as. Raises `ParleyError` bad_username with the reason."""
    text = canonical_username(raw)
    if text is None:
        raise _bad("the name has characters that are not allowed in names")
    if not USERNAME_CHARS_MIN <= len(text) <= USERNAME_CHARS_MAX:
        raise _bad(f"a name has {USERNAME_CHARS_MIN} to {USERNAME_CHARS_MAX} characters")
    if not any(c.isalnum() for c in text):
        raise _bad("a name needs a letter or a digit")
    if _has_stacked_marks(text):
        raise _bad("the name has too many marks on one letter")
    if not is_single_script(text):
        raise _bad("the name mixes letters or digits of different scripts")
    if _authority_look(text) in _reserved_looks():
        raise _bad("the name is reserved")
    return Username(text=text, skeleton=skeleton(text))


def canonical_username(raw: str) -> str | None:
    """PRECIS UsernameCaseMapped of what was typed, or None where that refuses it. Two spellings with one canonical
    form are one name; login uses this alone, because what is stored has passed the other gates."""
    if not raw or len(raw) > RAW_CHARS_MAX:
        return None
    try:
        return str(_PROFILE.enforce(raw))
    except UnicodeEncodeError:  # how precis_i18n says "disallowed"
        return None


def is_single_script(text: str) -> bool:
    """True where one script (or scripts written together) and one number system cover the whole text."""
    scripts = {_script(c) for c in text} - _ANY_SCRIPT
    if len(scripts) > 1 and not any(scripts <= together for together in _WRITTEN_TOGETHER):
        return False
    zeros = {ord(c) - unicodedata.decimal(c) for c in text if c.isdecimal()}
    return len(zeros) <= 1


def skeleton(text: str) -> str:
    """What a text looks like (UTS #39, 4, folded to lower case): equal for texts that are easily taken for one
    another. For comparison only; never shown."""
    prototypes = _prototypes()
    current = text
    for _ in range(_SKELETON_ROUNDS_MAX):
        spread = unicodedata.normalize("NFD", current.translate(_INVISIBLE))
        mapped = "".join([prototypes.get(c, c) for c in spread])
        # Prototypes may be capitals (0 looks like O), while names are shown in lower case: fold, and look again.
        following = unicodedata.normalize("NFD", mapped).casefold()
        for sequence, look in _SEQUENCES:
            following = following.replace(sequence, look)
        if following == current:
            break
        current = following
    return current


def _script(c: str) -> str:
    if "\u0660" <= c <= "\u0669":  # Arabic-Indic digits are Common by property, Arabic by use (Script_Extensions)
        return "ARABIC"
    return str(alias(c))


def _has_stacked_marks(text: str) -> bool:
    spread = unicodedata.normalize("NFD", text)
    run = MARKS_MAX  # a mark at the very start has no letter to sit on
    for before, c in pairwise(" " + spread):
        if not unicodedata.category(c).startswith("M"):
            run = 0
            continue
        run += 1
        if run > MARKS_MAX or c == before:
            return True
    return False


def _authority_look(text: str) -> str:
    """A coarser look for reserved names, where a false alarm costs little: "adm1n" and "a.d.m.i.n" are "admin" too."""
    return skeleton(text.translate(_SEPARATORS)).replace("l", "i")


@cache
def _reserved_looks() -> frozenset[str]:
    return frozenset(_authority_look(name) for name in RESERVED)


@cache
def _prototypes() -> Mapping[str, str]:
    """Character → what it is drawn like.

    Unicode's table maps each source to one prototype, and no prototype is a source, so the package's undirected pairs
    form stars with the prototype in the middle. A star's middle is the node with several neighbours; in a bare pair it
    is the side that is a sequence (sources are single characters), else the smaller one, which is as good as the other
    because only equality matters.
    """
    neighbours: dict[str, set[str]] = {}
    for key, pairs in load("confusables.json").items():
        one = key.replace(_LEFT_TO_RIGHT_MARK, "")
        for pair in pairs:
            other = pair["c"].replace(_LEFT_TO_RIGHT_MARK, "")
            if one and other and one != other:
                neighbours.setdefault(one, set()).add(other)
                neighbours.setdefault(other, set()).add(one)
    table = {}
    for source, targets in neighbours.items():
        if len(source) != 1 or len(targets) != 1:
            continue
        (target,) = targets
        if len(neighbours[target]) > 1 or len(target) > 1 or target < source:
            table[source] = target
    return table


def _bad(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_USERNAME, message)
