"""The client as a library: one user's session with a server, which mends itself.

    session = Session(TlsConnector(address, trust), on_event=print)
    await session.start()
    await session.login("ada", password)
    room = await session.join_room("lobby")
    await session.send_text(room.room_id, "hello")

A lost connection is made again by itself, and the session resumed with its token, or else with the login that is
remembered in memory; messages that were missed meanwhile are replayed or fetched, and texts that were not acknowledged
are sent again under the keys that they had. So whoever reads the events sees each message of each joined room once and
in order.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from client.backoff import Backoff
from client.catchup import CatchUp
from client.clock import Clock, SystemClock
from client.connection import Connection
from client.errors import ClientError, NotReadyError, RequestError
from client.events import (
    ErrorReceived,
    Event,
    EventStream,
    GoodbyeReceived,
    LoggedOut,
    NoticeReceived,
    PresenceChanged,
    RoomLost,
    State,
    StateChanged,
)
from client.files.book import OpenBook
from client.files.transfers import Transfers
from client.link import Link
from client.login import Credentials, log_in, log_in_again
from client.outbox_file import OpenJournal
from client.patience import Patience, ReconnectingError
from client.replies import (
    Farewell,
    LeftRoom,
    Login,
    Messages,
    Presence,
    Registration,
    RoomInfo,
    RoomPage,
    ServerInfo,
    T,
    UserList,
    read,
)
from client.rooms import Room, Rooms
from client.sender import Sender, check_text
from client.tasks import TaskSet
from client.transport import Connector
from services.common.wire import limits
from services.common.wire.envelope import ServerEnvelope

CLIENT_NAME = "parley/0.1.0"

ENDING_REASONS = frozenset({"revoked", "replaced"})
"""Goodbyes after which logging in again by itself would undo what somebody just did on purpose."""

_uniform = random.SystemRandom().uniform
_new_token = partial(secrets.token_hex, 16)

SETTLE_S = 5.0
"""How long leaving and logging out wait for what was written before; acknowledgements take milliseconds."""


class Session:
    """A session; `state` says how it stands, `rooms` the joined rooms, `files` what is sent and fetched, `username` who
    is logged in.

    Events go to `on_event`, which must not wait, and to every iterator that `events` made. Requests wait for a while
    for what passes, such as a restart of the server (see `patience`). They raise RequestError where the server refuses,
    NotReadyError without connection or login, ConnectionLostError where the connection ended before the answer.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        on_event: Callable[[Event], None] | None = None,
        client: str = CLIENT_NAME,
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] = _uniform,
        new_key: Callable[[], str] = lambda: secrets.token_urlsafe(16),
        open_journal: OpenJournal | None = None,
        open_book: OpenBook | None = None,
        trace: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self.state = State.CONNECTING
        self.username: str | None = None
        self._clock = clock or SystemClock()
        self._patience = Patience(self._clock, uniform)
        self._uniform = uniform
        self._listeners = [on_event] if on_event else []
        self._restoring = TaskSet()
        self._credentials: Credentials | None = None
        self._token = ""
        self._is_logged_in = False  # on the present connection
        self._catchup = CatchUp(clock=self._clock, emit=self._emit, on_change=self._update_state)
        self._sender = Sender(clock=self._clock, emit=self._emit, new_key=new_key, open_journal=open_journal)
        self._sender.trace = trace
        self.files = Transfers(
            clock=self._clock, emit=self._emit, uniform=uniform, new_token=_new_token, open_book=open_book
        )
        self._link = Link(
            connector, client=client, clock=self._clock, uniform=uniform, on_event=self._handle,
            on_positions=lambda said: self._catchup.learn(said.rooms), on_chunk=self.files.receive,
            on_up=self._is_up, on_down=self._is_down, on_state=self._set_state,
        )  # fmt: skip

    @property
    def server(self) -> ServerInfo | None:
        """What the server says of itself, once there was a connection."""
        return self._link.server

    @property
    def rooms(self) -> Rooms:
        """The joined rooms."""
        return self._catchup.rooms

    @property
    def unacknowledged(self) -> int:
        """How many texts wait to be acknowledged."""
        return len(self._sender)

    def events(self) -> EventStream:
        """Everything that happens from now on, to be read with `async for`; it ends with the session."""
        stream = EventStream()
        self._listeners.append(stream.put)
        return stream

    async def start(self) -> None:
        """Connects. Raises ConnectError or TrustError; once it succeeded, lost connections are made again."""
        await self._link.start()

    async def close(self) -> None:
        """Ends the session; what is not acknowledged is given up, or stays on the disk for the next one."""
        await self._link.close()

    async def register(self, username: str, password: str) -> str:
        """Creates an account and returns its id; it does not log in."""
        name, data = "register_request", {"username": username, "password": password}
        return await self._patience.carry(
            name, lambda: self._live().call(name, data, then=lambda answer: read(answer.data, Registration).user_id)
        )

    async def login(self, username: str, password: str, *, takeover: bool = False) -> list[Room]:
        """Logs in, remembers the credentials for reconnects, and returns the user's rooms.

        With `takeover` another session of the account is ended, where there is one.
        """
        if self._credentials is not None:
            raise NotReadyError(f"You are logged in as {self.username} already.")
        credentials = Credentials(username, password)
        self._catchup.forget()

        async def attempt() -> Login:
            connection = self._live()
            adopt = partial(self._adopt, connection, credentials)
            return await log_in(connection, credentials, adopt=adopt, takeover=takeover)

        await self._patience.carry("auth_request", attempt)
        return list(self.rooms)

    async def logout(self) -> None:
        """Logs out; the rooms stay the user's, but nothing of them is shown any more."""
        self._check_logged_in()
        await self.settle(SETTLE_S)
        await self._command("logout", then=lambda _: self._forget("You logged out."))

    async def create_room(self, name: str, *, topic: str = "", private: bool = False) -> Room:
        """Creates a room and is in it."""
        wanted = {"name": name, "topic": topic, "private": private}
        data = {key: value for key, value in wanted.items() if value}
        return await self._command("create_room", data, then=self._entered)

    async def join_room(self, room: str) -> Room:
        """Joins a room: an id, an exact name regardless of case, or the beginning of an id, 4 characters or more."""
        return await self._command("join_room", room_id=room, then=self._entered)

    async def leave_room(self, room_id: str) -> None:
        """Leaves a room, after what was written to it has been acknowledged."""
        self._check_logged_in()
        await self.settle(SETTLE_S)  # commands go before texts at the server, so the texts would come too late
        await self._command("leave_room", room_id=room_id, then=self._left)

    async def list_rooms(self, query: str = "", *, limit: int = limits.ROOMS_LIMIT_MAX, cursor: str = "") -> RoomPage:
        """One page of the rooms that the user may see."""
        wanted = {"limit": limit, "query": query, "cursor": cursor}
        return await self.ask("list_rooms", RoomPage, {key: value for key, value in wanted.items() if value})

    async def list_users(self, room_id: str) -> UserList:
        """Who is in a room."""
        return await self.ask("user_list", UserList, room_id=room_id)

    async def history(
        self, room_id: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> Messages:
        """One page of a room's log, ascending: what ends before `before`, begins behind `after`, or the newest."""
        wanted = {"limit": limit, "before": before, "after": after}
        data = {key: value for key, value in wanted.items() if value is not None}
        return await self.ask("history", Messages, data, room_id=room_id)

    async def ask(self, name: str, into: type[T], data: dict[str, Any] | None = None, room_id: str | None = None) -> T:
        """Any request whose answer is all there is to it."""
        return await self._command(name, data, room_id=room_id, then=lambda answer: read(answer.data, into))

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Sends a request whose answer does not matter, if there is anybody to send it to."""
        if self._is_logged_in and self._link.connection is not None:
            self._link.connection.send(name, data, on_answer=lambda _: None)

    def check_text(self, text: str) -> None:
        """Raises InvalidTextError, with what is wrong, for a text that the server would refuse."""
        check_text(text, longest=self.server.max_text_chars if self.server else limits.MAX_TEXT_CHARS)

    def post_text(self, room_id: str, text: str) -> str:
        """Queues a text and returns its key at once; TextAcknowledged or TextFailed will say what became of it.

        Raises InvalidTextError, NotReadyError, OutboxFullError, OutboxUnwritableError; then nothing was queued.
        """
        self._check_may_send(room_id, text)
        return self._sender.post(room_id, text)

    async def send_text(self, room_id: str, text: str) -> tuple[str, int]:
        """Sends a text and returns its (epoch, seq) once it is stored. Raises ClientError where it never will be."""
        self._check_may_send(room_id, text)
        stored = await self._sender.send(room_id, text)
        return stored.epoch, stored.seq

    async def wait_until_below(self, count: int) -> None:
        """Waits until fewer than `count` texts are unacknowledged."""
        await self._sender.wait_until_below(count)

    async def settle(self, timeout_s: float) -> bool:
        """Waits until everything is acknowledged, at most `timeout_s` seconds; returns whether it is."""
        return await self._sender.settle(timeout_s)

    def _check_may_send(self, room_id: str, text: str) -> None:
        self.check_text(text)
        self._check_logged_in()
        if room_id not in self.rooms:
            raise NotReadyError("You are not in this room.")

    def _live(self) -> Connection:
        connection = self._link.connection
        if connection is None or not connection.takes_requests:
            error = NotReadyError if self.state is State.CLOSED else ReconnectingError
            raise error("There is no connection to the server at the moment.")
        return connection

    def _check_logged_in(self) -> None:
        if self._credentials is None:
            raise NotReadyError("You are not logged in.")

    def _logged_in(self) -> Connection:
        self._check_logged_in()
        connection = self._live()
        if not self._is_logged_in:
            raise ReconnectingError("The connection is back, but the login is not yet; try again in a moment.")
        return connection

    async def _command(
        self, name: str, data: dict[str, Any] | None = None, *, then: Callable[[ServerEnvelope], T],
        room_id: str | None = None,
    ) -> T:  # fmt: skip
        return await self._patience.carry(name, lambda: self._logged_in().call(name, data, room_id=room_id, then=then))

    def _entered(self, envelope: ServerEnvelope) -> Room:
        return self._catchup.enter(read(envelope.data, RoomInfo))

    def _left(self, envelope: ServerEnvelope) -> None:
        room_id = read(envelope.data, LeftRoom).room_id
        self.rooms.leave(room_id)
        self._sender.give_up("You left the room.", room_id=room_id)

    # What happens to the connection and to the login.

    def _is_up(self, connection: Connection) -> None:
        if self._credentials is not None:
            self._restoring.spawn(self._restore(connection, self._credentials), name="restore-login")
        self._update_state()

    async def _is_down(self) -> None:
        self._is_logged_in = False
        await self._restoring.close()
        await self._catchup.stop()
        await self._sender.stop()
        await self.files.stop()

    async def _restore(self, connection: Connection, credentials: Credentials) -> None:
        try:
            await log_in_again(
                connection, credentials, token=self._token, positions=self._catchup.positions,
                adopt=partial(self._adopt, connection, credentials), clock=self._clock,
                backoff=Backoff(self._uniform), on_wait=lambda reason: self._set_state(State.BEHIND, reason),
            )  # fmt: skip
        except RequestError as error:
            self._lose_login(error.message)
        except ClientError as error:
            connection.end(str(error))

    def _adopt(self, connection: Connection, credentials: Credentials, login: Login) -> None:
        # Runs between two frames: the next one may already be a message of one of these rooms.
        self._credentials, self.username, self._is_logged_in = credentials, login.username, True
        self._token = login.token
        self._catchup.start(connection, login.rooms, username=login.username)
        self._sender.start(connection, login.username)
        if connection.server is not None:
            self.files.start(connection, connection.server, login.username)
        self._update_state()

    def _forget(self, reason: str) -> None:
        self._credentials = self.username = None
        self._is_logged_in = False
        self._token = ""
        self._catchup.forget()
        self._sender.put_away(reason)
        self.files.put_away()
        self._update_state()

    def _lose_login(self, reason: str) -> None:
        if self._credentials is not None:
            self._forget(reason)
            self._emit(LoggedOut(reason))

    # What the server says without having been asked.

    def _handle(self, envelope: ServerEnvelope) -> None:
        if self.files.handle(envelope):
            return
        data = envelope.data
        match envelope.type:
            case "messages":
                self._catchup.receive(envelope.room_id, read(data, Messages))
            case "user_list":
                self._handle_presence(envelope.room_id, read(data, Presence))
            case "notice":
                room = self.rooms.get(envelope.room_id)
                self._emit(NoticeReceived(str(data.get("text", "")), None if room is None else room.name))
            case "goodbye":
                self._handle_goodbye(read(data, Farewell))
            case "error":
                self._emit(ErrorReceived(str(data.get("code", "")), str(data.get("error", ""))))
            case _:
                pass  # a newer server may say more than this client knows

    def _handle_presence(self, room_id: str | None, presence: Presence) -> None:
        room = self.rooms.get(room_id)
        if room is None:
            return
        if presence.action == "leave" and presence.username == self.username:
            self.rooms.leave(room.room_id)
            self._sender.give_up("You are no longer in the room.", room_id=room.room_id)
            self._emit(RoomLost(room))
        else:
            self._emit(PresenceChanged(room, presence.action, presence.username, presence.online))

    def _handle_goodbye(self, farewell: Farewell) -> None:
        stay_away_s = None
        if farewell.reason == "draining" and self._link.connection is not None:
            self._link.connection.drain()
        if farewell.reconnect_after_ms is not None:
            stay_away_s = self._link.stay_away(farewell.reconnect_after_ms / 1000)
        self._emit(GoodbyeReceived(farewell.reason, stay_away_s))
        if farewell.reason in ENDING_REASONS:
            self._lose_login(f"the server ended the session ({farewell.reason})")

    def _update_state(self) -> None:
        if self._link.connection is None or self._link.connection.is_ended:
            return
        is_waiting = self._credentials is not None and not self._is_logged_in
        self._set_state(State.BEHIND if is_waiting or self._catchup.is_behind else State.LIVE)

    def _set_state(self, state: State, reason: str = "", retry_in_s: float | None = None) -> None:
        if state is State.CLOSED:
            self._sender.put_away("The session ended before this was acknowledged.")
            self.files.put_away()
        if state is not self.state or reason:
            self.state = state
            self._emit(StateChanged(state, reason, retry_in_s))

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
