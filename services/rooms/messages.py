"""What is published and what is stored: the values that the log, the bus and the feed hand to each other.

These are made for every message, so they are structs without a dictionary, outside the garbage collector's sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from services.common.wire.codes import ErrorCode

RUN_CHARS_MAX: Final = 60_000
"""Characters in one run: with four bytes each it is under 256 KiB, so that several runs fit into one gRPC message."""

# What a message takes beside its text: ids, names, numbers.
_MESSAGE_CHARS: Final = 48
# What a file adds: ids, hash, name and type at their longest.
_FILE_CHARS: Final = 512


class File(msgspec.Struct, frozen=True, gc=False):
    """A file as the message that posts it describes it.

    `transfer_id` and `piece_bytes` come from version-1 senders, who have names and sizes of their own for the pieces.
    """

    file_id: str
    name: str
    size: int
    sha256: str
    mime: str = ""
    transfer_id: str = ""
    piece_bytes: int = 0


class Publish(msgspec.Struct, gc=False):
    """A message that somebody wants stored. `number` names it in its edge's result."""

    number: int
    room_id: str
    user_id: str
    username: str
    text: str
    key: str
    file: File | None = None


class Message(msgspec.Struct, gc=False):
    """A stored message."""

    seq: int
    user_id: str
    username: str
    text: str
    sent_at_ms: int
    file: File | None = None


class Outcome(msgspec.Struct, gc=False):
    """What became of a publish: stored as (`epoch`, `seq`), now or by an earlier attempt, or refused with `code`."""

    epoch: str = ""
    seq: int = 0
    sent_at_ms: int = 0
    is_duplicate: bool = False
    code: ErrorCode | None = None
    retry_after_s: float = 0.0

    @property
    def is_new(self) -> bool:
        """Whether the publish has stored the message now."""
        return self.code is None and not self.is_duplicate


class Head(msgspec.Struct, frozen=True, gc=False):
    """Where the log of a room ends: the life it is in and its newest message's number, 0 in an empty room."""

    epoch: str
    last_seq: int


class Run(msgspec.Struct, frozen=True):
    """One or more messages of a room with consecutive numbers."""

    room_id: str
    epoch: str
    messages: Sequence[Message]

    @property
    def first_seq(self) -> int:
        """The number of the first."""
        return self.messages[0].seq

    @property
    def last_seq(self) -> int:
        """The number of the last."""
        return self.messages[-1].seq


def runs(publishes: Sequence[Publish], outcomes: Sequence[Outcome]) -> list[Run]:
    """The messages that were newly stored, by room, in order, in runs of a bounded size.

    The publishes of one call went through the log together, so those of one room have consecutive numbers, save for
    duplicates between them, which have none of their own.
    """
    found: list[Run] = []
    open_runs: dict[str, tuple[list[Message], int]] = {}
    for publish, outcome in zip(publishes, outcomes, strict=True):
        if not outcome.is_new:
            continue
        room_id = publish.room_id
        message = Message(
            outcome.seq, publish.user_id, publish.username, publish.text, outcome.sent_at_ms, publish.file
        )
        chars = _chars(message)
        messages, total = open_runs.get(room_id, (None, 0))
        if messages is None or total + chars > RUN_CHARS_MAX:
            messages, total = [], 0
            found.append(Run(room_id, outcome.epoch, messages))
        messages.append(message)
        open_runs[room_id] = (messages, total + chars)
    return found


def _chars(message: Message) -> int:
    return len(message.text) + (_MESSAGE_CHARS if message.file is None else _MESSAGE_CHARS + _FILE_CHARS)


def split(room_id: str, epoch: str, messages: Sequence[Message]) -> list[Run]:
    """Consecutive messages of one room in runs of a bounded size."""
    found: list[Run] = []
    part: list[Message] = []
    total = 0
    for message in messages:
        chars = _chars(message)
        if not part or total + chars > RUN_CHARS_MAX:
            part, total = [], 0
            found.append(Run(room_id, epoch, part))
        part.append(message)
        total += chars
    return found
