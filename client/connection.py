"""One connection to a server: frames in and out, answers matched to requests, heartbeats, deadlines, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from client.clock import Clock
from client.errors import ClientError, ConnectError, ConnectionLostError, DrainedError, ProtocolError
from client.replies import Positions, ServerInfo, read, refused
from client.transport import Transport
from services.common.wire import limits
from services.common.wire.envelope import ServerEnvelope, WireError, encode_request, parse_server
from services.common.wire.frames import Chunk, FrameDecoder, encode_chunk

REQUEST_TIMEOUT_S = 15.0
"""The server answers or gives up within 10 s; the rest is for the way there and back."""

SILENCE_AFTER_HEARTBEAT_S = 15.0
"""The server answers heartbeats before anything else; one that is silent for so long is gone."""

HEARTBEAT_MAX_S = 300.0
"""Whatever the server asks for: a connection that is gone should be noticed within minutes."""

TICK_S = 1.0
"""How exactly heartbeats, silence and deadlines are kept."""

T = TypeVar("T")
OnAnswer = Callable[[ServerEnvelope | ClientError], None]


@dataclass(slots=True)
class _Waiting:
    on_answer: OnAnswer
    deadline: float


class Connection:
    """Speaks version 2 of the protocol over a transport.

    `on_event` gets every frame that answers no request, `on_chunk` the pieces of files, `on_positions` the answer to
    each heartbeat; they are called in the order in which frames came, and like the answers' handlers must not wait.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        on_event: Callable[[ServerEnvelope], None],
        on_positions: Callable[[Positions], None],
        on_chunk: Callable[[Chunk], None] = lambda _: None,
    ) -> None:
        self.server: ServerInfo | None = None
        self._transport = transport
        self._clock = clock
        self._on_event = on_event
        self._on_positions = on_positions
        self._on_chunk = on_chunk
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._heard_at = self._beaten_at = clock.monotonic()
        self._end_reason: str | None = None
        self._is_drained = False
        self._ended = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        """True when nothing can be sent any more."""
        return self._end_reason is not None

    @property
    def takes_requests(self) -> bool:
        """False when nothing that is sent will be carried out."""
        return not (self.is_ended or self._is_drained)

    def drain(self) -> None:
        """The server has answered everything that it took, and reads nothing more: it is about to close."""
        self._is_drained = True

    async def run(self) -> None:
        """Reads until the connection ends; one task runs this, from the beginning to the end."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = (
                    group.create_task(self._read(), name="connection-reader"),
                    group.create_task(self._keep_alive(), name="connection-keep-alive"),
                )
                await self._ended.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self.end("the client stopped")
            await self._transport.close()

    def end(self, reason: str) -> None:
        """Ends the connection: whoever waits for an answer is told so. Idempotent; the first reason stays."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        self._ended.set()
        waiting, self._waiting = self._waiting, {}
        error: ClientError = ConnectionLostError(f"The connection was lost before the answer came ({reason}).")
        if self._is_drained:
            error = DrainedError("The server is restarting, and did not do this.")
        for one in waiting.values():
            one.on_answer(error)

    async def ended(self) -> str:
        """Waits for the end of the connection and returns why it ended."""
        await self._ended.wait()
        return self._end_reason or ""

    async def hello(self, client: str) -> ServerInfo:
        """Introduces the client. Raises ConnectError when the server does not speak version 2."""
        data = {"protocol": limits.PROTOCOL_VERSION, "client": client}
        try:
            self.server = await self.call("hello", data, then=lambda envelope: read(envelope.data, ServerInfo))
        except ClientError as error:
            raise ConnectError(f"The server does not answer as a Parley server does: {error}") from error
        if self.server.protocol != limits.PROTOCOL_VERSION:
            raise ConnectError(
                f"The server speaks version {self.server.protocol} of the protocol, not {limits.PROTOCOL_VERSION}."
            )
        return self.server

    async def call(
        self,
        name: str,
        data: dict[str, Any] | None = None,
        *,
        then: Callable[[ServerEnvelope], T],
        room_id: str | None = None,
    ) -> T:
        """Sends the request `name`; returns what `then` makes of its answer before the next frame is looked at.

        Raises RequestError where the server refused, ConnectionLostError where no answer came, ProtocolError.
        """
        answered: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def on_answer(answer: ServerEnvelope | ClientError) -> None:
            if answered.done():  # the caller was cancelled
                return
            try:
                if isinstance(answer, ClientError):
                    raise answer
                if (error := refused(answer)) is not None:
                    raise error
                answered.set_result(then(answer))
            except ClientError as error:
                answered.set_exception(error)

        self.send(name, data, room_id=room_id, on_answer=on_answer)
        return await answered

    def send(
        self,
        name: str,
        data: dict[str, Any] | None = None,
        *,
        on_answer: OnAnswer,
        room_id: str | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        traceparent: str | None = None,
    ) -> None:
        """Sends the request `name`; `on_answer` is called once, with the answer or with why there is none."""
        if self._end_reason is not None:
            on_answer(ConnectionLostError(f"There is no connection ({self._end_reason})."))
            return
        self._last_id += 1
        try:
            frame = encode_request(name, data, id=self._last_id, room_id=room_id, traceparent=traceparent)
        except ValueError as error:
            on_answer(ProtocolError(f"This cannot be sent: {error}"))
            return
        self._waiting[self._last_id] = _Waiting(on_answer, self._clock.monotonic() + timeout_s)
        self._transport.send(frame)

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Sends what the server does not answer."""
        if self._end_reason is None:
            self._transport.send(encode_request(name, data))

    def send_chunk(self, file_id: bytes, offset: int, data: bytes | memoryview) -> None:
        """Sends a piece of a file."""
        if self._end_reason is None:
            self._transport.send(encode_chunk(file_id, offset, data))

    async def drained(self) -> None:
        """Waits until most of what was sent has left, so that what is said next is not far behind it."""
        await self._transport.drained()

    async def _read(self) -> None:
        decoder = FrameDecoder()
        while self._end_reason is None:
            data = await self._transport.receive()
            if not data:
                self.end("the server closed the connection")
                return
            self._heard_at = self._clock.monotonic()
            for frame in decoder.feed(data):
                if isinstance(frame, Chunk):
                    self._on_chunk(frame)
                    continue
                try:
                    self._handle(parse_server(frame))
                except (WireError, ProtocolError) as error:
                    self.end(f"the server broke the protocol: {error}")
                    return
            if decoder.fault is not None:
                self.end(f"the server broke the protocol: {decoder.fault}")

    def _handle(self, envelope: ServerEnvelope) -> None:
        if envelope.re is None:
            self._on_event(envelope)
        elif isinstance(envelope.re, int) and (waiting := self._waiting.pop(envelope.re, None)) is not None:
            waiting.on_answer(envelope)
        # An answer that came after its deadline: whoever asked has been told already.

    async def _keep_alive(self) -> None:
        while self._end_reason is None:
            await self._clock.sleep(TICK_S)
            now = self._clock.monotonic()
            interval = self.server.heartbeat_s if self.server else limits.HEARTBEAT_S
            interval = min(max(interval, TICK_S), HEARTBEAT_MAX_S)
            if now - self._heard_at > interval + SILENCE_AFTER_HEARTBEAT_S:
                self.end("the server is silent")
            elif now - self._beaten_at >= interval:
                self._beaten_at = now
                self.send("heartbeat", on_answer=self._on_heartbeat)
            for request_id in [key for key, waiting in self._waiting.items() if waiting.deadline <= now]:
                late = self._waiting.pop(request_id)
                late.on_answer(ConnectionLostError("The server did not answer in time."))

    def _on_heartbeat(self, answer: ServerEnvelope | ClientError) -> None:
        if isinstance(answer, ServerEnvelope) and refused(answer) is None:
            self._on_positions(read(answer.data, Positions))
