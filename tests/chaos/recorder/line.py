"""A connection with requests and replies: every frame is handled in the turn in which it comes, in its order."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from tests.chaos.recorder.wire import Frame, LostError, Trust, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_S = 14.0  # the server gives an answer within 10 s, if only `unknown_outcome`
HEARTBEAT_S = 1.5
UNANSWERED = "a request has no answer"


class RefusedError(Exception):
    """The server said no."""

    def __init__(self, code: str, retry_after_s: float | None) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after_s = retry_after_s


class Line:
    """`on_event` gets what is no reply; `on_lost` is called once, after which nothing comes."""

    def __init__(
        self, on_event: Callable[[Frame], object], on_lost: Callable[[str], None], on_chunk: Callable[[bytes], None]
    ) -> None:
        self.lost = asyncio.Event()
        self._on_event = on_event
        self._on_lost = on_lost
        self._on_chunk = on_chunk
        self._ids = itertools.count(1)
        self._replies: dict[int, tuple[float, Callable[[Frame | None], None]]] = {}
        self._wire: Wire | None = None

    async def open(self, address: tuple[str, int], trust: Trust) -> None:
        """Connects and greets. Raises LostError."""
        self._wire = await Wire.open(
            address, trust, on_frame=self._take, on_chunk=self._on_chunk, on_lost=self._is_lost
        )
        await self.ask("hello", {"protocol": 2, "client": "check/1"})

    @property
    def is_open(self) -> bool:
        """Whether something may still come or go."""
        return self._wire is not None and self._wire.is_open

    @property
    def wire(self) -> Wire:
        """The frames. Raises LostError."""
        if self._wire is None:
            raise LostError("not connected")
        return self._wire

    def post(self, frame: Frame, then: Callable[[Frame | None], None]) -> int:
        """Sends a request; `then` gets its reply, or None when there will be none. Raises LostError."""
        number = next(self._ids)
        self._replies[number] = (asyncio.get_running_loop().time(), then)
        try:
            self.wire.send({**frame, "id": number})
        except LostError:
            del self._replies[number]
            raise
        return number

    async def ask(
        self, type_: str, data: Frame, room: str | None = None, *, then: Callable[[Frame], None] | None = None
    ) -> Frame:
        """The data of the reply, to which `then` was applied in the same turn. Raises RefusedError, LostError.

        Where there is none in time, the connection is given up.
        """
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def take(frame: Frame | None) -> None:
            if answer.done():
                return
            if frame is None:
                answer.set_exception(LostError("lost"))
            elif frame["type"] == "error" or frame["data"].get("success") is False:
                answer.set_exception(RefusedError(frame["data"].get("code", "?"), frame["data"].get("retry_after_s")))
            else:
                if then is not None:
                    then(frame["data"])
                answer.set_result(frame["data"])

        self.post({"type": type_, "data": data, **({"room_id": room} if room else {})}, take)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            self.hang_up(UNANSWERED)
            raise LostError(UNANSWERED) from None

    def _take(self, frame: Frame) -> None:
        number = frame.get("re")
        entry = self._replies.pop(number, None) if number is not None else None
        if entry is None:
            self._on_event(frame)
        else:
            entry[1](frame)

    def _is_lost(self, reason: str) -> None:
        self._on_lost(reason)
        replies, self._replies = self._replies, {}
        for _, then in replies.values():
            then(None)
        self.lost.set()

    def hang_up(self, reason: str) -> None:
        """Ends the connection without a word."""
        if self._wire is not None:
            self._wire.abort(reason)

    async def watch(self, patience_s: float, on_heartbeat: Callable[[Frame], None]) -> None:
        """Sends heartbeats, and hangs up where the other side is silent for too long, until the connection ends."""
        loop = asyncio.get_running_loop()

        def answered(frame: Frame | None) -> None:
            if frame is not None and frame["type"] == "heartbeat":
                on_heartbeat(frame["data"])

        while self.is_open:
            self.post({"type": "heartbeat", "data": {}}, answered)
            await asyncio.sleep(HEARTBEAT_S)
            now = loop.time()
            oldest = min((at for at, _ in self._replies.values()), default=now)
            if now - self.wire.last_heard > HEARTBEAT_S + patience_s:
                self.hang_up("silent")
            elif now - oldest > ANSWER_S:
                self.hang_up(UNANSWERED)
