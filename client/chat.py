"""The chat program without a screen: turns typed lines into requests, and events into lines to show."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import tzinfo
from pathlib import Path
from typing import Protocol

from client import commands, display
from client.clock import Clock
from client.display import Kind, Line
from client.errors import ClientError, NotReadyError
from client.events import (
    Event,
    FileEnded,
    FileMoved,
    LoggedOut,
    MessageArrived,
    PresenceChanged,
    State,
    StateChanged,
    TextAcknowledged,
    TextFailed,
)
from client.files.answers import FileInfo, posted_file
from client.files.paths import default_downloads
from client.files.transfer import Phase, Transfer
from client.files.words import progress_text
from client.narrator import Narrator, message_text
from client.replies import Message
from client.rooms import Room
from client.session import Session

FILES_KNOWN_MAX = 1_000
"""Files that can be named by the beginning of their id; older ones are found with /files, or by the whole id."""


class Screen(Protocol):
    """Where lines go, and whom questions are asked."""

    def show(self, line: Line) -> None:
        """Shows a line."""
        ...

    def update(self) -> None:
        """What is always in sight, such as the state, may have changed."""
        ...

    async def ask(self, question: str, *, is_secret: bool = False) -> str | None:
        """Asks for a line; a secret is not shown while it is typed. None where nobody answers."""
        ...


class Chat:
    """One person's chat: the session, the current room, and the names that were seen."""

    def __init__(
        self,
        screen: Screen,
        *,
        clock: Clock,
        zone: tzinfo | None = None,
        shows_context: bool = False,
        shows_own: bool = True,
        ends_with_login: bool = False,
        downloads: Path | None = None,
        tells_progress_s: float | None = None,
    ) -> None:
        """Makes a chat.

        `shows_context` adds recent messages when a room is entered, `shows_own` one's own messages; with
        `ends_with_login` losing the login is an error, and the end. `downloads` is where files go when nobody says;
        with `tells_progress_s` a line says every so often how far each transfer is.
        """
        self.screen = screen
        self.clock = clock
        self.zone = zone
        self.shows_context = shows_context
        self.is_quitting = False
        self.error_count = 0
        self.users: dict[str, None] = {}  # a set that keeps its order
        self.listed_rooms: dict[str, str] = {}
        self.files: dict[str, FileInfo] = {}  # those that were seen, by id, the newest last
        self.downloads = downloads or default_downloads(os.environ)
        self.ended = asyncio.Event()  # the session cannot go on
        self.last_own: str | None = None  # the id of the own message that was stored last
        self._shows_own = shows_own
        self._ends_with_login = ends_with_login
        self._tells_progress_s = tells_progress_s
        self._told_at: dict[Transfer, float] = {}
        self._current_id: str | None = None
        self._session: Session | None = None
        self._narrator = Narrator(zone)

    @property
    def session(self) -> Session:
        """The session; there is one from `attach` on."""
        if self._session is None:
            raise NotReadyError("There is no session yet.")
        return self._session

    def attach(self, session: Session) -> None:
        """The session that this chat speaks through; its events go to `on_event`."""
        self._session = session

    @property
    def current(self) -> Room | None:
        """The room that texts go to."""
        return self.session.rooms.get(self._current_id)

    def switch(self, room: Room | None) -> None:
        """Texts go to this room from now on."""
        self._current_id = room.room_id if room else None

    def show(self, *lines: Line) -> None:
        """Shows lines."""
        for line in lines:
            self.screen.show(line)

    def fail(self, text: str) -> None:
        """Shows why something was not done."""
        self.error_count += 1
        self.show(*display.error(text))

    def fail_because(self, problem: ClientError) -> None:
        """Shows why something was not done."""
        self.fail(display.reason(problem, now=self.clock.now(), zone=self.zone))

    def know_file(self, file: FileInfo) -> None:
        """A file was seen, and may be asked for by its name or the beginning of its id."""
        self.files.pop(file.file_id, None)
        self.files[file.file_id] = file
        if len(self.files) > FILES_KNOWN_MAX:
            del self.files[next(iter(self.files))]

    def show_message(self, room: Room, message: Message, *, is_own: bool) -> None:
        """Shows a message, with its room where that is not the current one."""
        self._learn(message)
        self.show(
            *display.message_lines(
                username=message.username,
                text=message_text(message),
                ts_ms=message.ts,
                is_own=is_own,
                room_name=None if room.room_id == self._current_id else room.name,
                zone=self.zone,
            )
        )

    async def handle_line(self, line: str) -> None:
        """Does what a typed line says; shows what goes wrong."""
        line = line.rstrip("\r\n")
        if not line.strip():
            return
        try:
            if line.startswith("/") and not line.startswith("//"):
                await commands.run(self, line)
            else:
                self.say(line[1:] if line.startswith("//") else line)
        except ClientError as problem:
            self.fail_because(problem)

    def say(self, text: str) -> None:
        """Sends a text to the current room. Raises ClientError with what has to be done first."""
        if self.session.username is None:
            raise NotReadyError("You are not logged in: /login NAME, or /register NAME for a new account.")
        if (room := self.current) is None:
            raise NotReadyError(self._no_room())
        self.session.post_text(room.room_id, text)

    def _no_room(self) -> str:
        if len(self.session.rooms):
            names = ", ".join(room.name for room in self.session.rooms)
            return f"No room is chosen: /switch ROOM chooses one of yours ({names})."
        return "You are in no room: /rooms lists them, /join ROOM enters one, /create NAME makes one."

    def on_event(self, event: Event) -> None:
        """Shows what happened."""
        match event:
            case MessageArrived(message=message, is_own=is_own):
                self._learn(message)
                if is_own and not self._shows_own:
                    return
            case PresenceChanged(action="join" | "online", username=username):
                self.users.setdefault(username)
            case FileMoved(transfer):
                self._tell_progress(transfer)
            case FileEnded(transfer):
                self._told_at.pop(transfer, None)
            case TextAcknowledged(room_id=room_id, epoch=epoch, seq=seq):
                self.last_own = f"{room_id}-{epoch}-{seq}"
            case LoggedOut():
                self._current_id = self.last_own = None
                if self._ends_with_login:
                    self.error_count += 1
                    self.ended.set()
            case StateChanged(State.CLOSED, reason) if reason:
                self.ended.set()
        failed_in = self.session.rooms.get(event.room_id) if isinstance(event, TextFailed) else None
        lines = self._narrator.tell(
            event,
            current_id=self._current_id,
            username=self.session.username,
            failed_in=failed_in,
            now=self.clock.now(),
        )
        self.error_count += any(line.kind is Kind.ERROR for line in lines)
        self.show(*lines)
        self.screen.update()

    def _learn(self, message: Message) -> None:
        self.users.setdefault(message.username)
        if (file := posted_file(message.file)) is not None:
            self.know_file(file)

    def _tell_progress(self, transfer: Transfer) -> None:
        if self._tells_progress_s is None or transfer.phase is Phase.WAITING:
            return
        now = self.clock.monotonic()
        if now - self._told_at.setdefault(transfer, now) >= self._tells_progress_s:
            self._told_at[transfer] = now
            self.show(display.note(progress_text(transfer, now)))

    def tell_trace(self, measured: dict[str, object]) -> None:
        """Tells the server what was measured of an own message, where it wants to know."""
        if self.session.server is not None and self.session.server.tracing:
            self.session.tell("trace_report", measured)

    async def learn_users(self, room: Room) -> list[str]:
        """Who is online in a room; the names of its members are known for completion from then on."""
        with contextlib.suppress(ClientError):
            listed = await self.session.list_users(room.room_id)
            for name in [*listed.users, *(member.username for member in listed.members)]:
                self.users.setdefault(name)
            return listed.users
        return []
