"""Removals: memberships that ended without the member's doing take effect on this edge.

A removal that happened before the member joined again may arrive after it. When the room has moved on since the join,
the removal is the later of the two; otherwise rooms is asked whether the person is still a member.
"""

from __future__ import annotations

from typing import Final

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import History
from services.edge.hub import Hub, Subscriber
from services.edge.ports import RoomsBackend

_ATTEMPTS: Final = 5
_RETRY_S: Final = 0.2
"""A removal has one second to take effect everywhere."""

_NOT_A_MEMBER: Final = frozenset({ErrorCode.NOT_A_MEMBER, ErrorCode.NO_SUCH_ROOM})

_log = get_logger(__name__)


class Removals:
    """Carries removals out."""

    def __init__(self, *, hub: Hub, rooms: RoomsBackend, tasks: TaskSet, clock: Clock) -> None:
        self._hub = hub
        self._rooms = rooms
        self._tasks = tasks
        self._clock = clock

    def removed(self, room_id: str, user_id: str, last_seq: int) -> None:
        """A membership has ended when the room was at `last_seq`."""
        for subscriber in self._hub.subscribers(room_id):
            if subscriber.user_id != user_id:
                continue
            joined_at = self._hub.joined_at(subscriber, room_id)
            if joined_at is not None and joined_at < last_seq:
                subscriber.connection.leave(room_id)
            else:
                self._tasks.spawn(self._check(subscriber, room_id), name="removal check")

    async def _check(self, subscriber: Subscriber, room_id: str) -> None:
        user = subscriber.connection.user
        for _ in range(_ATTEMPTS):
            if user is None or room_id not in subscriber.rooms:
                return
            try:
                await self._rooms.list_messages(user, History(room_id, limit=1))
            except ParleyError as error:
                if error.code in _NOT_A_MEMBER:
                    break
                await self._clock.sleep(_RETRY_S)
            else:
                return  # joined again since
        else:
            _log.warning("removal not confirmed, taken as true", room_id=room_id, user_id=subscriber.user_id)
        if subscriber.connection.user is user:
            subscriber.connection.leave(room_id)
