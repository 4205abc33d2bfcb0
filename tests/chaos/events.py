"""The event log: one JSON object a line, `{"event": "invoke", …}`, in the order in which one recorder saw them.

All times are seconds on that recorder's monotonic clock. `c` is a user's name, `conn` names one connection, `req` one
attempt to send on it, `key` the text's own key (a label that begins with ~ where the text was sent without one), and
`h` the SHA-256 of the text. Everything that the checker believes is in here; docs/reliability.md tells it in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Via = Literal["live", "replay", "history"]
How = Literal["login", "join", "create", "resume"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=str.lower):
    """Something that a recorder saw at time `t`."""

    t: float


class Attempt(Event, frozen=True, kw_only=True):
    """What the events of one attempt to send have in common."""

    c: str
    conn: str
    room: str
    key: str
    h: str
    req: int


class Invoke(Attempt, frozen=True, kw_only=True):
    """A text was about to be written to a connection.

    The texts of a `pipe` keep the order of their first attempts through refusals and losses too.
    """

    pipe: str = ""


class Ok(Attempt, frozen=True, kw_only=True):
    """It was acknowledged."""

    epoch: str
    seq: int
    duplicate: bool = False


class Fail(Attempt, frozen=True, kw_only=True):
    """It was refused: certainly not stored by this attempt."""

    code: str


class Info(Attempt, frozen=True, kw_only=True):
    """It may or may not be stored: a time-out, a lost connection, `unknown_outcome`.

    `is_final` where nobody will ask again: a client that has tried for long enough gives up, and tells its user so.
    """

    why: str
    is_final: bool = False


class Deliver(Event, frozen=True, kw_only=True):
    """A message arrived."""

    c: str
    conn: str
    room: str
    epoch: str
    seq: int
    key: str
    sender: str
    h: str
    via: Via


class Open(Event, frozen=True, kw_only=True):
    """A connection was logged in."""

    c: str
    conn: str
    edge: str


class Close(Event, frozen=True, kw_only=True):
    """A connection is gone: nothing that was on its way on it counts any more."""

    c: str
    conn: str
    why: str = ""


class Start(Event, frozen=True, kw_only=True):
    """From here on the room's messages are promised to this connection: the first is seq + 1."""

    c: str
    conn: str
    room: str
    epoch: str
    seq: int
    how: How


class ResumeOk(Event, frozen=True, kw_only=True, tag="resume_ok"):
    """A resume was answered for one room: `seq` is what the client said it had, `last_seq` what the room had."""

    c: str
    conn: str
    previous: str
    room: str
    epoch: str
    seq: int
    recovered: bool
    last_seq: int


class JoinAsk(Event, frozen=True, kw_only=True, tag="join_ask"):
    """A user was about to ask to join (or to create) a room; from here on they may be a member."""

    user: str
    room: str


class JoinOk(Event, frozen=True, kw_only=True, tag="join_ok"):
    """A user is a member; messages up to `seq` were there before."""

    user: str
    room: str
    seq: int


class PartAsk(Event, frozen=True, kw_only=True, tag="part_ask"):
    """A user was about to leave a room, or to be removed; from here on they may not be a member."""

    user: str
    room: str


class LeaveOk(Event, frozen=True, kw_only=True, tag="leave_ok"):
    """A user left; `conn` is the connection that asked."""

    user: str
    room: str
    conn: str


class KickOk(Event, frozen=True, kw_only=True, tag="kick_ok"):
    """An operator removed a user."""

    user: str
    room: str


class Bookmark(Event, frozen=True, kw_only=True):
    """A heartbeat said: all messages of the room up to `seq` have been sent on this connection."""

    c: str
    conn: str
    room: str
    seq: int


class FileOk(Event, frozen=True, kw_only=True, tag="file_ok"):
    """A file was acknowledged."""

    c: str
    room: str
    id: str
    sha256: str
    size: int


class FileRecv(Event, frozen=True, kw_only=True, tag="file_recv"):
    """A file arrived whole."""

    c: str
    room: str
    id: str
    sha256: str
    size: int


class FileStray(Event, frozen=True, kw_only=True, tag="file_stray"):
    """Something was written outside the download directory."""

    c: str
    path: str


class LogOut(Event, frozen=True, kw_only=True, tag="log_out"):
    """A logout was acknowledged: nothing of a room may come on `conn` any more, and its token is dead everywhere."""

    c: str
    conn: str


class DeadToken(Event, frozen=True, kw_only=True, tag="dead_token"):
    """The token of `conn`, which had been logged out, was shown to `edge` once more."""

    c: str
    conn: str
    edge: str
    accepted: bool
    code: str = ""


class Race(Event, frozen=True, kw_only=True):
    """Nobody was logged in as `c`, and several logins without takeover were sent at once.

    `won` names the edges that let somebody in, `codes` what the others said, with `lost` where nobody knows.
    """

    c: str
    won: list[str]
    codes: list[str]


class Taken(Event, frozen=True, kw_only=True):
    """A login on `conn` was acknowledged that takes the session over from `old`."""

    c: str
    old: str
    conn: str


class Heard(Event, frozen=True, kw_only=True):
    """Something of a room came on a connection, of which only that is of interest."""

    c: str
    conn: str
    room: str


class Fault(Event, frozen=True, kw_only=True):
    """Something was broken from t0 to t1, where it was mended; written when it was."""

    kind: str
    target: str
    t0: float
    t1: float


class Restored(Event, frozen=True, kw_only=True):
    """The database was replaced by a copy that was made at `copied_at`."""

    copied_at: float


class Probe(Event, frozen=True, kw_only=True):
    """After everything was mended: a new login, join, send and receive through one edge, or why not."""

    edge: str
    passed: bool
    why: str = ""


class Audit(Event, frozen=True, kw_only=True):
    """A part of a room's log as `source` (an edge, or the store) shows it; parts of one source ascend.

    Entries are (seq, key, h, sender).
    """

    source: str
    room: str
    epoch: str
    entries: list[tuple[int, str, str, str]]


class End(Event, frozen=True, kw_only=True):
    """Nothing is sent any more, and everything had its time to arrive. Only audits and probes follow."""


AnyEvent = (
    Invoke | Ok | Fail | Info | Deliver | Open | Close | Start | ResumeOk | JoinAsk | JoinOk | PartAsk | LeaveOk
    | KickOk | Bookmark | FileOk | FileRecv | FileStray | LogOut | DeadToken | Race | Taken | Heard | Fault | Restored
    | Probe | Audit | End
)  # fmt: skip

_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder()


class LogError(Exception):
    """A line of a log that is no event."""


def encode(event: Event) -> bytes:
    """The event as a line, without its end."""
    return _encoder.encode(event)


def decode(lines: Iterable[bytes]) -> Iterator[AnyEvent]:
    """The events of a log. Raises LogError with the line's number."""
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            yield _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LogError(f"line {number}: {error}") from error
