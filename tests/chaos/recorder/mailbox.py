"""A person's texts: each is sent until it is known what became of it, always under the same key."""

from __future__ import annotations

import enum
import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.wire import Frame, LostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.recorder.board import Board
    from tests.chaos.recorder.line import Line

LATER = {"rate_limited", "overloaded", "unavailable"}  # certainly not stored; may be sent again
UNKNOWN = {"unknown_outcome", "internal"}
REMEMBERED_MAX = 300
FILLERS = ("", "hello ", "سلام ", "多言語 ", "🦜 ", "a\tb\n", '"quoted" \\ ')


def digest(text: str) -> str:
    """`h`: the beginning of the SHA-256 of a text."""
    return short(hashlib.sha256(text.encode()).hexdigest())


def short(sha256: str) -> str:
    """As much of a hash as stands in the log."""
    return sha256[:16]


def key_of(text: str) -> str:
    """The key or label that a text of ours begins with."""
    return text.partition(" ")[0]


def file_key(file_id: str) -> str:
    """The label of a file's message: the server gives it a key of its own."""
    return f"~{file_id}"


def identify(text: str, file: Frame | None) -> tuple[str, str]:
    """The key and the h of a message as it came."""
    if file is not None:
        return file_key(file["file_id"]), short(file["sha256"])
    return key_of(text), digest(text)


class Fate(enum.Enum):
    """What became of one attempt."""

    STORED = "it is stored"
    LATER = "it may be sent again, and must be, or nobody will know"
    REFUSED = "it is refused for good"


@dataclass(frozen=True)
class Text:
    """A text of ours; a key that begins with ~ is a label only, and the server is given none."""

    room: str
    key: str
    text: str
    h: str

    @property
    def is_keyed(self) -> bool:
        """Whether it may be sent again."""
        return not self.key.startswith("~")


class Mailbox:
    """Sends, and writes down what comes of it."""

    def __init__(self, name: str, board: Board, dice: random.Random) -> None:
        self.unresolved: list[Text] = []  # in the order in which they were first sent
        self.known: list[Text] = []  # acknowledged, to be sent again much later
        self._name = name
        self._board = board
        self._dice = dice
        self._written = 0
        self._pending: dict[int, tuple[Text, float]] = {}
        self._reqs = 0

    @property
    def is_idle(self) -> bool:
        """Whether everything is answered."""
        return not self.unresolved and not self._pending

    @property
    def pending(self) -> int:
        """Texts under way."""
        return len(self._pending)

    def compose(self, room: str, *, keyed: bool = True) -> Text:
        """A new text, unlike all others."""
        self._written += 1
        key = f"{'' if keyed else '~'}{self._name}-{self._written}"
        text = f"{key} {self._dice.choice(FILLERS) * self._dice.choice((1, 1, 1, 1, 40))}."
        return Text(room, key, text, digest(text))

    def changed(self, text: Text) -> Text:
        """Other words under the same key: a mistake of a client's."""
        words = f"{text.text} (changed)"
        return Text(text.room, text.key, words, digest(words))

    def send(
        self,
        line: Line,
        conn: str,
        text: Text,
        *,
        is_again: bool = False,
        follows: bool | None = None,
        pipe: str = "",
        settled: Callable[[Fate, float], None] | None = None,
    ) -> None:
        """Sends a text. Raises LostError; then it was not written down either.

        Whoever wants to be told by `settled`, with the wait that the server asks for, sends it again themselves.
        """
        if not line.is_open:
            raise LostError("closed")
        self._reqs += 1
        req = self._reqs
        about = {"c": self._name, "conn": conn, "room": text.room, "key": text.key, "h": text.h, "req": req}
        sent_at = self._board.log.write(e.Invoke, **about, pipe=pipe).t
        data: Frame = {"text": text.text, **({"key": text.key} if text.is_keyed else {})}
        if follows is not None:
            data["follows"] = follows
        self._pending[req] = (text, sent_at)

        def answered(frame: Frame | None) -> None:
            del self._pending[req]
            fate = self._answered(text, about, frame, sent_at, is_again=is_again)
            if settled is not None:
                settled(fate, 0.0 if frame is None else frame["data"].get("retry_after_s") or 0.0)
            elif fate is Fate.LATER and text.is_keyed and not is_again:
                # Some of those that were refused are given up, and must never be seen.
                is_unknown = frame is None or frame["data"].get("code") in UNKNOWN
                if text not in self.unresolved and (is_unknown or self._dice.random() < 0.6):
                    self.unresolved.append(text)

        try:
            line.post({"type": "text_message", "room_id": text.room, "data": data}, answered)
        except LostError:
            answered(None)
            raise

    def _answered(
        self, text: Text, about: dict[str, object], frame: Frame | None, sent_at: float, *, is_again: bool
    ) -> Fate:
        log = self._board.log
        if frame is None:
            log.write(e.Info, **about, why="lost")
            return Fate.LATER
        data = frame["data"]
        if frame["type"] == "success":
            duplicate = bool(data.get("duplicate"))
            ok = log.write(e.Ok, **about, epoch=data["epoch"], seq=data["seq"], duplicate=duplicate)
            log.latencies.append((ok.t, ok.t - sent_at))
            self._board.acknowledged(text.room, data["seq"])
            if text.is_keyed and not is_again:
                self.known.append(text)
                if len(self.known) > REMEMBERED_MAX:
                    del self.known[self._dice.randrange(len(self.known))]
            return Fate.STORED
        code = str(data.get("code"))
        self._board.refusals[code] += 1
        if code in UNKNOWN:
            log.write(e.Info, **about, why=code)
            return Fate.LATER
        log.write(e.Fail, **about, code=code)
        return Fate.LATER if code in LATER else Fate.REFUSED

    def resend(self, line: Line, conn: str) -> None:
        """Sends everything again of which it is not known what became of it, in its order. Raises LostError."""
        waiting, self.unresolved = self.unresolved, []
        for index, text in enumerate(waiting):
            try:
                self.send(line, conn, text)
            except LostError:
                self.unresolved += [left for left in waiting[index:] if left not in self.unresolved]
                raise
