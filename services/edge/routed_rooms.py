"""RoutedRooms: the rooms backend over several instances: each call goes to the instance of its room.

What may be repeated is asked of one more instance where the first is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.wire.requests import History
from services.edge.decisions import User
from services.edge.ports import Member, Page, Room, RoomsBackend, RoomSummary
from services.edge.routes import Routes
from services.edge.stand_in import ask_in_turn

T = TypeVar("T")


class RoutedRooms:
    """RoomsBackend over the backends of several instances, by target."""

    def __init__(self, backends: Mapping[str, RoomsBackend], routes: Routes, clock: Clock) -> None:
        self._backends = backends
        self._routes = routes
        self._clock = clock

    async def open_session(self, user: User, *, enter_rooms: bool) -> list[Room]:
        """Say that a person is here; return the rooms that they are a member of."""
        return await self._ask(user.user_id, lambda rooms: rooms.open_session(user, enter_rooms=enter_rooms))

    async def close_sessions(self, session_ids: Sequence[str]) -> None:
        """Take back the presence of sessions. One instance is enough for all to hear of it; but every one is told,
        because the assertions that it has seen are good for nothing from now on."""
        await self._ask("", lambda rooms: rooms.close_sessions(session_ids))
        others = self._routes.candidates("")[1:]
        await asyncio.gather(*(self._close_at(target, session_ids) for target in others))

    async def _close_at(self, target: str, session_ids: Sequence[str]) -> None:
        with contextlib.suppress(ParleyError):  # an instance that cannot be reached has lost the edge's stream, too
            await self._backends[target].close_sessions(session_ids)

    async def create_room(self, user: User, *, name: str, topic: str, private: bool, exclusive: bool) -> Room:
        """Create a room, with the person in it."""
        rooms = self._first(name)
        return await rooms.create_room(user, name=name, topic=topic, private=private, exclusive=exclusive)

    async def join_room(self, user: User, room: str, *, exclusive: bool) -> Room:
        """Make a person a member and present."""
        return await self._ask(room, lambda rooms: rooms.join_room(user, room, exclusive=exclusive))

    async def leave_room(self, user: User, room: str) -> str:
        """End a membership; return the room's id."""
        return await self._first(room).leave_room(user, room)

    async def list_rooms(self, user: User, *, query: str, limit: int, cursor: str) -> tuple[list[RoomSummary], str]:
        """A page of the rooms that a person may see, and the cursor of the next page or an empty string."""
        return await self._ask(
            user.user_id, lambda rooms: rooms.list_rooms(user, query=query, limit=limit, cursor=cursor)
        )

    async def list_members(self, user: User, room: str) -> tuple[str, list[Member]]:
        """A room's id and its members."""
        return await self._ask(room, lambda rooms: rooms.list_members(user, room))

    async def list_messages(self, user: User, request: History) -> Page:
        """A page of a room's log."""
        return await self._ask(request.room_id or "", lambda rooms: rooms.list_messages(user, request))

    def _first(self, key: str) -> RoomsBackend:
        return self._backends[self._routes.candidates(key)[0]]

    async def _ask(self, key: str, call: Callable[[RoomsBackend], Awaitable[T]]) -> T:
        return await ask_in_turn(self._routes.candidates(key), lambda target: call(self._backends[target]), self._clock)
