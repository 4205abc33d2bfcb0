"""A small chat system that keeps the promise, or breaks it in one way: makes histories for the checker's own tests.

It is a model and not our services: one log per room, edges that pass its messages on, connections with a queue of what
is still to arrive. Every step is drawn from one seeded random generator, so a seed is a history. A `Defect` is switched
on by name; `fired` counts how often it did its damage.
"""

from __future__ import annotations

import enum
import hashlib
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos import events as e

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMS = ("r1", "r2")
EDGES = ("edge-1", "edge-2")
REPLAYED_MAX = 6  # a thousand in the real one


class Defect(enum.Enum):
    """Ways to break the promise, each known from a real system."""

    NONE = "keeps the promise"
    SUCCESS_AFTER_OWN_MESSAGE = "the success for an own message comes after the message"  # which breaks nothing here
    ACK_BEFORE_COMMIT = "acknowledges before it commits, and crashes between the two"
    COMMIT_OVERWRITTEN = "a message in the middle of the log is lost on the way to the disk"
    REPLAY_OFF_BY_ONE = "the replay begins one message too late"
    REPLAY_REPEATS = "the replay begins one message too early"
    REPLAY_RACES_LIVE = "a live message overtakes the end of the replay"
    OLD_AS_LIVE = "recovered: false, and old messages come as live all the same"
    BUS_GAP_SKIPPED = "an edge misses a wake-up and goes on with the next"
    DELIVERED_TWICE = "an edge that reconnects to the bus passes a message on again"
    DEDUPE_WINDOW = "forgets keys after a while"
    DEDUPE_PER_EDGE = "remembers keys per edge"
    LIFO = "takes the newest of what waits"
    LATE_SEQ = "gives numbers from ranges, so that a later message may be numbered before an earlier"
    SHED_AFTER_STORE = "stores, and then answers overloaded"
    PHANTOM = "delivers what nobody sent"
    GARBLED = "changes a text on the way"
    WRONG_SENDER = "delivers a text under another name"
    TWO_TRUTHS = "an edge's cache shows another message under a number"
    HISTORY_SKIPS = "a page of history leaves out a message"
    KICK_IGNORED = "an edge does not hear of a kick"
    KICK_IGNORED_MEANWHILE = "an edge does not hear of a kick while another one is broken"
    LEAVE_IGNORED = "goes on after a leave on the same connection"
    NEVER_JOINED = "delivers to somebody who never joined"
    EPOCH_REUSED = "a restored copy goes on under the old epoch"
    EARLY_BOOKMARK = "a heartbeat names what the log has, not what was sent"
    FILE_CHANGED = "a file comes with other bytes"
    FILE_STRAYS = "a file's name leads out of the folder"
    FILE_LOST = "an acknowledged file cannot be fetched"
    RACE_WON_TWICE = "two logins that race on two edges both win"
    RACE_WON_BY_NOBODY = "two logins that race lock each other out"
    DEAD_TOKEN_ACCEPTED = "an edge knows a token that was logged out on another"
    TAKEN_OVER_GOES_ON = "an edge does not hear that a session was taken over"
    TAKEN_OVER_GOES_ON_MEANWHILE = "an edge does not hear of a takeover while Redis has been away for long"
    TAKEN_OVER_STAYS_OPEN = "a connection that was taken over is not closed"
    LOGGED_OUT_GOES_ON = "a connection that was logged out is still shown rooms"
    STUCK_AT_THE_END = "the last message waits for the next"
    NO_ANSWER = "a send is never answered"
    EDGE_STAYS_DEAD = "an edge serves nobody after it was mended"


@dataclass
class Text:
    """A stored message."""

    key: str
    h: str
    sender: str


@dataclass
class Room:
    """A room's log."""

    epoch: str = "e1"
    log: list[Text] = field(default_factory=list)
    keys: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (sender, key, edge or "") -> seq
    members: dict[str, None] = field(default_factory=dict)
    ahead: Text | None = None  # has the number after the next one already


@dataclass
class Connection:
    """What is under way to a client, in order."""

    name: str
    user: str
    edge: str
    queue: deque[Callable[[], e.Event]] = field(default_factory=deque)
    sent: dict[str, int] = field(default_factory=dict)  # room: up to where messages were queued
    has: dict[str, int] = field(default_factory=dict)  # room: up to where they arrived
    requests: list[e.Invoke] = field(default_factory=list)  # not committed
    unanswered: dict[int, e.Invoke] = field(default_factory=dict)  # by req
    last_req: int = 0


