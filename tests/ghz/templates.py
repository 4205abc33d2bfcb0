"""Templates in call data, as far as ghz documents them: {{.RequestNumber}}, {{newUUID}}, {{randomInt 1 10}} and so on.

What Go's templates can do beyond single values and calls is refused when the run begins.
"""

from __future__ import annotations

import random
import re
import string
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.descriptor import MethodDescriptor

from tests.ghz.settings import SettingsError

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"\.([A-Za-z]+)")
_NUMBER = re.compile(r"-?\d+")
_LETTERS = string.ascii_letters + string.digits
_LENGTHS = (2, 16)  # of a random string whose length is not given
_LENGTH_MAX = 1_000_000

FIELDS = frozenset({
    "WorkerID", "RequestNumber", "FullyQualifiedName", "MethodName", "ServiceName", "InputName", "OutputName",
    "IsClientStreaming", "IsServerStreaming", "Timestamp", "TimestampUnix", "TimestampUnixMilli", "TimestampUnixNano",
    "UUID",
})  # fmt: skip

Part = str | Callable[[Mapping[str, str]], str]


def random_string(length: int = 0) -> str:
    """Letters and digits; between 2 and 16 of them for a length of 0 or less."""
    chosen = length if length > 0 else random.randint(*_LENGTHS)
    return "".join(random.choices(_LETTERS, k=min(chosen, _LENGTH_MAX)))


def random_int(low: int, high: int) -> str:
    """A whole number from low to high - 1; bounds below 0 are taken as 0, an upper one below 1 as 1."""
    low, high = max(0, low), high if high > 0 else 1
    if low >= high:
        raise SettingsError(f"randomInt {low} {high}: the second number must be larger")
    return str(random.randrange(low, high))


_FUNCTIONS: Mapping[str, tuple[Callable[..., str], int]] = {
    "newUUID": (lambda: str(uuid.uuid4()), 0),
    "randomString": (random_string, 1),
    "randomInt": (random_int, 2),
}


class Template:
    """Text with actions. `fields` maps the names of FIELDS to text; see `call_fields`."""

    def __init__(self, text: str, *, with_functions: bool = True) -> None:
        """Raises SettingsError for what this runner does not understand."""
        self._parts: list[Part] = []
        position = 0
        for action in _ACTION.finditer(text):
            self._parts += [text[position : action.start()], _action(action[1].strip(), with_functions=with_functions)]
            position = action.end()
        self._parts.append(text[position:])

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to fill in."""
        return len(self._parts) == 1

    def fill(self, fields: Mapping[str, str]) -> str:
        """The text with every action's value in its place."""
        return "".join(part if isinstance(part, str) else part(fields) for part in self._parts)


def _action(text: str, *, with_functions: bool) -> Part:
    field = _FIELD.fullmatch(text)
    if field and field[1] in FIELDS:
        name = field[1]
        return lambda fields: fields[name]
    words = text.split()
    if words and words[0] in _FUNCTIONS and with_functions:
        function, count = _FUNCTIONS[words[0]]
        if len(words) == count + 1 and all(_NUMBER.fullmatch(word) for word in words[1:]):
            numbers = [int(word) for word in words[1:]]
            function(*numbers)  # so that wrong bounds are said before the run
            return lambda _: function(*numbers)
    raise SettingsError(f"data: {{{{{text}}}}} is a template that this runner does not understand")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The number of a request, from 0, and the worker that makes it."""

    number: int
    worker: str


def call_fields(request: Request, method: MethodDescriptor, now: datetime) -> dict[str, str]:
    """What templates may name, for one request at the time `now`, which knows its zone."""
    unix_ns = int(now.timestamp() * 1_000_000) * 1_000
    return {
        "WorkerID": request.worker,
        "RequestNumber": str(request.number),
        "FullyQualifiedName": method.full_name,
        "MethodName": method.name,
        "ServiceName": method.containing_service.name,
        "InputName": method.input_type.name,
        "OutputName": method.output_type.name,
        "IsClientStreaming": str(bool(method.client_streaming)).lower(),
        "IsServerStreaming": str(bool(method.server_streaming)).lower(),
        "Timestamp": now.isoformat(timespec="seconds"),
        "TimestampUnix": str(unix_ns // 1_000_000_000),
        "TimestampUnixMilli": str(unix_ns // 1_000_000),
        "TimestampUnixNano": str(unix_ns),
        "UUID": str(uuid.uuid4()),
    }
