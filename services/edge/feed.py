"""The feed: the one stream to rooms, on which texts go up and results and events come down.

Up goes whatever has queued up while the write before was under way: texts, and rooms to follow or not. A response is
processed whole, without giving the event loop a turn: first the results, so that the success for an own message comes
before the message, then messages, then who came and went. When the stream breaks, the next one begins with everyone
who is connected here, every room from the hub's position on, and every text that has no answer yet.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final, Protocol

import grpc
import grpc.aio
from parley.rooms.v1 import feed_pb2, rooms_pb2

from services.common.clock import Clock
from services.common.logs import get_logger
from services.common.wire.events import Message
from services.edge.backends import file_data
from services.edge.decisions import User
from services.edge.hub import Follow
from services.edge.message_spans import NoSpans, TextSpans
from services.edge.publisher import Publisher

_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
"""A client's text waits for 10 s at most; a rooms that restarts is found within a second of being back."""

_ACTIONS: Final = {
    feed_pb2.PRESENCE_ACTION_JOIN: "join",
    feed_pb2.PRESENCE_ACTION_LEAVE: "leave",
    feed_pb2.PRESENCE_ACTION_ONLINE: "online",
    feed_pb2.PRESENCE_ACTION_OFFLINE: "offline",
    feed_pb2.PRESENCE_ACTION_COUNT: "count",
}

_log = get_logger(__name__)


class Stream(Protocol):
    """What the feed uses of a gRPC stream."""

    async def write(self, request: feed_pb2.AttachRequest) -> None:
        """Send a request; returns when it is on its way."""
        ...

    async def read(self) -> feed_pb2.AttachResponse | object:
        """The next response, or grpc.aio.EOF."""
        ...

    def cancel(self) -> bool:
        """End the stream."""
        ...


class View(Protocol):
    """What the feed uses of the hub."""

    def follow_all(self) -> None:
        """The stream is new."""
        ...

    def take_follows(self) -> tuple[list[Follow], list[str]]:
        """The rooms to follow and to unfollow since the last call."""
        ...

    def receive(self, room_id: str, epoch: str, messages: Sequence[Message], now: float) -> bool:
        """Take consecutive messages of a room."""
        ...

    def announce(self, room_id: str, action: str, *, username: str, online: int, now: float) -> None:
        """Tell who came or went."""
        ...


