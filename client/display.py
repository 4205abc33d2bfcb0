"""How things look: pure formatting of messages, notes and tables into lines of styled parts.

Whatever came from others passes `clean` or `sanitize_for_terminal` here, so nothing else has to think of it. A text of
several lines is indented below its first one, so that nobody can write a line that looks like somebody else's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum
from typing import Any

from client.errors import ClientError, RequestError
from services.common.wire.text import sanitize_for_terminal

Part = tuple[str, str]
"""A style's name and a text; the text holds no control characters."""

STYLES = {
    "": "",
    "dim": "2",
    "bold": "1",
    "room": "35",
    "system": "36",
    "success": "32",
    "error": "31",
    "own": "1;32",
    "name0": "1;34",
    "name1": "1;35",
    "name2": "1;36",
    "name3": "1;33",
    "name4": "34",
    "name5": "1;31",
}
"""Select Graphic Rendition parameters (ECMA-48, 8.3.117); the 8 colours that every terminal theme makes legible."""

NAME_COLOURS = 6
TIME_WIDTH = len("[HH:MM:SS] ")
CELL_CHARS_MAX = 40
"""Longest cell of a table: names fit in, a long topic does not push everything else off the screen."""


class Kind(StrEnum):
    """What a line is, for those who treat kinds differently."""

    MESSAGE = "message"
    ANSWER = "answer"
    NOTE = "note"
    ERROR = "error"


@dataclass(frozen=True)
class Line:
    """One line of output."""

    kind: Kind
    parts: tuple[Part, ...]

    def render(self, *, colour: bool) -> str:
        """The line as a terminal takes it, without a line end."""
        if not colour:
            return "".join(text for _, text in self.parts)
        return "".join(_coloured(style, text) for style, text in self.parts)


def _coloured(style: str, text: str) -> str:
    code = STYLES[style]
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def clean(text: object) -> str:
    """Something from others as one line without anything that a terminal would obey."""
    return sanitize_for_terminal(str(text))


def clock_time(ts_ms: int, zone: tzinfo | None = None) -> str:
    """HH:MM:SS of a Unix time in milliseconds, local unless a zone is given."""
    return _local(ts_ms, zone).strftime("%H:%M:%S")


def day_of(ts_ms: int, zone: tzinfo | None = None) -> date:
    """The day of a Unix time in milliseconds."""
    return _local(ts_ms, zone).date()


def _local(ts_ms: int, zone: tzinfo | None) -> datetime:
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone(zone)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC).astimezone(zone)


def name_style(username: str, *, is_own: bool) -> str:
    """The style of a name: always the same for one name."""
    return "own" if is_own else f"name{zlib.crc32(username.encode('utf-8', 'replace')) % NAME_COLOURS}"


def message_lines(
    *, username: str, text: str, ts_ms: int, is_own: bool, room_name: str | None = None, zone: tzinfo | None = None
) -> list[Line]:
    """A message; `room_name` is given where it is not in the current room."""
    first, *others = sanitize_for_terminal(text, keep_newlines=True).replace("\t", "    ").split("\n")
    tag: tuple[Part, ...] = (("room", f"#{clean(room_name)} "),) if room_name is not None else ()
    head: tuple[Part, ...] = (
        ("dim", f"[{clock_time(ts_ms, zone)}] "),
        *tag,
        (name_style(username, is_own=is_own), clean(username)),
        ("", f": {first}"),
    )
    return [
        Line(Kind.MESSAGE, head),
        *(Line(Kind.MESSAGE, (("dim", " " * TIME_WIDTH + "| "), ("", other))) for other in others),
    ]


def day_line(day: date) -> Line:
    """A new day in a list of older messages."""
    return Line(Kind.ANSWER, (("dim", f"--- {day:%A}, {day.isoformat()} ---"),))


def note(text: str, *, room_name: str | None = None) -> Line:
    """Something that happened."""
    tag = "" if room_name is None else f"#{clean(room_name)}: "
    return Line(Kind.NOTE, (("system", "[SYSTEM] "), ("", f"{tag}{clean(text)}")))


def success(text: str) -> Line:
    """Something that was asked for and done."""
    return Line(Kind.NOTE, (("success", "[SUCCESS] "), ("", clean(text))))


def error(text: str) -> list[Line]:
    """Something that was not done, and why; each line of the text is one line."""
    return [Line(Kind.ERROR, (("error", "[ERROR] "), ("", clean(line)))) for line in text.splitlines() or [""]]


def answer(text: str) -> Line:
    """A line of a command's output."""
    return Line(Kind.ANSWER, (("", clean(text)),))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[Line]:
    """Columns, as wide as what is in them."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(head), *cells]) for index in range(len(head))]

    def joined(row: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()

    return [
        Line(Kind.ANSWER, (("bold", joined(head)),)),
        *(Line(Kind.ANSWER, (("", joined(row)),)) for row in cells),
    ]


def _cell(value: object) -> str:
    text = clean(value)
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"


def duration(seconds: float) -> str:
    """A span of time for people."""
    seconds = max(0, round(seconds))
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def reason(problem: ClientError, *, now: float, zone: tzinfo | None = None) -> str:
    """Why something failed, with what helps; `now` is Unix time in seconds."""
    if not isinstance(problem, RequestError):
        return str(problem)
    text = problem.message
    if problem.code == "already_logged_in" and (since := _since_ms(problem.data.get("since"))) is not None:
        text += f" (since {clock_time(since, zone)}, {duration(now - since / 1000)} ago)"
    if problem.retry_after_s:
        text += f" (try again in {duration(max(1.0, problem.retry_after_s))})"
    return text


def _since_ms(since: Any) -> int | None:
    if isinstance(since, str):
        try:
            return int(datetime.fromisoformat(since).timestamp() * 1000)
        except ValueError:
            return None
    if isinstance(since, int | float):
        return int(since if since > 100_000_000_000 else since * 1000)  # the year 5138 in seconds, 1973 in ms
    return None
