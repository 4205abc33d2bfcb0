"""The session: what one client may do now, decided purely: frames in, decisions out.

    FRESH ──first frame──> ANONYMOUS ──auth──> READY ──> CLOSED (from anywhere)
                               ^───────logout────┘

The first frame fixes the version: `hello` asks for 2, anything else is version 1. Requests that change what later
frames mean (register, auth, resume, logout, create, join, leave) are a *barrier*: later frames of the connection are
held, in order, until the answer is there, so a client may pipeline hello, auth, join and texts. A logout or leave also
waits for the texts before it. Heartbeats and broken frames are answered past a barrier.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, Final, Protocol

import msgspec

from services.common.wire.codes import ErrorCode
from services.common.wire.envelope import RequestId, WireError, parse
from services.common.wire.events import iso_time
from services.common.wire.frames import Chunk
from services.common.wire.requests import (
    FileAck,
    FileCancel,
    FileTransfer,
    Heartbeat,
    Hello,
    Request,
    TextMessage,
    parse_request,
)
from services.common.wire.text_frames import parse_text_frame
from services.edge.decisions import Close, Command, Decision, Pulse, Reply, Text, User, failure, traced
from services.edge.qos.classes import QosClass, class_of
from services.edge.request_rules import AFTER_TEXTS, BARRIERS, BEFORE_LOGIN, CURRENT_ROOM, KNOWN, LOGINS
from services.edge.runs import CUT_OFF, Run, Runs
from services.edge.token_bucket import TokenBucket

_NORMAL: Final = QosClass.NORMAL
_LOW: Final = QosClass.LOW

_TEXTS_RETRY_S: Final = 0.2
"""A guess: the time in which an edge under load answers what is under way."""

_NOTHING: Final[list[Decision]] = []
"""Returned, never changed, where a list for each text would be waste."""

_BROKEN: Final = {
    ErrorCode.BAD_FRAME: "this is not a frame of the protocol",
    ErrorCode.FRAME_TOO_LARGE: "the frame is larger than the protocol allows",
}

_NO_ROOM: Final = "you are not in a room: join one first"
_TOO_FAST: Final = "you are sending faster than is allowed"
_TOO_MANY: Final = "too many of your messages are under way"

_PIECES_HELD_MAX: Final = 8
"""Pieces of version-1 files that may be held: they are large, and wait for each other."""


class Desk(Protocol):
    """The files that a client is sending and fetching."""

    def receive(self, chunk: Chunk) -> Reply | None:
        """Take a piece of a file; return the refusal where it does not belong here."""
        ...

    def acknowledge(self, request: FileAck) -> bool:
        """The client has taken something; return whether that was worth saying."""
        ...

    def drop(self, file_id: str) -> bool:
        """Stop a transfer; return whether the client was fetching the file."""
        ...

    def close(self) -> None:
        """The client is gone, or somebody else."""
        ...


class Phase(Enum):
    """Where a session stands."""

    FRESH = "fresh"
    ANONYMOUS = "anonymous"
    READY = "ready"
    CLOSED = "closed"


class Rules(msgspec.Struct, frozen=True):
    """What is the same for all sessions of an edge. Rates are per second; 0 means no limit."""

    server_info: dict[str, Any]
    command_rate: float
    command_burst: int
    faults_per_minute: int
    held_max: int  # frames behind a barrier; more of them wait in the socket
    texts_max: int  # texts of one connection that may be under way


class Session:
    """One connection's session. Times are seconds of a monotonic clock."""

    __slots__ = (
        "_barrier",
        "_bucket",
        "_commands",
        "_faults",
        "_held",
        "_rules",
        "_runs",
        "client",
        "current_room",
        "desk",
        "phase",
        "texts_under_way",
        "user",
        "version",
    )

    def __init__(self, rules: Rules) -> None:
        self.phase = Phase.FRESH
        self.version = 0  # until the first frame
        self.client = ""
        self.user: User | None = None
        self.current_room: str | None = None  # version 1
        self.texts_under_way = 0
        self.desk: Desk | None = None  # from the first file on
        self._rules = rules
        self._bucket: TokenBucket | None = None
        self._barrier: Request | None = None  # under way, or waiting for texts
        self._held: deque[tuple[Request, RequestId | None, int | None]] | None = None
        self._commands: TokenBucket | None = None
        self._faults: TokenBucket | None = None
        self._runs: Runs | None = None  # from the first text on that says how it follows others

    # What the connection reports.

    def receive(self, frame: bytes | Chunk, now: float) -> list[Decision]:
        """Decide about a frame."""
        if self.phase is Phase.CLOSED:
            return []
        if type(frame) is Chunk:
            return self._receive_chunk(frame, now)
        assert isinstance(frame, bytes)  # it is one or the other
        if self.user is not None and self._barrier is None and (text := parse_text_frame(frame)) is not None:
            data = text.data
            room_id = data.room_id if data.room_id is not None else text.room_id
            return [self._decide_text(room_id, data.text, data.key, data.follows, text.id, text.priority, now)]
        try:
            envelope = parse(frame)
            request = parse_request(envelope)
        except WireError as fault:
            return self._refuse_frame(fault, now)
        if self._barrier is not None and type(request) is not Heartbeat:
            if self._held is None:
                self._held = deque()
            self._held.append((request, envelope.id, envelope.priority))
            return []
        decisions = self._decide(request, envelope.id, envelope.priority, now)
        return traced(decisions, envelope.traceparent) if envelope.traceparent else decisions

    def finish(self, now: float) -> list[Decision]:
        """The request that was a barrier has been answered: decide about the frames behind it."""
        self._barrier = None
        return self._release(now)

    def finish_text(self, now: float) -> list[Decision]:
        """A text has been answered."""
        self.texts_under_way -= 1
        if self._barrier is None or self.texts_under_way:
            return _NOTHING
        if self._held and self._held[0][0] is self._barrier:  # it was waiting for the last text
            request, re, priority = self._held.popleft()
            return [_command(request, re, priority, now)]
        return _NOTHING

    def log_in(self, user: User, bucket: TokenBucket) -> None:
        """The client is `user` from now on; `bucket` limits their texts."""
        self.user = user
        self.phase = Phase.READY
        self._bucket = bucket

    def log_out(self) -> None:
        """The client is anonymous again."""
        self._close_desk()
        self.user = None
        self.phase = Phase.ANONYMOUS
        self.current_room = None
        self._bucket = None

    def enter(self, room_id: str) -> str | None:
        """The client is in a room. Returns the room that it is not in any more: version 1 sits in one at a time."""
        if self.version != 1:
            return None
        before, self.current_room = self.current_room, room_id
        return before if before != room_id else None

    def leave(self, room_id: str) -> None:
        """The client is not in a room any more."""
        if self.current_room == room_id:
            self.current_room = None

    def break_stream(self, code: ErrorCode) -> list[Decision]:
        """The byte stream has lost its frame boundaries: nothing more can be understood."""
        if self.version == 0:
            self.version = 1
        return [failure(None, None, code, _BROKEN[code]), Close()]

    def close(self) -> None:
        """Nothing is decided any more."""
        self._close_desk()
        self.phase = Phase.CLOSED
        self.user = None
        self._held = None
        self._barrier = None

    @property
    def is_full(self) -> bool:
        """Whether so much is held or under way that the connection should not be read for a while."""
        held = self._held
        if not held:
            return self.texts_under_way >= self._rules.texts_max
        return len(held) >= self._rules.held_max or (
            len(held) >= _PIECES_HELD_MAX and type(held[-1][0]) is FileTransfer
        )

    @property
    def is_signing_in(self) -> bool:
        """Whether a login is under way."""
        return type(self._barrier) in LOGINS

    def is_barrier(self, request: Request) -> bool:
        """Whether `finish` is to be called when this request has been answered."""
        return request is self._barrier

    # What it decides.

    def _decide(self, request: Request, re: RequestId | None, priority: int | None, now: float) -> list[Decision]:
        kind = type(request)
        if self.phase is Phase.FRESH:
            self.phase = Phase.ANONYMOUS
            self.version = 2 if kind is Hello else 1
            if kind is Hello:
                return [self._greet(request, re)]  # type: ignore[arg-type]
        if kind is Hello:
            return self._fault(_refusal(request, re, ErrorCode.BAD_REQUEST, "hello must be the first frame"), now)
        if kind not in KNOWN[self.version]:
            message = f"version {self.version} of the protocol has no {kind.type}"
            return self._fault(_refusal(request, re, ErrorCode.UNKNOWN_TYPE, message), now)
        if self.user is None and kind not in BEFORE_LOGIN:
            return self._fault(_refusal(request, re, ErrorCode.NOT_AUTHENTICATED, "log in first"), now)
        if isinstance(request, TextMessage):
            return [self._decide_text(request.room_id, request.text, request.key, request.follows, re, priority, now)]
        if isinstance(request, FileAck) and self.desk is not None and self.desk.acknowledge(request):
            return []
        if kind is not FileTransfer and (wait_s := self._take_command(now)) > 0:
            message = "too many requests; wait a moment"
            return [_refusal(request, re, ErrorCode.RATE_LIMITED, message, retry_after_s=wait_s)]
        if kind is Heartbeat:
            return [Pulse(re)]
        return self._decide_command(request, re, priority, now)

    def _decide_command(
        self, request: Request, re: RequestId | None, priority: int | None, now: float
    ) -> list[Decision]:
        kind = type(request)
        if kind is FileAck:
            return []  # late
        if isinstance(request, FileCancel) and self.desk is not None and self.desk.drop(request.file_id):
            return [Reply("success", {}, re)]
        if kind in LOGINS and self.user is not None:
            message = "you are logged in already, on this very connection"
            since = {"since": iso_time(self.user.since)}
            return [_refusal(request, re, ErrorCode.ALREADY_LOGGED_IN, message, details=since)]
        if kind in CURRENT_ROOM and request.room_id is None:  # type: ignore[union-attr]
            if self.version != 1:
                return [_refusal(request, re, ErrorCode.BAD_REQUEST, "room_id: is required")]
            if self.current_room is None:
                return [_refusal(request, re, ErrorCode.NOT_A_MEMBER, _NO_ROOM)]
            request = msgspec.structs.replace(request, room_id=self.current_room)
        if kind in BARRIERS:
            self._barrier = request
            if kind in AFTER_TEXTS and self.texts_under_way:
                self._held = deque([(request, re, priority), *(self._held or ())])
                return []
        return [_command(request, re, priority, now)]

    def _decide_text(
        self,
        room_id: str | None,
        text: str,
        key: str | None,
        follows: bool | None,
        re: RequestId | None,
        priority: int | None,
        now: float,
    ) -> Decision:
        user, bucket = self.user, self._bucket
        assert user is not None  # only a logged-in client's texts come here
        assert bucket is not None
        if room_id is None:
            if self.version != 1:
                return _refusal(TextMessage, re, ErrorCode.BAD_REQUEST, "room_id: is required")
            if self.current_room is None:
                return _refusal(TextMessage, re, ErrorCode.NOT_A_MEMBER, _NO_ROOM)
            room_id = self.current_room
        run = None if follows is None else self._run(room_id, follows=follows)
        if run is not None and run.code is not None:
            return _refusal(TextMessage, re, run.code, CUT_OFF, retry_after_s=run.retry_after_s)
        if (wait_s := bucket.take(now)) > 0:
            return _turn_away(run, re, ErrorCode.RATE_LIMITED, _TOO_FAST, wait_s)
        if self.texts_under_way >= self._rules.texts_max:
            return _turn_away(run, re, ErrorCode.OVERLOADED, _TOO_MANY, _TEXTS_RETRY_S)
        self.texts_under_way += 1
        qos_class = _NORMAL if priority is None or priority >= _NORMAL else _LOW
        decision = Text(room_id, text, key, re, qos_class, user.user_id, user.username, now, voucher=user.voucher)
        if run is not None:
            decision.run, decision.place = run, run.add()
        return decision

    def _run(self, room_id: str, *, follows: bool) -> Run:
        if self._runs is None:
            self._runs = Runs()
        return self._runs.of(room_id, follows=follows)

    def _release(self, now: float) -> list[Decision]:
        """Decide about held frames until one of them is a barrier again."""
        decisions: list[Decision] = []
        while self._held and self._barrier is None and not (decisions and type(decisions[-1]) is Close):
            request, re, priority = self._held.popleft()
            decisions += self._decide(request, re, priority, now)
        if not self._held:
            self._held = None
        return decisions

    def _greet(self, request: Hello, re: RequestId | None) -> Reply:
        self.client = request.client
        return Reply("server_info", self._rules.server_info, re, lane=QosClass.HIGH)

    def _receive_chunk(self, chunk: Chunk, now: float) -> list[Decision]:
        if self.phase is Phase.FRESH:
            self.phase = Phase.ANONYMOUS
            self.version = 1
        if self.user is None:
            return self._fault(failure(None, None, ErrorCode.NOT_AUTHENTICATED, "log in first"), now)
        if self.desk is None:
            return self._fault(failure(None, None, ErrorCode.NO_SUCH_FILE, "no file transfer is under way"), now)
        refusal = self.desk.receive(chunk)
        return _NOTHING if refusal is None else self._fault(refusal, now)

    def _close_desk(self) -> None:
        desk, self.desk = self.desk, None
        if desk is not None:
            desk.close()

    def _refuse_frame(self, fault: WireError, now: float) -> list[Decision]:
        if self.phase is Phase.FRESH and fault.type != Hello.type:
            self.phase = Phase.ANONYMOUS
            self.version = 1
        return self._fault(failure(fault.type, fault.re, fault.code, fault.message), now)

    def _fault(self, reply: Reply, now: float) -> list[Decision]:
        """Answer a faulty frame; too many of them end the connection."""
        if self._faults is None:
            per_minute = self._rules.faults_per_minute
            self._faults = TokenBucket(rate=per_minute / 60, burst=per_minute)
        if self._faults.take(now) > 0:
            return [reply, Close("protocol_error")]
        return [reply]

    def _take_command(self, now: float) -> float:
        if self._commands is None:
            self._commands = TokenBucket(rate=self._rules.command_rate, burst=self._rules.command_burst)
        return self._commands.take(now)


def _command(request: Request, re: RequestId | None, priority: int | None, now: float) -> Command:
    return Command(request, re, class_of(request.type, wish=priority), now)


def _refusal(
    request: Request | type[Request],
    re: RequestId | None,
    code: ErrorCode,
    message: str,
    *,
    retry_after_s: float | None = None,
    details: dict[str, Any] | None = None,
) -> Reply:
    return failure(request.type, re, code, message, retry_after_s=retry_after_s, details=details)


def _turn_away(run: Run | None, re: RequestId | None, code: ErrorCode, message: str, retry_after_s: float) -> Reply:
    """Refuse a text, and with it what follows."""
    if run is not None:
        run.turn_away(run.add(), code, retry_after_s)
    return _refusal(TextMessage, re, code, message, retry_after_s=retry_after_s)
