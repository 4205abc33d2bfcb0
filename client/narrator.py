"""Puts events into words: which lines tell what happened."""

from __future__ import annotations

from datetime import tzinfo

from client import display
from client.display import Line
from client.errors import ClientError
from client.events import (
    ErrorReceived,
    Event,
    FileEnded,
    FileMoved,
    FileResumed,
    FileWaits,
    GoodbyeReceived,
    LoggedOut,
    MessageArrived,
    MessagesMissing,
    NoticeReceived,
    PresenceChanged,
    RoomLost,
    RoomReplaced,
    State,
    StateChanged,
    TextFailed,
)
from client.files.answers import posted_file
from client.files.transfer import Transfer
from client.files.words import ended_lines, file_text, resumed_line, waits_line
from client.replies import Message
from client.rooms import Room

QUOTED_CHARS = 40
"""How much of a text that failed is repeated, so that its writer knows which one it was."""

PRESENCE = {
    "join": "{} joined the room.",
    "leave": "{} left the room.",
    "online": "{} is online.",
    "offline": "{} went offline.",
}

GOODBYES = {
    "draining": "The server is about to restart.",
    "replaced": "You logged in somewhere else, which ended this session. /login brings you back here.",
    "revoked": "This session was ended, by you elsewhere or by an operator. /login logs in again.",
    "slow_consumer": "The server closed the connection, because this client could not keep up.",
    "idle": "The server closed the connection, because nothing came from this client.",
    "protocol_error": "The server closed the connection, because it did not understand this client.",
}


class Narrator:
    """Remembers whether there was a connection, so that only changes are told."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._is_connected = False
        self._was_connected = False
        self._waits: dict[Transfer, str] = {}  # what was told last of those that wait

    def tell(
        self, event: Event, *, current_id: str | None, username: str | None, failed_in: Room | None, now: float
    ) -> list[Line]:
        """The lines for an event.

        `current_id` is the current room's; `username` the user's own name; `failed_in` the room of a text that failed,
        where it is still known; `now` is Unix time.
        """
        match event:
            case MessageArrived(room, message, is_own=is_own):
                return display.message_lines(
                    username=message.username,
                    text=message_text(message),
                    ts_ms=message.ts,
                    is_own=is_own,
                    room_name=None if room.room_id == current_id else room.name,
                    zone=self._zone,
                )
            case PresenceChanged():
                return _presence(event, current_id, username)
            case StateChanged():
                return self._state(event)
            case TextFailed(text=text, error=problem):
                return self._failure(failed_in, text, problem, now)
            case FileMoved() | FileResumed() | FileWaits() | FileEnded():
                return self._about_file(event)
            case MessagesMissing() | RoomReplaced() | RoomLost():
                return [_about_room(event)]
        return _about_server(event)

    def _state(self, event: StateChanged) -> list[Line]:
        if event.state is State.CLOSED:
            return display.error(event.reason) if event.reason else []
        if event.state is State.CONNECTING:
            was, self._is_connected = self._is_connected, False
            # The attempts that follow the first are seen in the toolbar.
            return [display.note(f"The connection is lost: {event.reason}. Trying to connect again …")] if was else []
        if event.reason:
            return [display.note(f"Waiting to log in again: {event.reason}.")]
        if self._is_connected or event.state is not State.LIVE:
            return []
        again, self._is_connected, self._was_connected = self._was_connected, True, True
        return [display.note("Connected again.")] if again else []

    def _about_file(self, event: FileMoved | FileResumed | FileWaits | FileEnded) -> list[Line]:
        transfer = event.transfer
        match event:
            case FileResumed():
                return [resumed_line(transfer)]
            case FileWaits(reason=reason):
                is_news, self._waits[transfer] = self._waits.get(transfer) != reason, reason
                return [waits_line(transfer, reason)] if is_news else []
            case FileEnded():
                self._waits.pop(transfer, None)
                return ended_lines(transfer)
        return []  # that it moves is seen elsewhere

    def _failure(self, room: Room | None, text: str, problem: ClientError, now: float) -> list[Line]:
        start = text if len(text) <= QUOTED_CHARS else text[: QUOTED_CHARS - 1] + "…"
        where = f" to #{room.name}" if room else ""
        return display.error(
            f"Not sent{where}: “{display.clean(start)}”: {display.reason(problem, now=now, zone=self._zone)}"
        )


def message_text(message: Message) -> str:
    """What a message says; a file is told in words."""
    file = posted_file(message.file)
    if file is None:
        return message.text
    return f"{message.text}\n{file_text(file)}" if message.text else file_text(file)


def _presence(event: PresenceChanged, current_id: str | None, username: str | None) -> list[Line]:
    room_name = None if event.room.room_id == current_id else event.room.name
    if event.action == "count":
        return [display.note(f"{event.online} people are online.", room_name=room_name)]
    if event.action in PRESENCE and event.username != username:
        return [display.note(PRESENCE[event.action].format(event.username), room_name=room_name)]
    return []


def _about_room(event: MessagesMissing | RoomReplaced | RoomLost) -> Line:
    match event:
        case MessagesMissing():
            count = event.last_seq - event.first_seq + 1
            text = f"{count} messages were missed, and the server no longer has them."
        case RoomReplaced():
            text = "An operator put back an older log; this is how it goes on."
        case RoomLost():
            text = "You are no longer a member of this room."
    return display.note(text, room_name=event.room.name)


def _about_server(event: Event) -> list[Line]:
    match event:
        case NoticeReceived(text, room_name):
            return [display.note(f"From the operators: {text}", room_name=room_name)]
        case GoodbyeReceived(reason):
            return [display.note(GOODBYES.get(reason, f"The server closes the connection ({reason})."))]
        case ErrorReceived(code, message):
            return display.error(f"The server says: {message} ({code})")
        case LoggedOut(reason):
            return [display.note(f"You are no longer logged in: {reason}")]
    return []  # an acknowledgement: the message itself is what is shown
