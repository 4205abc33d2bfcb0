"""What a session tells its user without having been asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from client.errors import ClientError, EventsLostError
from client.files.transfer import Transfer
from client.replies import Message
from client.rooms import Room

WAITING_MAX = 10_000
"""Events that may wait for a slow reader: some MiB of memory; whoever is further behind is told so."""


class State(StrEnum):
    """How far a session is from showing everything as it happens."""

    CONNECTING = "connecting"
    """There is no connection; one is being made."""
    BEHIND = "behind"
    """Connected, but not logged in again yet, or messages are still being fetched."""
    LIVE = "live"
    """Everything is shown as it happens."""
    CLOSED = "closed"
    """Ended, by the user or because it cannot go on."""


@dataclass(frozen=True)
class StateChanged:
    """The state is another one now; `reason` is for people, `retry_in_s` says when the next attempt begins."""

    state: State
    reason: str = ""
    retry_in_s: float | None = None


@dataclass(frozen=True)
class MessageArrived:
    """A message, once and in order; `is_late` where it was missed and fetched afterwards."""

    room: Room
    message: Message
    is_own: bool
    is_late: bool


@dataclass(frozen=True)
class MessagesMissing:
    """Messages of a room were missed and are no longer kept by the server."""

    room: Room
    first_seq: int
    last_seq: int


@dataclass(frozen=True)
class RoomReplaced:
    """The room's log was replaced by another one, such as a restored backup; its newest messages follow."""

    room: Room


@dataclass(frozen=True)
class RoomLost:
    """The user is no longer a member of a room, without having left it in this session."""

    room: Room


@dataclass(frozen=True)
class PresenceChanged:
    """Somebody came, went, joined or left; or, for the action `count`, `online` people are there."""

    room: Room
    action: str
    username: str
    online: int


@dataclass(frozen=True)
class TextAcknowledged:
    """A text of this session is stored."""

    room_id: str
    key: str
    epoch: str
    seq: int


@dataclass(frozen=True)
class TextFailed:
    """A text of this session is not stored and will not be sent again."""

    room_id: str
    key: str
    text: str
    error: ClientError


@dataclass(frozen=True)
class NoticeReceived:
    """The operators say something, to everyone or to those who are in the room of this name."""

    text: str
    room_name: str | None = None


@dataclass(frozen=True)
class GoodbyeReceived:
    """The server is about to close the connection."""

    reason: str
    reconnect_after_s: float | None


@dataclass(frozen=True)
class ErrorReceived:
    """The server complains about something that belongs to no request."""

    code: str
    message: str


@dataclass(frozen=True)
class LoggedOut:
    """The login is gone without the user's doing."""

    reason: str


@dataclass(frozen=True)
class FileMoved:
    """A transfer has gone on, or stands still with the connection; at most some times a second."""

    transfer: Transfer


@dataclass(frozen=True)
class FileResumed:
    """A transfer that an earlier run of the program left goes on."""

    transfer: Transfer


@dataclass(frozen=True)
class FileWaits:
    """A transfer is tried again a little later, for a reason that is for people."""

    transfer: Transfer
    reason: str


@dataclass(frozen=True)
class FileEnded:
    """A transfer is done, has failed, or is cancelled; `transfer.phase` says which."""

    transfer: Transfer


Event = (
    StateChanged
    | MessageArrived
    | MessagesMissing
    | RoomReplaced
    | RoomLost
    | PresenceChanged
    | TextAcknowledged
    | TextFailed
    | NoticeReceived
    | GoodbyeReceived
    | ErrorReceived
    | LoggedOut
    | FileMoved
    | FileResumed
    | FileWaits
    | FileEnded
)


class EventStream:
    """Events as an asynchronous iterator; it ends with the session."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self._has_lost = False

    def put(self, event: Event) -> None:
        """Adds an event; never waits."""
        if self._waiting.qsize() >= WAITING_MAX:
            self._has_lost = True
        if not self._has_lost:
            self._waiting.put_nowait(event)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._has_lost and self._waiting.empty():
            raise EventsLostError(f"more than {WAITING_MAX} events waited to be read")
        event = await self._waiting.get()
        if isinstance(event, StateChanged) and event.state is State.CLOSED:
            self._waiting.put_nowait(event)  # whoever else iterates, or asks again, is at the end too
            raise StopAsyncIteration
        return event
