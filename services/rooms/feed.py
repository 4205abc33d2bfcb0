"""The Attach stream: an edge's messages in, and what happens in its rooms out.

Each direction is one loop. A request is handed on without waiting; a response holds whatever has queued up while the
one before was being written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
from parley.rooms.v1 import feed_pb2, feed_pb2_grpc

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.rooms.messages import Outcome, Publish, Run
from services.rooms.presence import Action
from services.rooms.servicer import encode_file, read_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from services.rooms.attendance import Attendance
    from services.rooms.directory import Directory
    from services.rooms.log import MessageLog
    from services.rooms.message_spans import MessageSpans
    from services.rooms.stream import Parcel, Stream
    from services.rooms.streams import Streams
    from services.rooms.vouchers import Speakers, Vouchers

    Context = grpc.aio.ServicerContext[feed_pb2.AttachRequest, feed_pb2.AttachResponse]

NAME_CHARS_MAX: Final = 64
"""The name of an edge and the id of a boot: they are labels."""

_SESSIONS_PER_TURN: Final = 32
"""Assertions of sessions that are verified in one turn of the event loop: some 4 ms."""

_ASSERTION_RETRY_S: Final = 1.0

_ACTIONS: Final = {
    Action.JOIN: feed_pb2.PRESENCE_ACTION_JOIN,
    Action.LEAVE: feed_pb2.PRESENCE_ACTION_LEAVE,
    Action.ONLINE: feed_pb2.PRESENCE_ACTION_ONLINE,
    Action.OFFLINE: feed_pb2.PRESENCE_ACTION_OFFLINE,
    Action.COUNT: feed_pb2.PRESENCE_ACTION_COUNT,
}
_log = get_logger(__name__)


class EncodedRun:
    """A run of messages in the form in which it is sent, made once for all streams."""

    __slots__ = ("epoch", "first_seq", "last_seq", "payload", "run", "size")

    def __init__(self, run: Run, traces: Mapping[int, bytes] | None = None) -> None:
        messages = run.messages
        self.run = run
        self.epoch = run.epoch
        self.first_seq = run.first_seq
        self.last_seq = run.last_seq
        self.payload = feed_pb2.RoomMessages(
            room_id=run.room_id,
            epoch=run.epoch,
            first_seq=run.first_seq,
            usernames=[message.username for message in messages],
            texts=[message.text for message in messages],
            sent_at_ms=[message.sent_at_ms for message in messages],
        )
        for message in messages:
            if message.file is not None:
                self.payload.files[message.seq].CopyFrom(encode_file(message.file))
        for seq, context in (traces or {}).items():
            self.payload.traces[seq] = context
        self.size = self.payload.ByteSize()

    def after(self, seq: int) -> EncodedRun:
        """The messages behind `seq`, of which there is at least one."""
        return EncodedRun(Run(self.run.room_id, self.epoch, self.run.messages[seq - self.first_seq + 1 :]))


def _result(number: int, outcome: Outcome) -> feed_pb2.PublishResult:
    if outcome.code is not None:
        return feed_pb2.PublishResult(number=number, error_code=outcome.code.value, retry_after_s=outcome.retry_after_s)
    return feed_pb2.PublishResult(
        number=number, epoch=outcome.epoch, seq=outcome.seq, sent_at_ms=outcome.sent_at_ms, duplicate=True
    )


def _publishes(columns: feed_pb2.Publishes) -> list[Publish]:
    """The messages of the columns. Raises ParleyError bad_request where these differ in length."""
    texts = columns.texts
    fields = (columns.numbers, columns.room_ids, columns.user_ids, columns.usernames, texts, columns.keys)
    if any(len(field) != len(texts) for field in fields):
        raise ParleyError(ErrorCode.BAD_REQUEST, "the columns of the publishes differ in length")
    return list(map(Publish, *fields))


def encode_parcel(parcel: Parcel) -> feed_pb2.AttachResponse:
    """The response that carries the parcel."""
    response = feed_pb2.AttachResponse()
    new = [(publish.number, outcome) for publish, outcome in parcel.results if outcome.is_new]
    if new:
        stored = response.stored
        stored.numbers.extend([number for number, _ in new])
        stored.epochs.extend([outcome.epoch for _, outcome in new])
        stored.seqs.extend([outcome.seq for _, outcome in new])
        stored.sent_at_ms.extend([outcome.sent_at_ms for _, outcome in new])
    if len(new) < len(parcel.results):
        response.results.extend(
            [_result(publish.number, outcome) for publish, outcome in parcel.results if not outcome.is_new]
        )
    if parcel.pieces:
        response.rooms.extend([piece.payload for piece in parcel.pieces])
    for ended in parcel.ended:
        response.membership_changes.add(room_id=ended.room_id, user_id=ended.user_id, last_seq=ended.last_seq)
    for change in parcel.changes:
        response.presence_changes.add(
            room_id=change.room_id,
            action=_ACTIONS[change.action],
            username=change.username,
            online_count=change.online_count,
        )
    response.announce_again = parcel.asks_who_is_here
    return response


class FeedServicer(feed_pb2_grpc.RoomFeedServiceServicer):
    """`parley.rooms.v1.RoomFeedService`. `open_stream` makes the stream of an edge's boot."""

    def __init__(
        self,
        *,
        log: MessageLog,
        directory: Directory,
        attendance: Attendance,
        streams: Streams,
        open_stream: Callable[[str], Stream],
        vouchers: Vouchers,
        follows_max: int,
        spans: MessageSpans,
    ) -> None:
        self._log = log
        self._spans = spans
        self._directory = directory
        self._attendance = attendance
        self._streams = streams
        self._open_stream = open_stream
        self._vouchers = vouchers
        self._follows_max = follows_max

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        """See the proto."""
        requests: AsyncIterator[feed_pb2.AttachRequest] = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            return
        hello = _checked_hello(first)
        if self._streams.is_stopping:
            raise ParleyError(ErrorCode.UNAVAILABLE, "this instance is stopping")
        stream = self._open_stream(hello.boot_id)
        speakers = self._vouchers.speakers(hello.boot_id)
        tasks = TaskSet()
        _log.info("edge attached", edge=hello.edge_name, boot_id=hello.boot_id, sessions=len(hello.sessions))
        self._streams.add(stream)
        self._attendance.attach(hello.boot_id, hello.edge_name)
        try:
            await self._welcome(stream, hello)
            await context.write(feed_pb2.AttachResponse())  # the edge knows by it that the stream is in place
            # What an edge asks about again may be stored already: its result must pass the event that a follow reads
            # from the log.
            self._publish(stream, speakers, first)
            await self._log.settled()
            self._follow(stream, first)
            await self._serve(stream, speakers, requests, context, tasks)
        finally:
            await tasks.close()
            self._streams.discard(stream)
            self._attendance.detach(hello.boot_id)
            _log.info("edge detached", edge=hello.edge_name, boot_id=hello.boot_id)

    async def _welcome(self, stream: Stream, hello: feed_pb2.EdgeHello) -> None:
        # What the edge sent on a stream before this one is stored first: it will ask about it, and what it sends now
        # comes behind it.
        await self._log.settled()
        await self._announce(stream, hello.sessions)

    async def _announce(self, stream: Stream, announced: Iterable[feed_pb2.SessionPresence]) -> None:
        sessions = []
        for count, each in enumerate(announced, 1):
            session = read_session(each.session)
            if session.boot_id != stream.boot_id:
                raise ParleyError(ErrorCode.BAD_REQUEST, "an edge announces its own sessions only")
            try:
                self._vouchers.check_session(each.session.assertion, session)
            except ParleyError as error:  # whoever has no good one is not here, and says nothing, until they have
                self._vouchers.report(stream.boot_id, error.message)
                continue
            sessions.append((session, list(each.room_ids)))
            if count % _SESSIONS_PER_TURN == 0:
                await asyncio.sleep(0)
        for ended in await self._directory.announce(stream.boot_id, sessions):
            stream.add_ended(ended)

    async def _serve(
        self,
        stream: Stream,
        speakers: Speakers,
        requests: AsyncIterator[feed_pb2.AttachRequest],
        context: Context,
        tasks: TaskSet,
    ) -> None:
        """Reads and writes until the edge has said all, or somebody stops the stream, or it breaks."""
        reading = tasks.spawn(self._read(stream, speakers, requests), name="feed reader")
        writing = tasks.spawn(_write(stream, context), name="feed writer")
        tasks.spawn(stream.catch_up(), name="feed catch-up")
        stopping = tasks.spawn(stream.stopped.wait(), name="feed stop")
        ended, _ = await asyncio.wait({reading, writing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        fault: ParleyError | None = None
        if reading in ended:
            fault = reading.result()
        else:
            reading.cancel()
        if fault is None:
            stream.finish()
            await writing
        if stream.is_broken:
            fault = ParleyError(ErrorCode.UNAVAILABLE, "the storage failed while it was committing: ask again")
        if fault is not None:
            raise fault

    async def _read(
        self, stream: Stream, speakers: Speakers, requests: AsyncIterator[feed_pb2.AttachRequest]
    ) -> ParleyError | None:
        """Takes requests until there are no more; returns what is wrong with one of them."""
        async for request in requests:
            if stream.stopped.is_set():
                return None
            if request.HasField("hello"):
                return ParleyError(ErrorCode.BAD_REQUEST, "hello comes once, in the first request")
            try:
                self._publish(stream, speakers, request)
                self._follow(stream, request)
                if request.HasField("announcement"):
                    await self._announce(stream, request.announcement.sessions)
            except ParleyError as error:
                return error
            await stream.wait_for_room()
        return None

    def _publish(self, stream: Stream, speakers: Speakers, request: feed_pb2.AttachRequest) -> None:
        for assertion in request.assertions:
            try:
                speakers.admit(assertion)
            except ParleyError as error:
                self._vouchers.report(stream.boot_id, error.message)
        if request.HasField("publishes"):
            publishes, traces = _publishes(request.publishes), request.publishes.traces
            foreign = speakers.refuse(publishes)
            if foreign:
                self._vouchers.report(stream.boot_id, "messages of people who are not logged in through it")
                stream.refuse(foreign, Outcome(code=ErrorCode.NOT_AUTHENTICATED, retry_after_s=_ASSERTION_RETRY_S))
                refused = {publish.number for publish in foreign}
                publishes = [publish for publish in publishes if publish.number not in refused]
            if publishes:
                stream.publish(publishes, self._spans.watch(traces) if traces else None)

    def _follow(self, stream: Stream, request: feed_pb2.AttachRequest) -> None:
        # A request cannot say in which order these were meant; a room too many does less harm than one too few.
        for room_id in request.unfollow_room_ids:
            self._streams.unfollow(stream, room_id)
        for follow in request.follows:
            if len(stream.follows) >= self._follows_max and follow.room_id not in stream.follows:
                raise ParleyError(ErrorCode.QUOTA_EXCEEDED, f"one edge may follow {self._follows_max} rooms")
            self._streams.follow(stream, follow.room_id, follow.epoch, follow.after_seq)


async def _write(stream: Stream, context: Context) -> None:
    """Sends what waits, one response at a time, until the stream is finished or broken."""
    while True:
        parcel = stream.take()
        if parcel is not None:
            try:
                await context.write(encode_parcel(parcel))
            except grpc.aio.BaseError:
                return  # the edge has gone
        elif stream.is_finished:
            return
        else:
            await stream.wait()


def _checked_hello(request: feed_pb2.AttachRequest) -> feed_pb2.EdgeHello:
    hello = request.hello
    if not 0 < len(hello.edge_name) <= NAME_CHARS_MAX or not 0 < len(hello.boot_id) <= NAME_CHARS_MAX:
        raise ParleyError(ErrorCode.BAD_REQUEST, "the first request says hello, with the edge's name and boot id")
    return hello
