"""The connection: one client's bytes in and out, around its session.

Everything that decides is elsewhere; here frames are cut from bytes and decisions are carried out. A turn of the event
loop takes a bounded number of frames from one connection, and a client that is ahead of its answers is not read: what
it sends waits in its own socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.common.wire.events import text_stored_frame
from services.common.wire.frames import Chunk, FrameDecoder
from services.edge.decisions import Close, Command, Decision, Pulse, Reply, Text, TracedText, User, failure
from services.edge.hub import Subscriber
from services.edge.ports import Room
from services.edge.qos.classes import QosClass
from services.edge.replies import OVERLOADED, TOO_LARGE, encode, goodbye
from services.edge.sender import Sender
from services.edge.session import Phase, Session
from services.edge.shared import Shared
from services.edge.tls_transport import TlsTransport

_FRAMES_PER_TURN: Final = 256
"""Some 2 ms of work: what one client may put between two other clients' frames."""

_BUFFER: Final = memoryview(bytearray(65_536))
"""Read to, at one time from one connection. asyncio's other way makes an object of 256 KiB for every read."""

_HIGH: Final = QosClass.HIGH
_log = get_logger(__name__)


class Connection(asyncio.BufferedProtocol):
    """One client, from the end of its TLS handshake on."""

    __slots__ = (
        "_decoder",
        "_inbox",
        "_is_deaf",
        "_is_scheduled",
        "_partial_since",
        "_sender",
        "_session",
        "_shared",
        "_subscriber",
        "_transport",
        "address",
        "connected_at",
        "heard_at",
        "id",
        "opened_at",
        "received_bytes",
    )

    def __init__(self, shared: Shared, *, connection_id: int, address: str) -> None:
        self.id = connection_id
        self.address = address
        self.connected_at = shared.clock.now()
        self.opened_at = self.heard_at = shared.clock.monotonic()
        self.received_bytes = 0
        self._shared = shared
        self._session = Session(shared.rules)
        self._sender = Sender(shared.flusher.mark, waiting_max=shared.limits.outbox_bytes_max, on_slow=self._close_slow)
        self._subscriber: Subscriber | None = None  # while logged in
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._inbox: deque[bytes | Chunk] | None = None  # frames that came and were not looked at yet
        self._is_scheduled = False
        self._is_deaf = False
        self._partial_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client is still there."""
        return self._session.phase is not Phase.CLOSED

    @property
    def is_signing_in(self) -> bool:
        """Whether a login is under way."""
        return self._session.is_signing_in

    @property
    def version(self) -> int:
        """The protocol version, 0 before the first frame."""
        return self._session.version

    @property
    def session(self) -> Session:
        """What the client may do now."""
        return self._session

    @property
    def user(self) -> User | None:
        """Who is logged in."""
        return self._session.user

    @property
    def subscriber(self) -> Subscriber | None:
        """How the hub sees the client, while it is logged in."""
        return self._subscriber

    @property
    def room_ids(self) -> list[str]:
        """The rooms that it sees."""
        return [] if self._subscriber is None else list(self._subscriber.rooms)

    @property
    def sent_bytes(self) -> int:
        """Bytes given to the transport."""
        return self._sender.sent_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait in the outbox."""
        return self._sender.outbox.waiting_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # tests have simpler ones
        self._transport = transport  # type: ignore[assignment]
        self._sender.open(transport)  # type: ignore[arg-type]
        self._shared.directory.add(self)
        self._shared.directory.open_count += 1

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where bytes are read to: one buffer for all connections, since each is emptied before the next is read."""
        return _BUFFER

    def buffer_updated(self, size: int) -> None:
        """Bytes have come."""
        shared = self._shared
        traffic = shared.traffic
        now = shared.clock.monotonic()
        self.heard_at = now
        self.received_bytes += size
        traffic.bytes_received.value += size
        decoder = self._decoder
        frames = decoder.feed(bytes(_BUFFER[:size]))
        if decoder.is_partial:
            if frames or self._partial_since is None:
                self._partial_since = now
        else:
            self._partial_since = None
        traffic.frames_received.value += len(frames)
        if self._inbox is not None:
            self._inbox.extend(frames)
        else:
            self._process(frames, now)

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._sender.pause(self._shared.clock.monotonic())

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._sender.resume()

    def connection_lost(self, _: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        self._shared.directory.open_count -= 1
        self._leave()
        self._transport = None  # it knows this object: without a circle both are freed at once

    # What the other parts of the edge say.

    def complete(self, command: Command, reply: Reply | bytes) -> None:
        """A command has been carried out or refused."""
        if not self.is_open:
            return
        now = self._shared.clock.monotonic()
        if isinstance(reply, Reply):
            self.reply(reply)
        elif reply:  # some version-1 requests are answered by silence
            self._sender.post((reply, command.qos_class, None, 0))
        self._shared.traffic.request_duration.observe(now - command.received_at)
        if self._session.is_barrier(command.request):
            self._carry_out(self._session.finish(now), now)
            self._process_later()

    def text_stored(self, text: Text, epoch: str, seq: int, ts: int, duplicate: bool, now: float) -> None:
        """A text is durable."""
        session = self._session
        if session.phase is Phase.CLOSED:
            return
        if session.version != 1:
            data = text_stored_frame(text.room_id, epoch, seq=seq, ts=ts, duplicate=duplicate, re=text.re)
            self._sender.outbox.post((data, _HIGH, None, 0))
        self._finish_text(now)

    def text_refused(self, text: Text, code: ErrorCode, message: str, retry_after_s: float | None, now: float) -> None:
        """A text is not stored, or (unknown_outcome) may not be."""
        if not self.is_open:
            return
        self.reply(failure("text_message", text.re, code, message, retry_after_s=retry_after_s, room_id=text.room_id))
        self._finish_text(now)

    def log_in(self, user: User) -> None:
        """The client is this user from now on."""
        shared = self._shared
        self._session.log_in(user, shared.buckets.of(user.user_id))
        self._subscriber = Subscriber(self, self._sender.outbox, version=self.version, user=user)
        shared.directory.log_in(user, self)
        shared.admission.log_in(self)

    def log_out(self) -> None:
        """The client is anonymous again."""
        self._forget_user()
        self._session.log_out()
        self._shared.admission.log_out(self)
        self.opened_at = self._shared.clock.monotonic()

    def enter(self, room: Room, *, after: int | None = None) -> int:
        """The client sees a room from now on, or from `after` on; returns the seq behind which live messages begin."""
        assert self._subscriber is not None  # only a logged-in client enters rooms
        hub = self._shared.hub
        before = self._session.enter(room.room_id)
        if before is not None:
            hub.detach(self._subscriber, before)
        return hub.attach(self._subscriber, room.room_id, epoch=room.epoch, last_seq=room.last_seq, after=after)

    def leave(self, room_id: str) -> None:
        """The client does not see a room any more."""
        self._session.leave(room_id)
        if self._subscriber is not None:
            self._shared.hub.detach(self._subscriber, room_id)

    async def drained(self) -> None:
        """Wait until the client has taken most of what there is for it, or is gone."""
        await self._sender.drained()

    def expect_much(self) -> None:
        """A file may come."""
        if isinstance(self._transport, TlsTransport):
            self._transport.expect_much()

    def check(self, now: float) -> None:
        """Close the connection if it has been silent, anonymous, stuck or in the middle of a frame for too long."""
        limits = self._shared.limits
        stuck_since = self._sender.stuck_since(now)
        if stuck_since is not None and now - stuck_since >= limits.stuck_s:
            self._close_slow()
        elif self._inbox is not None:
            self.heard_at = now  # it is the edge that does not listen
        elif now - self.heard_at >= limits.idle_s or (
            self._session.user is None and not self.is_signing_in and now - self.opened_at >= limits.login_s
        ):
            self.close("idle")
        elif self._partial_since is not None and now - self._partial_since >= limits.partial_frame_s:
            self.close("protocol_error")

    def close(self, reason: str, *, reconnect_after_ms: int = 0) -> None:
        """Say goodbye and close; the session is over at once."""
        if not self.is_open:
            return
        reply = goodbye(reason, version=self.version, reconnect_after_ms=reconnect_after_ms)
        self._end(self._encode(reply))

    def stop_reading(self) -> None:
        """Take no more requests: the edge is about to end."""
        self._is_deaf = True
        self._pause_reading()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()
        self._leave()

    # How it is done.

    def _process(self, frames: Sequence[bytes | Chunk], now: float) -> None:
        session, pump = self._session, self._shared.pump
        receive, must_hold = session.receive, pump.must_hold
        for index, frame in enumerate(frames):
            is_held = must_hold(self.id)
            if is_held or session.is_full or index == _FRAMES_PER_TURN:
                self._inbox = deque(frames[index:])
                self._pause_reading()
                if is_held:
                    pump.hold(self.id, self._process_later)
                elif not session.is_full:  # else an answer makes room
                    self._process_later()
                return
            self._carry_out(receive(frame, now), now)
        if self._decoder.fault is not None and self.is_open:
            self._carry_out(session.break_stream(self._decoder.fault), now)

    def _finish_text(self, now: float) -> None:
        if decisions := self._session.finish_text(now):
            self._carry_out(decisions, now)
        self._process_later()

    def _process_later(self) -> None:
        """Go on with what is in the inbox, in the loop's next turn."""
        if self._inbox is not None and not self._is_scheduled and not self._shared.pump.is_held(self.id):
            self._is_scheduled = True
            self._shared.call_soon(self._process_inbox)

    def _process_inbox(self) -> None:
        self._is_scheduled = False
        inbox, self._inbox = self._inbox, None
        if inbox is None or not self.is_open:
            return
        self._process(list(inbox), self._shared.clock.monotonic())
        if self._inbox is None and self.is_open and self._transport is not None and not self._is_deaf:
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _carry_out(self, decisions: Sequence[Decision], now: float) -> None:
        for decision in decisions:
            kind = type(decision)
            if kind is Text:
                self._offer_text(decision, now)  # type: ignore[arg-type]
            elif kind is Reply:
                self.reply(decision)  # type: ignore[arg-type]
            elif kind is Command:
                self._offer_command(decision, now)  # type: ignore[arg-type]
            elif kind is Pulse:
                rooms = {} if self._subscriber is None else self._shared.hub.bookmarks(self._subscriber)
                self.reply(Reply("heartbeat", {"rooms": rooms}, decision.re, lane=QosClass.CRITICAL))  # type: ignore[union-attr]
            elif isinstance(decision, TracedText):
                self._shared.spans.wish(decision)
                self._offer_text(decision, now)
            elif isinstance(decision, Close):
                self._end(b"") if decision.reason is None else self.close(decision.reason)

    def _offer_text(self, text: Text, now: float) -> None:
        text.connection = self
        retry_after_s = self._shared.pump.offer_text(text, now)
        if retry_after_s is None:
            self._shared.traffic.texts_received.add()
        else:
            self._shared.spans.refused(text, ErrorCode.OVERLOADED)
            text.refuse(ErrorCode.OVERLOADED, OVERLOADED, retry_after_s, now)

    def _offer_command(self, command: Command, now: float) -> None:
        command.connection = self
        if (wait_s := self._shared.pump.offer_command(command, now)) is not None:
            kind = command.request.type
            self.complete(command, failure(kind, command.re, ErrorCode.OVERLOADED, OVERLOADED, retry_after_s=wait_s))

    def reply(self, reply: Reply) -> None:
        """Send a frame."""
        if "code" in reply.data:
            self._shared.traffic.errors.add()
        try:
            data = self._encode(reply)
        except ValueError:  # it would pass the frame's limit: the client is still owed an answer
            _log.exception("reply too large", reply=reply.type, connection_id=self.id)
            data = self._encode(failure(None, reply.re, ErrorCode.INTERNAL, TOO_LARGE))
        self._sender.post((data, QosClass.NORMAL if reply.in_order else reply.lane, None, 0))

    def _encode(self, reply: Reply) -> bytes:
        version = self._session.version
        if version != 1:
            return encode(reply, version=version, number=0, now=0.0)
        return encode(reply, version=version, number=self._shared.number(), now=self._shared.clock.now())

    def _close_slow(self) -> None:
        self.close("slow_consumer")

    def _end(self, last: bytes) -> None:
        self._sender.finish(last)
        self._leave()

    def _leave(self) -> None:
        """The client is gone for everybody else. Idempotent."""
        if not self.is_open:
            return
        shared = self._shared
        user = self._session.user
        if user is not None:
            self._forget_user()
            shared.departures.ended(user.session_id)
        self._session.close()
        self._sender.lost()
        self._inbox = None
        shared.pump.discard(self.id)
        shared.directory.remove(self)
        shared.admission.leave(self)

    def _forget_user(self) -> None:
        shared = self._shared
        user, subscriber = self._session.user, self._subscriber
        assert user is not None  # callers have looked
        assert subscriber is not None  # made together with the user
        shared.hub.detach_all(subscriber)
        self._subscriber = None
        shared.directory.log_out(user)
        shared.buckets.release(user.user_id, shared.clock.monotonic())
