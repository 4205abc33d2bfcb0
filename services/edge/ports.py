"""Ports: what the edge asks of the other services, in its own words.

Every call raises ParleyError and nothing else; `backends` implements them over gRPC, tests in memory.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from services.common.wire.events import Message
from services.common.wire.requests import History
from services.edge.decisions import User


class Assertion(msgspec.Struct, frozen=True):
    """Auth's word for a session: opaque bytes, good for `lifetime_s` from now on; empty where there is no session."""

    data: bytes = b""
    lifetime_s: float = math.inf


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A session that auth has opened. `token_expires_at_ms` is Unix time in milliseconds."""

    user_id: str
    username: str
    session_id: str
    token: str
    token_expires_at_ms: int
    assertion: Assertion = Assertion()


class Room(msgspec.Struct, frozen=True):
    """A room as one of its members sees it; as it stands in replies."""

    room_id: str
    name: str
    topic: str
    role: str
    epoch: str
    last_seq: int


class ResumedRoom(msgspec.Struct, frozen=True):
    """A room as a client that resumes sees it: `replay` missed messages follow where it is `recovered`."""

    room_id: str
    name: str
    topic: str
    role: str
    epoch: str
    last_seq: int
    recovered: bool
    replay: int


class RoomSummary(msgspec.Struct, frozen=True):
    """A room in a list; as it stands in `room_info`. `created` is ISO 8601."""

    id: str
    name: str
    topic: str
    user_count: int
    member_count: int
    created: str
    joined: bool


class Member(msgspec.Struct, frozen=True):
    """Somebody in a room; as it stands in `user_list`."""

    username: str
    role: str
    online: bool


class Page(msgspec.Struct, frozen=True):
    """A page of a room's log, ascending; `first_seq` and `last_seq` are those of the whole log."""

    room_id: str
    epoch: str
    messages: list[Message]
    first_seq: int
    last_seq: int
    more: bool


class Revocation(msgspec.Struct, frozen=True):
    """A session that has ended without the edge's doing; `reason` is for `goodbye`."""

    session_id: str
    reason: str


class TracedSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A span as its own user sees it: times in microseconds from the trace's beginning."""

    span_id: str
    parent_id: str = ""
    service: str
    instance: str
    name: str
    start_us: int
    duration_us: int
    error: str = ""


class TracesBackend(Protocol):
    """What the edge asks of metrics."""

    async def own_message_trace(self, user: User, message_id: str) -> tuple[str, list[TracedSpan]]:
        """The trace of a message that this user has sent; empty where there is none. Raises ParleyError."""
        ...


class AuthBackend(Protocol):
    """Accounts and sessions."""

    async def register(self, username: str, password: str, *, address: str) -> str:
        """Create an account; return its user id."""
        ...

    async def login(self, username: str, password: str, *, address: str, device: str, takeover: bool) -> Login:
        """Verify a password and open the account's session; with `takeover`, in place of one that it has."""
        ...

    async def resume(self, token: str, *, address: str) -> Login:
        """Open a session with the token of an earlier one, which it ends."""
        ...

    async def logout(self, session_id: str) -> None:
        """End a session and kill its token."""
        ...

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """Say that the connections of these sessions have ended."""
        ...

    async def renew_lease(self, session_ids: Sequence[str]) -> tuple[float, list[str]]:
        """Keep these sessions alive; return for how many seconds, and which of them are not alive."""
        ...

    async def renew_assertions(self, assertions: Sequence[bytes]) -> list[Assertion]:
        """New ones for these, in the same order."""
        ...

    def watch_revocations(self) -> AsyncGenerator[list[Revocation], None]:
        """Sessions as they are ended by others; an empty list first, when the watch is in place."""
        ...


class RoomsBackend(Protocol):
    """Rooms, members and history. `room` is an id, a name or a prefix of an id."""

    async def open_session(self, user: User, *, enter_rooms: bool) -> list[Room]:
        """Say that a person is here; return the rooms that they are a member of."""
        ...

    async def close_sessions(self, session_ids: Sequence[str]) -> None:
        """Take back the presence of sessions."""
        ...

    async def create_room(self, user: User, *, name: str, topic: str, private: bool, exclusive: bool) -> Room:
        """Create a room, with the person in it."""
        ...

    async def join_room(self, user: User, room: str, *, exclusive: bool) -> Room:
        """Make a person a member and present."""
        ...

    async def leave_room(self, user: User, room: str) -> str:
        """End a membership; return the room's id."""
        ...

    async def list_rooms(self, user: User, *, query: str, limit: int, cursor: str) -> tuple[list[RoomSummary], str]:
        """A page of the rooms that a person may see, and the cursor of the next page or an empty string."""
        ...

    async def list_members(self, user: User, room: str) -> tuple[str, list[Member]]:
        """A room's id and its members."""
        ...

    async def list_messages(self, user: User, request: History) -> Page:
        """A page of a room's log."""
        ...
