"""A person who uses the product's own client library, which reconnects, resumes and resends by itself.

All of its connections count as one: it promises each message of each room once and in order, whatever breaks.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from client.address import Address
from client.errors import ClientError, RequestError
from client.events import GoodbyeReceived, LoggedOut, MessageArrived, StateChanged, TextAcknowledged, TextFailed
from client.session import Session
from client.transport import TlsConnector
from tests.chaos import events as e
from tests.chaos.recorder.board import PASSWORD, Board
from tests.chaos.recorder.mailbox import Mailbox, Text, identify
from tests.chaos.recorder.seat import Seat, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from client.events import Event
    from client.transport import Transport
    from client.trust import Trust

PAUSE_S = 0.5
RETRY_S = 0.5
WAITING_MAX = 30
"""Texts; whoever writes on without a connection must have them acknowledged within the 10 s of I12: the library pauses
for up to 8 s between attempts, and an edge takes 20 a second of each."""


class DoorConnector:
    """Connects through another door each time."""

    def __init__(self, board: Board, trust: Trust, dice: random.Random) -> None:
        self._board = board
        self._trust = trust
        self._dice = dice

    async def connect(self) -> Transport:
        """A new connection. Raises ConnectError, TrustError."""
        door = self._dice.choice(self._board.doors)
        return await TlsConnector(Address("localhost", door.port), self._trust).connect()


class LibraryPerson:
    """Talks on whatever happens: texts wait in the library while there is no connection."""

    def __init__(self, name: str, board: Board, seed: int, trust: Trust) -> None:
        self.name = name
        self.conn = f"{name}#library"
        self.board = board
        self.dice = random.Random(f"{seed}:{name}")
        self.seats = {room: Seat(room) for room in board.rooms}
        self.is_stopping = False
        self._mailbox = Mailbox(name, board, self.dice)  # for its texts
        self._posted: dict[str, tuple[Text, dict[str, object], float]] = {}
        self._next_key = ""
        self._reqs = 0
        self._session = Session(
            DoorConnector(board, trust, self.dice), on_event=self._on_event, new_key=lambda: self._next_key
        )

    async def live(self) -> None:
        """Until `is_stopping`."""
        await self._arrive()
        while not self.is_stopping:
            seat = self.dice.choice(list(self.seats.values()))
            if self.board.is_talking and seat.standing is Standing.IN and len(self._posted) < WAITING_MAX:
                for _ in range(self.dice.randint(1, 4)):
                    self._post(self._mailbox.compose(seat.room))
            await asyncio.sleep(self.dice.expovariate(1 / PAUSE_S))
        await self._session.close()

    async def _arrive(self) -> None:
        await self._patiently(self._session.start)
        await self._patiently(self._register)
        await self._patiently(lambda: self._session.login(self.name, PASSWORD, takeover=True))
        self.board.log.write(e.Open, c=self.name, conn=self.conn, edge="any")
        for seat in self.seats.values():
            self.board.log.write(e.JoinAsk, user=self.name, room=seat.room)
            while seat.standing is not Standing.IN:
                try:
                    room = await self._session.join_room(seat.room)
                except ClientError:
                    await asyncio.sleep(RETRY_S)
                    continue
                self._joined(seat, room.epoch, room.seq)

    async def _register(self) -> None:
        try:
            await self._session.register(self.name, PASSWORD)
        except RequestError as error:
            if error.code != "username_taken":  # the answer to an earlier try was lost
                raise

    async def _patiently(self, attempt: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await attempt()
            except ClientError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _joined(self, seat: Seat, epoch: str, seq: int) -> None:
        log = self.board.log
        if seat.standing is Standing.IN:
            return
        log.write(e.JoinOk, user=self.name, room=seat.room, seq=seq)
        log.write(e.Start, c=self.name, conn=self.conn, room=seat.room, epoch=epoch, seq=seq, how="join")
        seat.standing = Standing.IN
        seat.begin(epoch, seq)

    def _post(self, text: Text) -> None:
        self._reqs += 1
        about = {
            "c": self.name, "conn": self.conn, "room": text.room, "key": text.key, "h": text.h, "req": self._reqs,
        }  # fmt: skip
        self._next_key = text.key
        try:
            # The library may write to the connection at once, so it must be in the log before.
            sent = self.board.log.write(e.Invoke, **about, pipe=f"{self.name}/{text.room}")
            self._posted[text.key] = (text, about, sent.t)
            self._session.post_text(text.room, text.text)
        except ClientError as error:
            del self._posted[text.key]
            self.board.log.write(e.Fail, **about, code=f"client: {error}"[:80])

    def _on_event(self, event: Event) -> None:
        if isinstance(event, MessageArrived):
            self._arrived(event)
        elif isinstance(event, TextAcknowledged):
            text, about, sent_at = self._posted.pop(event.key)
            ok = self.board.log.write(e.Ok, **about, epoch=event.epoch, seq=event.seq)
            self.board.log.latencies.append((ok.t, ok.t - sent_at))
            self.board.acknowledged(text.room, event.seq)
        elif isinstance(event, TextFailed):
            # The library has tried for as long as it thinks right, and does not know either.
            _, about, _ = self._posted.pop(event.key)
            self.board.log.write(e.Info, **about, why=str(event.error)[:80], is_final=True)
            self.board.refusals[f"library: {event.error}"[:60]] += 1
        elif isinstance(event, LoggedOut):
            self.board.losses[f"library logged out: {event.reason}"[:70]] += 1
        elif isinstance(event, GoodbyeReceived | StateChanged):
            pass

    def _arrived(self, event: MessageArrived) -> None:
        seat = self.seats.get(event.room.room_id)
        if seat is None:
            return
        if seat.standing is not Standing.IN:  # the message came in the same turn as the answer to the join
            self._joined(seat, event.room.epoch, event.message.seq - 1)
        message = event.message
        key, h = identify(message.text, message.file)
        self.board.log.write(
            e.Deliver, c=self.name, conn=self.conn, room=seat.room, epoch=event.room.epoch, seq=message.seq,
            key=key, sender=message.username, h=h,
            via="replay" if event.is_late else "live",
        )  # fmt: skip
        seat.cover.add(message.seq)

    @property
    def is_settled(self) -> bool:
        """Whether everything is answered and everything has come."""
        newest = self.board.newest
        return not self._posted and all(seat.have >= newest.get(seat.room, 0) for seat in self.seats.values())
