"""Replays: brings resumed connections what they missed, from the log to their outboxes, as fast as they take it.

One task for a connection, and one page in its hands at a time: the rooms take turns, and the next page is read when
the one before is on its way. So a client that comes back to many rooms costs little memory, and is never cut off for
what is waiting for it. A replay that cannot be finished ends the connection, from which the client resumes again: it
is never left in part.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.events import Message
from services.common.wire.requests import History
from services.edge.decisions import User
from services.edge.hub import Hub, Subscriber
from services.edge.ports import RoomsBackend

_PAGES_MAX: Final = 16
"""Pages that are read at a time, for all connections: after another edge's death thousands come back at once."""

_PAGE_FIRST: Final = 50
_PAGE_MIN: Final = 16
_PAGE_CHARS: Final = 131_072
"""A page begins small, because texts may be large, and then aims at so many characters."""

_POST_CHARS: Final = 32_768
"""Posted at a time; as JSON at most 150 KiB."""

_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0
_GIVE_UP_S: Final = 10.0
"""As long as a text waits for rooms."""

_NOT_A_MEMBER: Final = frozenset({ErrorCode.NOT_A_MEMBER, ErrorCode.NO_SUCH_ROOM})

_log = get_logger(__name__)


class Replayed(Protocol):
    """A connection that is replayed to."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def user(self) -> User | None:
        """Who is logged in."""
        ...

    @property
    def subscriber(self) -> Subscriber | None:
        """How the hub sees the client, while it is logged in."""
        ...

    def leave(self, room_id: str) -> None:
        """The client does not see a room any more."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken most of what there is for it, or is gone."""
        ...

    def close(self, reason: str, *, reconnect_after_ms: int = 0) -> None:
        """Say goodbye and close."""
        ...


class _BrokenError(Exception):
    """The log cannot give what was promised."""


class Replays:
    """All replays of this edge."""

    def __init__(self, *, hub: Hub, rooms: RoomsBackend, tasks: TaskSet, clock: Clock) -> None:
        self._hub = hub
        self._rooms = rooms
        self._tasks = tasks
        self._clock = clock
        self._pages = asyncio.Semaphore(_PAGES_MAX)

    def start(self, connection: Replayed, user: User, room_ids: Sequence[str]) -> None:
        """Begin to replay rooms that the hub has just attached so. Nothing is posted before the next turn."""
        subscriber = connection.subscriber
        if room_ids and subscriber is not None:
            self._tasks.spawn(self._run(connection, user, subscriber, room_ids), name="replay")

    async def _run(self, connection: Replayed, user: User, subscriber: Subscriber, room_ids: Iterable[str]) -> None:
        reader = _Reader(self._rooms, self._pages, self._clock, user)
        waiting = deque(room_ids)
        try:
            while waiting and connection.user is user:
                room_id = waiting.popleft()
                if await self._advance(connection, subscriber, room_id, reader):
                    waiting.append(room_id)
        except (ParleyError, _BrokenError) as error:
            _log.warning("replay given up", connection_id=connection.id, reason=str(error))
            if connection.user is user:
                connection.close("draining")

    async def _advance(self, connection: Replayed, subscriber: Subscriber, room_id: str, reader: _Reader) -> bool:
        """Post a page; return whether there may be another."""
        await connection.drained()
        missing = self._hub.missing(subscriber, room_id)
        if missing is None:
            return False
        messages: Sequence[Message] = self._hub.tail(subscriber, room_id)
        if not messages:
            after, last = missing
            if last - after <= reader.limit:
                self._hub.keep_tail(room_id)
            try:
                messages = await reader.read(room_id, subscriber.rooms[room_id].epoch, after=after, last=last)
            except ParleyError as error:
                if error.code not in _NOT_A_MEMBER:
                    raise
                if self._hub.missing(subscriber, room_id) is not None:
                    connection.leave(room_id)
                return False
        for part in _parts(messages):
            await connection.drained()
            if not self._hub.replay(subscriber, room_id, part):
                break
        return True


class _Reader:
    """Reads one connection's pages; `limit` is how many messages the next one has at most."""

    def __init__(self, rooms: RoomsBackend, pages: asyncio.Semaphore, clock: Clock, user: User) -> None:
        self._rooms = rooms
        self._pages = pages
        self._clock = clock
        self._user = user
        self.limit = _PAGE_FIRST

    async def read(self, room_id: str, epoch: str, *, after: int, last: int) -> Sequence[Message]:
        """The messages behind `after`, up to `last` or less. Raises ParleyError, _BrokenError."""
        request = History(room_id, after=after, limit=min(self.limit, last - after))
        until = self._clock.monotonic() + _GIVE_UP_S
        retry_s = _RETRY_FIRST_S
        while True:
            try:
                async with self._pages:
                    page = await self._rooms.list_messages(self._user, request)
                break
            except ParleyError as error:
                if error.code in _NOT_A_MEMBER or self._clock.monotonic() >= until:
                    raise
            await self._clock.sleep(retry_s)
            retry_s = min(2 * retry_s, _RETRY_MAX_S)
        if page.epoch != epoch:
            raise _BrokenError("the room's epoch has changed")
        if not page.messages or page.messages[0].seq != after + 1:
            raise _BrokenError("the log has a hole")
        chars = sum(len(message.text) for message in page.messages)
        fitting = _PAGE_CHARS * len(page.messages) // (chars + 1)
        self.limit = max(_PAGE_MIN, min(fitting, limits.HISTORY_LIMIT_MAX))
        return page.messages


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Messages in portions that are small beside what may wait in an outbox."""
    start = chars = 0
    for index, message in enumerate(messages):
        chars += len(message.text)
        if chars > _POST_CHARS and index > start:
            yield messages[start:index]
            start, chars = index, len(message.text)
    if start < len(messages):
        yield messages[start:]
