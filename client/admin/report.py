"""What the operators' command writes: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from client import display
from client.admin.channels import Channels
from client.admin.failures import AdminError

Row = dict[str, Any]


def as_dict(message: Message) -> Row:
    """A message as a dictionary: every field under its name in the .proto file, numbers as numbers."""
    return {one.name: _value(one, getattr(message, one.name)) for one in message.DESCRIPTOR.fields}


def _value(one: Any, value: Any) -> Any:
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        return dict(value)
    is_message = one.type == FieldDescriptor.TYPE_MESSAGE
    if one.is_repeated:
        return [as_dict(item) if is_message else item for item in value]
    return as_dict(value) if is_message else value


def moment(unix_ms: int) -> str:
    """A time for people, in the local zone; nothing for 0."""
    if not unix_ms:
        return ""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class Context:
    """What a command works with: the services, where it writes, and whether it may."""

    channels: Channels
    as_json: bool = False
    is_sure: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    ask: Callable[[str], str | None] = lambda question: None
    ask_secret: Callable[[str], str | None] = lambda question: None

    def write_rows(self, rows: Sequence[Row], columns: dict[str, str]) -> None:
        """Writes rows: as JSON whole, as a table the columns, which are given as heading: key."""
        if self.as_json:
            self._write_json(rows)
            return
        if not rows:
            self._write("None.")
            return
        cells = [[_cell(key, row[key]) for key in columns.values()] for row in rows]
        for line in display.table(list(columns), cells):
            self._write(line.render(colour=False))

    def write_values(self, values: Row) -> None:
        """Writes names and values."""
        if self.as_json:
            self._write_json(values)
            return
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self._write(f"{display.clean(name):<{width}}  {display.clean(_number(value))}")

    def write_lines(self, lines: Sequence[str]) -> None:
        """Writes lines for people."""
        for line in lines:
            self._write(line)

    def write_done(self, text: str, result: Row | None = None) -> None:
        """Says that something was done; `result` is what a program gets."""
        if self.as_json:
            self._write_json(result or {})
        else:
            self._write(display.clean(text))

    def confirm(self, question: str) -> None:
        """Asks before something that hurts. Raises AdminError where the answer is not yes."""
        if self.is_sure:
            return
        answer = self.ask(f"{display.clean(question)} Type yes: ")
        if answer is None:
            raise AdminError("bad_request", "Nobody is there to confirm this: --yes does it without asking.")
        if answer.strip().lower() != "yes":
            raise AdminError("bad_request", "Nothing was done.")

    def _write_json(self, value: Any) -> None:
        # ASCII only: whatever a name may hold, no terminal obeys it.
        self._write(json.dumps(value, indent=2))

    def _write(self, text: str) -> None:
        self.out.write(text + "\n")


def _cell(key: str, value: Any) -> str:
    if key.endswith("_at_ms"):
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(_number(value))


def _number(value: Any) -> Any:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
