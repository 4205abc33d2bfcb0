"""Sends texts until they are acknowledged, over as many connections as it takes, and as many runs of the client.

A posted text is on the disk before it counts as accepted, where there is a journal; what a client before this one left
there goes out at the login. A text that somebody waits for is not kept: with the client its waiter is gone too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from client.clock import Clock
from client.connection import Connection
from client.errors import ClientError, ConnectionLostError, InvalidTextError, OutboxUnwritableError, RequestError
from client.events import Event, TextAcknowledged, TextFailed
from client.outbox import Outbox
from client.outbox_file import Journal, OpenJournal
from client.replies import Stored, read, refused
from client.tasks import TaskSet
from services.common.wire.envelope import ServerEnvelope
from services.common.wire.text import is_clean_text

ANSWER_TIMEOUT_S = 30.0
"""The server answers a text within 10 s, if only with unknown_outcome; without any answer the connection is broken."""


def check_text(text: str, *, longest: int) -> None:
    """Raises InvalidTextError, with what is wrong, for a text that the server would refuse."""
    if not text:
        raise InvalidTextError("There is nothing to send.")
    if len(text) > longest:
        raise InvalidTextError(
            f"This is too long: {len(text)} characters, and a message may have {longest}. Nothing was sent."
        )
    if not is_clean_text(text):
        raise InvalidTextError("This contains control characters. Nothing was sent.")


class Sender:
    """The outbox and the connection that it goes out on; `emit` gets what became of each text.

    `trace(key)` gives the trace context of a text that is to be traced.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        emit: Callable[[Event], None],
        new_key: Callable[[], str],
        open_journal: OpenJournal | None = None,
    ) -> None:
        self._outbox = Outbox()
        self._clock = clock
        self._emit = emit
        self._new_key = new_key
        self._open_journal = open_journal
        self.trace: Callable[[str], str | None] = lambda _: None
        self._journal: Journal | None = None
        self._connection: Connection | None = None
        self._tasks = TaskSet()
        self._is_timed = False
        self._shrunk: set[asyncio.Future[None]] = set()
        self._awaited: dict[str, asyncio.Future[Stored]] = {}

    def __len__(self) -> int:
        return len(self._outbox)

    def post(self, room_id: str, text: str) -> str:
        """Queues a text and returns its key. Raises OutboxFullError, OutboxUnwritableError."""
        key = self._new_key()
        self._outbox.add(key=key, room_id=room_id, text=text)
        try:
            if self._journal is not None:
                self._journal.add(key, room_id, text)
        except OutboxUnwritableError:
            self._outbox.acknowledge(key)
            raise
        self._pump()
        return key

    async def send(self, room_id: str, text: str) -> Stored:
        """Queues a text and waits until it is stored. Raises ClientError where it is not and never will be."""
        key = self._new_key()
        stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._awaited[key] = stored
        try:
            self._outbox.add(key=key, room_id=room_id, text=text)
            self._pump()
            return await stored
        finally:
            del self._awaited[key]

    def start(self, connection: Connection, username: str) -> None:
        """The user is logged in on `connection`: everything unacknowledged goes out."""
        self._connection = connection
        if self._journal is None and self._open_journal is not None:
            self._journal = self._open_journal(username)
            for key, room_id, text in self._journal.texts() if self._journal else ():
                self._outbox.add(key=key, room_id=room_id, text=text)
        self._pump()

    async def stop(self) -> None:
        """The connection is gone."""
        self._connection = None
        self._outbox.disconnect()
        await self._tasks.close()
        self._is_timed = False

    def give_up(self, reason: str, *, room_id: str | None = None) -> None:
        """Nothing more will be sent, or nothing more to one room."""
        for text in self._outbox.clear(room_id):
            self._failed(text.room_id, text.key, text.text, ConnectionLostError(reason))
        self._wake()

    def put_away(self, reason: str) -> None:
        """Nothing more will be sent for now; what is on the disk stays there for the next login."""
        journal, self._journal = self._journal, None
        if journal is not None:
            kept = {key for key, _, _ in journal.texts()}
            journal.close()
            for text in self._outbox.clear(keys=kept):
                error = ConnectionLostError(f"{reason} It is kept, and is sent at the next login.")
                self._emit(TextFailed(text.room_id, text.key, text.text, error))
        self.give_up(reason)

    async def wait_until_below(self, count: int) -> None:
        """Waits until fewer than `count` texts are unacknowledged."""
        while len(self._outbox) >= count:
            shrunk: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._shrunk.add(shrunk)
            try:
                await shrunk
            finally:
                self._shrunk.discard(shrunk)

    async def settle(self, timeout_s: float) -> bool:
        """Waits until everything is acknowledged, at most `timeout_s` seconds; returns whether it is."""
        waits = (
            asyncio.ensure_future(self.wait_until_below(1)),
            asyncio.ensure_future(self._clock.sleep(timeout_s)),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return len(self._outbox) == 0

    def _pump(self) -> None:
        connection = self._connection
        if connection is None or connection.is_ended:
            return
        now = self._clock.monotonic()
        for text in self._outbox.take_due(now):
            connection.send(
                "text_message",
                {"text": text.text, "key": text.key, "follows": text.follows},
                room_id=text.room_id,
                on_answer=partial(self._answered, connection, text.key),
                timeout_s=ANSWER_TIMEOUT_S,
                traceparent=self.trace(text.key),
            )
        due = self._outbox.next_due(now)
        if due is not None and not self._is_timed:
            self._is_timed = True
            self._tasks.spawn(self._pump_after(due - now), name="sender-wait")

    async def _pump_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._is_timed = False
        self._pump()

    def _answered(self, connection: Connection, key: str, answer: ServerEnvelope | ClientError) -> None:
        if isinstance(answer, ConnectionLostError):
            connection.end("the server did not answer")  # what became of the text will be asked on the next one
            return
        if isinstance(answer, ClientError):
            if (text := self._outbox.acknowledge(key)) is not None:
                self._failed(text.room_id, key, text.text, answer)
        elif (error := refused(answer)) is not None:
            self._refused(connection, key, error)
        else:
            stored = read(answer.data, Stored)
            if (text := self._outbox.acknowledge(key)) is not None:
                self._settle(key)
                self._emit(TextAcknowledged(text.room_id, key, stored.epoch, stored.seq))
            if (awaited := self._awaited.get(key)) is not None and not awaited.done():
                awaited.set_result(stored)
        self._wake()
        self._pump()

    def _refused(self, connection: Connection, key: str, error: RequestError) -> None:
        if error.code == "not_authenticated":
            connection.end("the server has forgotten the login")
            return
        text = self._outbox.refuse(key, error, self._clock.monotonic())
        if text is not None:
            self._failed(text.room_id, key, text.text, error)

    def _settle(self, key: str) -> None:
        if self._journal is not None:
            self._journal.settle(key)

    def _failed(self, room_id: str, key: str, text: str, error: ClientError) -> None:
        self._settle(key)
        awaited = self._awaited.get(key)
        if awaited is not None and not awaited.done():
            awaited.set_exception(error)
        self._emit(TextFailed(room_id, key, text, error))

    def _wake(self) -> None:
        for waiter in self._shrunk:
            if not waiter.done():
                waiter.set_result(None)