class Simulator:
    """Makes one history."""

    def __init__(self, seed: int, defect: Defect = Defect.NONE, *, users: int = 4) -> None:
        self.history: list[e.AnyEvent] = []
        self.fired = 0
        self.dice = random.Random(seed)
        self.defect = defect
        self.rooms = {name: Room() for name in ROOMS}
        self.connections: dict[str, Connection] = {}  # by user
        self.retry: dict[str, list[e.Invoke]] = {}  # by user, of unknown outcome
        self.acknowledged: list[e.Ok] = []
        self.files: list[e.FileRecv] = []  # as they were received
        self.epochs = 1
        self._now = 0.0
        self._serial = 0
        for number in range(users):
            user = f"u{number}"
            self.retry[user] = []
            self.connect(user)
            for room in ROOMS:
                if user != "u0" or room == ROOMS[0]:  # u0 is never in the second room
                    self.join(user, room)

    # Small things

    def breaks(self, defect: Defect, chance: float = 0.3) -> bool:
        """Whether this defect strikes here and now; it does so once, so that what follows from it can be told apart."""
        if self.defect is not defect or self.fired or self.dice.random() > chance:
            return False
        self.fired += 1
        return True

    def t(self) -> float:
        """The time, later with every look."""
        self._now = round(self._now + 0.001, 3)
        return self._now

    def pass_time(self, seconds: float) -> None:
        """The clock goes on."""
        self._now += seconds

    def was_broken(self, target: str, since: float) -> None:
        """Something was away until now."""
        self.say(e.Fault(t=self.t(), kind="kill", target=target, t0=since, t1=self._now))

    def serial(self) -> int:
        """A number that was not given before."""
        self._serial += 1
        return self._serial

    def say(self, event: e.AnyEvent) -> None:
        """Writes the event down."""
        self.history.append(event)

    # People come and go

    def connect(self, user: str) -> Connection:
        """Logs in on some edge."""
        conn = Connection(f"c{self.serial()}", user, self.dice.choice(EDGES))
        self.connections[user] = conn
        self.say(e.Open(t=self.t(), c=user, conn=conn.name, edge=conn.edge))
        return conn

    def join(self, user: str, name: str) -> None:
        """Becomes a member."""
        conn, room = self.connections[user], self.rooms[name]
        self.say(e.JoinAsk(t=self.t(), user=user, room=name))
        room.members[user] = None
        seq = len(room.log)
        conn.sent[name] = conn.has[name] = seq
        self.say(e.JoinOk(t=self.t(), user=user, room=name, seq=seq))
        self.say(e.Start(t=self.t(), c=user, conn=conn.name, room=name, epoch=room.epoch, seq=seq, how="join"))

    def leave(self, user: str, name: str) -> None:
        """Leaves, when everything has arrived (a real one would not have to)."""
        conn, room = self.connections[user], self.rooms[name]
        self.arrive(conn, everything=True)
        self.say(e.PartAsk(t=self.t(), user=user, room=name))
        room.members.pop(user, None)
        self.say(e.LeaveOk(t=self.t(), user=user, room=name, conn=conn.name))
        if self.breaks(Defect.LEAVE_IGNORED) and room.log:
            self.say(self._delivery(conn, name, len(room.log), "live"))
        conn.sent.pop(name, None)

    def kick(self, user: str, name: str) -> None:
        """An operator removes somebody."""
        conn, room = self.connections[user], self.rooms[name]
        self.say(e.PartAsk(t=self.t(), user=user, room=name))
        room.members.pop(user, None)
        self.say(e.KickOk(t=self.t(), user=user, room=name))
        self.arrive(conn, everything=True)  # what was on its way within the second
        speaker = next(iter(room.members), None)
        if speaker is not None and self.defect in {Defect.KICK_IGNORED, Defect.KICK_IGNORED_MEANWHILE}:
            kicked_at = self._now
            self.pass_time(1.5)
            self.send(speaker, name)
            self.commit(self.connections[speaker])
            seq = conn.sent[name] + 1
            if seq <= len(room.log) and self.breaks(self.defect, 0.8):
                self.say(self._delivery(conn, name, seq, "live"))
                if self.defect is Defect.KICK_IGNORED_MEANWHILE:
                    self.was_broken(next(edge for edge in EDGES if edge != conn.edge), kicked_at)
        conn.sent.pop(name, None)

    def drop(self, user: str) -> None:
        """The connection breaks: what is under way is lost, and the answers with it."""
        conn = self.connections.pop(user)
        self.say(e.Close(t=self.t(), c=user, conn=conn.name))
        for invoke in conn.unanswered.values():
            self.say(e.Info(t=self.t(), **_attempt(invoke), why="reset"))
            if not invoke.key.startswith("~"):
                self.retry[user].append(invoke)
        self.resume(user, conn)

    def resume(self, user: str, old: Connection) -> None:
        """Comes back, with what it has."""
        conn = self.connect(user)
        conn.has = {name: seq for name, seq in old.has.items() if user in self.rooms[name].members}
        for name, had in conn.has.items():
            room = self.rooms[name]
            top = len(room.log)
            recovered = top - had <= REPLAYED_MAX
            answer = e.ResumeOk(
                t=self.t(), c=user, conn=conn.name, previous=old.name, room=name, epoch=room.epoch, seq=had,
                recovered=recovered, last_seq=top,
            )  # fmt: skip
            self.say(answer)
            conn.sent[name] = top
            replay = list(range(had + 1, top + 1)) if recovered else []
            if len(replay) > 1 and self.breaks(Defect.REPLAY_OFF_BY_ONE):
                replay = replay[1:]
            if recovered and had and self.breaks(Defect.REPLAY_REPEATS):
                replay = [had, *replay]
            if len(replay) > 2 and self.breaks(Defect.REPLAY_RACES_LIVE):
                replay = [*replay[:-2], replay[-1], replay[-2]]
            if not recovered and self.breaks(Defect.OLD_AS_LIVE):
                replay = [top]
            for seq in replay:
                self._queue(conn, name, seq, "replay")
            if not recovered:
                for seq in range(had + 1, top + 1):
                    self.say(self._delivery(conn, name, seq, "history"))
                conn.has[name] = top
        waiting, self.retry[user] = self.retry[user], []
        for invoke in waiting:
            self._ask(conn, invoke.room, invoke.key, invoke.h)

    # Texts

    def send(self, user: str, name: str, *, key: str | None = None) -> None:
        """A new text."""
        number = self.serial()
        if key is None:
            key = f"~{number}" if self.dice.random() < 0.1 else f"k{number}"
        self._ask(self.connections[user], name, key, hashlib.sha256(f"{number}".encode()).hexdigest()[:12])

    def _ask(self, conn: Connection, name: str, key: str, h: str) -> None:
        conn.last_req += 1
        invoke = e.Invoke(t=self.t(), c=conn.user, conn=conn.name, room=name, key=key, h=h, req=conn.last_req)
        self.say(invoke)
        conn.unanswered[invoke.req] = invoke
        conn.requests.append(invoke)

    def commit(self, conn: Connection) -> None:
        """The oldest of what the connection asked is stored, answered and passed on."""
        if not conn.requests:
            return
        same_room = conn.requests[0].room == conn.requests[-1].room and len(conn.requests) > 1
        invoke = conn.requests.pop(-1 if same_room and self.breaks(Defect.LIFO) else 0)
        room = self.rooms[invoke.room]
        if conn.user not in room.members:
            self._answer(conn, lambda: e.Fail(t=self.t(), **_attempt(invoke), code="not_a_member"))
            return
        if self.dice.random() < 0.05:
            self._answer(conn, lambda: e.Fail(t=self.t(), **_attempt(invoke), code="overloaded"))
            return
        if self.breaks(Defect.ACK_BEFORE_COMMIT, 0.1):
            self._answer(conn, lambda: self._ok(invoke, len(room.log) + 1, duplicate=False))
            self.arrive(conn, everything=True)
            return
        place = (invoke.c, invoke.key, conn.edge if self.defect is Defect.DEDUPE_PER_EDGE else "")
        seq = room.keys.get(place)
        duplicate = seq is not None
        if duplicate and self.breaks(Defect.DEDUPE_WINDOW, 1.0):
            duplicate = False
        if not duplicate:
            seq = self._store(room, invoke, place)
        assert seq is not None
        if self.breaks(Defect.SHED_AFTER_STORE, 0.1):
            self._answer(conn, lambda: e.Fail(t=self.t(), **_attempt(invoke), code="overloaded"))
        elif self.defect is not Defect.SUCCESS_AFTER_OWN_MESSAGE:
            self._answer(conn, lambda: self._ok(invoke, seq, duplicate=duplicate))
        self.fan_out(invoke.room)
        if self.defect is Defect.SUCCESS_AFTER_OWN_MESSAGE:
            self.fired += 1
            self._answer(conn, lambda: self._ok(invoke, seq, duplicate=duplicate))

    def _store(self, room: Room, invoke: e.Invoke, place: tuple[str, str, str]) -> int:
        known = any(text.key == invoke.key and text.sender == invoke.c for text in room.log)
        if self.defect is Defect.DEDUPE_PER_EDGE and known:
            self.fired += 1
        text = Text(invoke.key, invoke.h, invoke.c)
        if room.ahead is None and not known and self.breaks(Defect.LATE_SEQ, 0.1):
            room.ahead = text
            seq = len(room.log) + 2
        else:
            room.log.append(text)
            seq = len(room.log)
            if room.ahead is not None:
                room.log.append(room.ahead)
                room.ahead = None
        room.keys[place] = seq
        return seq

    def _ok(self, invoke: e.Invoke, seq: int, *, duplicate: bool) -> e.Ok:
        epoch = self.rooms[invoke.room].epoch
        ok = e.Ok(t=self.t(), **_attempt(invoke), epoch=epoch, seq=seq, duplicate=duplicate)
        self.acknowledged.append(ok)
        return ok

    def _answer(self, conn: Connection, make: Callable[[], e.Ok | e.Fail]) -> None:
        if self.defect is Defect.NO_ANSWER and self.dice.random() < 0.05:
            self.fired += 1
            return

        def arrive() -> e.AnyEvent:
            event = make()
            conn.unanswered.pop(event.req, None)
            return event

        conn.queue.append(arrive)

    def fan_out(self, name: str) -> None:
        """Every edge passes on what is new in the room's log."""
        room = self.rooms[name]
        for conn in self.connections.values():
            sent = conn.sent.get(name)
            if sent is None or conn.user not in room.members:
                continue
            for seq in range(sent + 1, len(room.log) + 1):
                if self.breaks(Defect.BUS_GAP_SKIPPED, 0.02):
                    continue
                self._queue(conn, name, seq, "live")
                if self.breaks(Defect.DELIVERED_TWICE, 0.02):
                    self._queue(conn, name, seq, "live")
            conn.sent[name] = len(room.log)

    def _queue(self, conn: Connection, name: str, seq: int, via: e.Via) -> None:
        def arrive() -> e.AnyEvent:
            conn.has[name] = seq
            return self._delivery(conn, name, seq, via)

        conn.queue.append(arrive)

    def _delivery(self, conn: Connection, name: str, seq: int, via: e.Via) -> e.Deliver:
        room = self.rooms[name]
        text = room.log[seq - 1]
        key, h, sender = text.key, text.h, text.sender
        if self.breaks(Defect.PHANTOM, 0.02):
            # A text of its own, so that only the invention is wrong: the number is one that nobody else is shown.
            key, h, sender = f"k{self.serial()}", "00", "u0"
            seq += 1000
        elif self.breaks(Defect.GARBLED, 0.02):
            h = "ff"
        elif self.breaks(Defect.WRONG_SENDER, 0.02):
            sender = "nobody"
        return e.Deliver(
            t=self.t(), c=conn.user, conn=conn.name, room=name, epoch=room.epoch, seq=seq, key=key, sender=sender, h=h,
            via=via,
        )  # fmt: skip

    def arrive(self, conn: Connection, *, everything: bool = False) -> None:
        """The next of what is under way arrives, or all of it."""
        while conn.queue:
            self.say(conn.queue.popleft()())  # type: ignore[arg-type]
            if not everything:
                return


def _attempt(invoke: e.Invoke) -> dict[str, object]:
    return {name: getattr(invoke, name) for name in ("c", "conn", "room", "key", "h", "req")}
