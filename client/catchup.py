"""Shows every message of every joined room once and in order: takes the live ones, fetches the missed ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from client.clock import Clock
from client.connection import Connection
from client.errors import ClientError, ConnectionLostError, RequestError
from client.events import Event, MessageArrived, MessagesMissing, RoomLost, RoomReplaced
from client.outbox import WORTH_RETRYING
from client.replies import Message, Messages, RoomInfo, read
from client.rooms import Room, Rooms
from client.tasks import TaskSet
from services.common.wire import limits

FETCHES_AT_ONCE = 4
"""Rooms whose history is asked for at a time: thousands of clients that come back together ask for all of theirs."""

RETRY_AFTER_S = 1.0
"""Wait before a page of history is asked for again where the server was busy and named no time."""


class CatchUp:
    """Follows the joined rooms; `emit` gets the events, `on_change` is called when `is_behind` may be another one."""

    def __init__(self, *, clock: Clock, emit: Callable[[Event], None], on_change: Callable[[], None]) -> None:
        self.rooms = Rooms()
        self.username: str | None = None
        self._clock = clock
        self._emit = emit
        self._on_change = on_change
        self._connection: Connection | None = None
        self._tasks = TaskSet()
        self._filling: set[str] = set()
        self._turns = asyncio.Semaphore(FETCHES_AT_ONCE)

    @property
    def is_behind(self) -> bool:
        """True while missed messages are being fetched."""
        return bool(self._filling)

    def start(self, connection: Connection, infos: Iterable[RoomInfo], *, username: str) -> None:
        """A login succeeded on `connection`; these are the user's rooms. Called before any later frame is read."""
        self._connection = connection
        self.username = username
        gone, replaced = self.rooms.return_to(infos)
        for room in gone:
            self._emit(RoomLost(room))
        for room in replaced:
            self._emit(RoomReplaced(room))
        for room in self.rooms:
            self._fill(room)

    async def stop(self) -> None:
        """The connection is gone; positions are kept for the next one."""
        self._connection = None
        self._filling.clear()
        await self._tasks.close()

    def forget(self) -> None:
        """The user logged out."""
        self.username = None
        self.rooms.clear()

    def enter(self, info: RoomInfo) -> Room:
        """The user joined a room, or was in it already."""
        room = self.rooms.enter(info)
        self._fill(room)
        return room

    def receive(self, room_id: str | None, messages: Messages) -> None:
        """Messages came without having been asked for."""
        room = self.rooms.get(room_id)
        if room is None:
            return
        if messages.epoch != room.epoch and messages.messages:
            room.begin_epoch(messages.epoch, messages.messages[0].seq - 1)
            self._emit(RoomReplaced(room))
        self._show(room, room.receive(messages.messages), is_late=False)
        self._fill(room)

    def learn(self, positions: dict[str, int]) -> None:
        """The server says how far the rooms' logs have been sent: whatever did not arrive is missing."""
        for room_id, seq in positions.items():
            if (room := self.rooms.get(room_id)) is not None:
                room.learn(seq)
                self._fill(room)

    def _show(self, room: Room, messages: Iterable[Message], *, is_late: bool) -> None:
        for message in messages:
            self._emit(MessageArrived(room, message, is_own=message.username == self.username, is_late=is_late))

    def _fill(self, room: Room) -> None:
        connection = self._connection
        if connection is None or not room.is_behind or room.room_id in self._filling:
            return
        self._filling.add(room.room_id)
        self._tasks.spawn(self._fetch(connection, room), name=f"fill-{room.room_id}")
        self._on_change()

    async def _fetch(self, connection: Connection, room: Room) -> None:
        async with self._turns:
            await self._fetch_pages(connection, room)
        self._filling.discard(room.room_id)
        self._on_change()

    async def _fetch_pages(self, connection: Connection, room: Room) -> None:
        while room.is_behind and room.room_id in self.rooms:
            try:
                await connection.call(
                    "history",
                    {"after": room.seq, "limit": limits.HISTORY_LIMIT_MAX},
                    room_id=room.room_id,
                    then=lambda envelope: self._take(room, read(envelope.data, Messages)),
                )
            except ConnectionLostError as error:
                # Without the missed messages the rest would be wrong, so a new connection has to do it.
                connection.end(str(error))
                return
            except RequestError as error:
                if error.code not in WORTH_RETRYING:
                    self._give_up(room)
                    return
                await self._clock.sleep(RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s)
            except ClientError as error:
                connection.end(str(error))
                return

    def _take(self, room: Room, page: Messages) -> None:
        if page.epoch != room.epoch:
            room.begin_epoch(page.epoch, page.last_seq)
            self._emit(RoomReplaced(room))
            return
        fresh, missing = room.fill(page)
        if missing is not None:
            self._emit(MessagesMissing(room, missing.first_seq, missing.last_seq))
        self._show(room, fresh, is_late=True)

    def _give_up(self, room: Room) -> None:
        if self.rooms.leave(room.room_id) is not None:
            self._emit(RoomLost(room))
