"""What a room may be called, how people point at one, and who owns it. Pure: no I/O, no clock.

A room has an id (random, for programs), a name (for people, as it was typed) and a name key (what makes two names the
same name). People point at a room by any of them, or by the first characters of the id.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from services.common.wire.text import is_clean_name, is_clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NAME_CHARS_MAX: Final = 64
"""Protocol section 8."""

TOPIC_CHARS_MAX: Final = 256
"""One line on a wide screen; a page of 200 rooms with topics of usual length still fits into one frame of 64 KiB."""

PREFIX_CHARS_MIN: Final = 4
"""Protocol section 4: shorter prefixes of an id would often be ambiguous."""

ID_CHARS: Final = 12
"""12 of 36 characters are 62 bits: nobody guesses one, and no two are ever the same in practice."""

EPOCH_CHARS: Final = 6
"""6 of 36 characters are 31 bits: enough to tell the few lives of one room's log apart."""

ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_CHARS_MIN, _ID_CHARS_MAX = 8, 16
_ID_SET: Final = frozenset(ID_ALPHABET)

OPEN: Final = "open"
CLOSED: Final = "closed"
DELETED: Final = "deleted"
"""States of a room. In a closed one nobody sends and nobody new comes in; a deleted one is not there for anybody."""

OWNER: Final = "owner"
MEMBER: Final = "member"


class Seat(NamedTuple):
    """A membership as far as ownership is concerned; `order` counts up with each one who joins the room."""

    user_id: str
    role: str
    order: int


class Named(Protocol):
    """What a reference is resolved against."""

    @property
    def room_id(self) -> str:
        """The whole id."""
        ...

    @property
    def name_key(self) -> str:
        """The name as `name_key` makes it."""
        ...


R = TypeVar("R", bound=Named)


def display_name(name: str) -> str | None:
    """The name as it is kept: NFC, without spaces at the ends. None where it is not a room name.

    A name has 1 to 64 printable characters and shows something: one made of combining marks or blanks alone would
    be an invisible room.
    """
    # Nothing as long as this becomes a name by normalising, and normalising costs time.
    if len(name) > 4 * NAME_CHARS_MAX:
        return None
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= NAME_CHARS_MAX or not is_clean_name(name) or not any(map(_is_visible, name)):
        return None
    return name


def _is_visible(character: str) -> bool:
    # Letters, numbers, punctuation and symbols; the other categories are marks, separators and controls. The Hangul
    # fillers and the Braille blank are letters and symbols by category and show nothing.
    return unicodedata.category(character)[0] in "LNPS" and character not in "\u115f\u1160\u3164\uffa0\u2800"


def name_key(name: str) -> str:
    """What two names have in common that count as the same: NFKC, case folded, blanks joined, joiners left out.

    This is Unicode's toNFKC_Casefold (section 5.18 of the standard), but for default-ignorable characters, which
    names cannot hold, apart from U+200C.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    # Folding what NFKC made may need one more round (U+0345 is the known case).
    folded = unicodedata.normalize("NFKC", folded.casefold())
    return " ".join(folded.replace("\u200c", "").split())


def clean_topic(topic: str) -> str | None:
    """The topic as it is kept: one line, NFC, at most 256 characters. None where it is not one."""
    if len(topic) > 4 * TOPIC_CHARS_MAX:
        return None
    topic = unicodedata.normalize("NFC", topic.strip())
    if len(topic) > TOPIC_CHARS_MAX or "\n" in topic or "\t" in topic or not is_clean_text(topic):
        return None
    return topic


def is_room_id(text: str) -> bool:
    """Whether this could be a room's id."""
    return _ID_CHARS_MIN <= len(text) <= _ID_CHARS_MAX and _ID_SET.issuperset(text)


def is_id_prefix(text: str) -> bool:
    """Whether this could be the beginning of a room's id that is long enough to stand for it."""
    return PREFIX_CHARS_MIN <= len(text) <= _ID_CHARS_MAX and _ID_SET.issuperset(text)


def new_room_id(choose: Callable[[str], str]) -> str:
    """A fresh id; `choose` picks one character of the alphabet and must be unpredictable."""
    return "".join(choose(ID_ALPHABET) for _ in range(ID_CHARS))


def new_epoch(choose: Callable[[str], str]) -> str:
    """The name of a new life of a room's log."""
    return "".join(choose(ID_ALPHABET) for _ in range(EPOCH_CHARS))


def resolve(reference: str, visible: Sequence[R]) -> R | None:
    """The room that a person means: by whole id, else by whole name, else by the only id that begins so.

    An id goes first, so that nobody can take over a room by naming another one like its id. `visible` are the rooms
    that the person may see and whose id, name or beginning of the id fits; others are ignored.
    """
    key = name_key(reference)
    by_id = [room for room in visible if room.room_id == key]
    by_name = [room for room in visible if room.name_key == key]
    for found in (by_id, by_name):
        if found:
            return found[0]
    if is_id_prefix(key):
        by_prefix = [room for room in visible if room.room_id.startswith(key)]
        if len(by_prefix) == 1:
            return by_prefix[0]
    return None


def heir(seats: Iterable[Seat]) -> str | None:
    """Who owns a room after its owner has left: the member who joined first. None in an empty room."""
    first = min(seats, key=lambda seat: seat.order, default=None)
    return None if first is None else first.user_id


def role_of_newcomer(*, member_count: int) -> str:
    """A room that everybody had left has no owner: whoever comes next is it."""
    return MEMBER if member_count else OWNER