class Feed:
    """Keeps the stream to a rooms instance. Whoever has something to write sets `bell`.

    `open_stream` begins a stream; `present` gives everyone who is connected and the ids of their rooms;
    `on_removed(room_id, user_id, last_seq)` is told of memberships that have ended, `on_live` when the stream has
    brought its first response, and when it is lost.
    """

    def __init__(
        self,
        *,
        edge_name: str,
        boot_id: str,
        open_stream: Callable[[], Stream],
        bell: asyncio.Event,
        publisher: Publisher,
        hub: View,
        present: Callable[[], Iterable[tuple[User, Iterable[str]]]],
        on_removed: Callable[[str, str, int], object],
        clock: Clock,
        on_live: Callable[[bool], object] = lambda _: None,
        spans: TextSpans | None = None,
    ) -> None:
        self._edge_name = edge_name
        self._boot_id = boot_id
        self._open_stream = open_stream
        self._publisher = publisher
        self._hub = hub
        self._present = present
        self._on_removed = on_removed
        self._clock = clock
        self._bell = bell
        self._must_announce = False
        self._on_live = on_live
        self._spans = spans or NoSpans()
        self._stream: Stream | None = None
        self._opening: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self.is_connected = False

    @property
    def heard_at(self) -> float | None:
        """When the stream last brought something, monotonic; None while it does not work."""
        return self._heard_at if self.is_connected else None

    def cut(self) -> None:
        """End the stream, and begin another."""
        if self._stream is not None:
            self._stream.cancel()
        if self._opening is not None:
            self._opening.cancel()  # gRPC lets a first write wait for ever whose call is cancelled before it began

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        backoff_s = _BACKOFF_FIRST_S
        is_reported = False
        while True:
            started_at = self._clock.monotonic()
            reason = await self._serve_once()
            if self._clock.monotonic() - started_at > _BACKOFF_MAX_S:  # it worked: begin anew
                backoff_s = _BACKOFF_FIRST_S
                is_reported = False
            if not is_reported:
                _log.warning("stream to rooms lost", reason=reason, texts_under_way=len(self._publisher))
                is_reported = True
            await self._clock.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads edges
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _serve_once(self) -> str:
        """Open a stream and keep it until it breaks; return why it did."""
        stream = self._stream = self._open_stream()
        writer: asyncio.Task[None] | None = None
        try:
            self._opening = asyncio.ensure_future(stream.write(self._hello()))
            await self._opening
            self._publisher.connected()  # only now: what is given to a stream that never was counts as written
            self._bell.set()
            writer = asyncio.create_task(self._write(stream), name="feed writer")
            writer.add_done_callback(lambda _: stream.cancel())  # the reader ends with it
            while isinstance(response := await stream.read(), feed_pb2.AttachResponse):
                self._heard_at = self._clock.monotonic()
                if not self.is_connected:
                    self.is_connected = True
                    _log.info("stream to rooms open")
                    self._on_live(True)
                self._process(response)
            return "ended by rooms"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except asyncio.InvalidStateError as error:  # grpc.aio: the stream ended between two calls
            return str(error)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the edge stops
            return "cancelled"
        finally:
            self.is_connected = False
            self._publisher.disconnected()
            self._on_live(False)
            stream.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.wait([writer])
                if not writer.cancelled():
                    writer.exception()  # what ended the writer ended the reader too, which has reported it

    def _hello(self) -> feed_pb2.AttachRequest:
        self._must_announce = False
        self._hub.follow_all()
        hello = feed_pb2.EdgeHello(edge_name=self._edge_name, boot_id=self._boot_id, sessions=self._sessions())
        return self._next_request(hello)

    def _sessions(self) -> list[feed_pb2.SessionPresence]:
        return [
            feed_pb2.SessionPresence(
                session=rooms_pb2.Session(
                    session_id=user.session_id,
                    user_id=user.user_id,
                    username=user.username,
                    edge_boot_id=self._boot_id,
                    assertion=user.voucher.assertion,
                ),
                room_ids=room_ids,
            )
            for user, room_ids in self._present()
        ]

    def _next_request(self, hello: feed_pb2.EdgeHello | None = None) -> feed_pb2.AttachRequest:
        follows, unfollows = self._hub.take_follows()
        request = feed_pb2.AttachRequest(
            hello=hello,
            follows=[
                feed_pb2.Follow(room_id=room_id, epoch=epoch, after_seq=after_seq)
                for room_id, epoch, after_seq in follows
            ],
            unfollow_room_ids=unfollows,
        )
        if self._must_announce:
            self._must_announce = False
            request.announcement.sessions.extend(self._sessions())
        self._publisher.fill(request)
        return request

    async def _write(self, stream: Stream) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            request = self._next_request()
            has_rooms = request.follows or request.unfollow_room_ids
            if request.HasField("publishes") or has_rooms or request.HasField("announcement"):
                await stream.write(request)

    def _process(self, response: feed_pb2.AttachResponse) -> None:
        # No await in here: a response is one step.
        now = self._clock.monotonic()
        if response.HasField("stored") or response.results:
            self._publisher.resolve(response.stored, response.results, now)
        for room in response.rooms:
            messages = list(map(Message, count(room.first_seq), room.usernames, room.texts, room.sent_at_ms))
            for seq, file in room.files.items():
                messages[seq - room.first_seq].file = file_data(file)
            self._hub.receive(room.room_id, room.epoch, messages, now)
            if room.traces:
                self._spans.received(room.room_id, room.epoch, room.traces)
        for change in response.presence_changes:
            action = _ACTIONS.get(change.action)
            if action is not None:
                self._hub.announce(
                    change.room_id,
                    action,
                    username=change.username,
                    online=change.online_count,
                    now=self._clock.now(),
                )
        if response.announce_again:
            self._must_announce = True
            self._bell.set()
        for ended in response.membership_changes:
            self._on_removed(ended.room_id, ended.user_id, ended.last_seq)
