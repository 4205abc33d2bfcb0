"""The servicer for operators: gRPC in, domain out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

from services.common.identity import peer_identity
from services.common.logs import get_logger
from services.rooms.servicer import encode_summary, read_page_size, read_query, read_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from services.rooms.directory import Directory
    from services.rooms.operators.desk import Desk

    Context = grpc.aio.ServicerContext[Any, Any]

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
"""An operator's page: some 300 KB."""

_log = get_logger(__name__)


class RoomsAdminServicer(rooms_pb2_grpc.RoomsAdminServiceServicer):
    """`parley.rooms.v1.RoomsAdminService`: what an operator may ask."""

    def __init__(self, *, directory: Directory, desk: Desk, online_count: Callable[[str], int]) -> None:
        self._directory = directory
        self._desk = desk
        self._online_count = online_count

    async def ListAllRooms(  # noqa: N802
        self, request: rooms_pb2.ListAllRoomsRequest, context: Context
    ) -> rooms_pb2.ListAllRoomsResponse:
        """See the proto."""
        page = await self._directory.list_rooms(
            None,
            query=read_query(request.query),
            cursor=read_query(request.page_token),
            limit=read_page_size(request.page_size, default=PAGE_DEFAULT, most=PAGE_MAX),
        )
        return rooms_pb2.ListAllRoomsResponse(
            rooms=[encode_summary(room, self._online_count(room.room_id)) for room in page.rooms],
            next_page_token=page.next_cursor,
        )

    async def GetRoom(self, request: rooms_pb2.GetRoomRequest, context: Context) -> rooms_pb2.GetRoomResponse:  # noqa: N802
        """See the proto."""
        details = await self._desk.show(read_reference(request.room))
        room = details.room
        return rooms_pb2.GetRoomResponse(
            room=encode_summary(room, self._online_count(room.room_id)),
            epoch=room.epoch,
            last_seq=room.last_seq,
            last_sent_at_ms=details.last_sent_at_ms,
            owner=details.owner,
            file_count=details.file_count,
            file_bytes=details.file_bytes,
        )

    async def ListRoomMembers(  # noqa: N802
        self, request: rooms_pb2.ListRoomMembersRequest, context: Context
    ) -> rooms_pb2.ListRoomMembersResponse:
        """See the proto."""
        page = await self._desk.members(
            read_reference(request.room),
            after=read_query(request.page_token),
            limit=read_page_size(request.page_size, default=PAGE_DEFAULT, most=PAGE_MAX),
        )
        return rooms_pb2.ListRoomMembersResponse(
            room_id=page.room.room_id,
            members=[
                rooms_pb2.RoomMember(
                    user_id=member.user_id,
                    username=member.username,
                    role=member.role,
                    online=member.user_id in page.online_ids,
                    joined_at_ms=member.joined_at_ms,
                )
                for member in page.members
            ],
            next_page_token=page.next_name,
        )

    async def RemoveMember(  # noqa: N802
        self, request: rooms_pb2.RemoveMemberRequest, context: Context
    ) -> rooms_pb2.RemoveMemberResponse:
        """See the proto."""
        ended = await self._directory.remove_member(read_reference(request.room), read_query(request.username))
        operator = str(peer_identity(context))
        _log.warning("member removed", room_id=ended.room_id, user_id=ended.user_id, operator=operator)
        return rooms_pb2.RemoveMemberResponse()

    async def SetRoomClosed(  # noqa: N802
        self, request: rooms_pb2.SetRoomClosedRequest, context: Context
    ) -> rooms_pb2.SetRoomClosedResponse:
        """See the proto."""
        room = await self._desk.set_closed(read_reference(request.room), is_closed=request.closed)
        operator = str(peer_identity(context))
        _log.warning("room closed" if request.closed else "room opened", room_id=room.room_id, operator=operator)
        return rooms_pb2.SetRoomClosedResponse(room=encode_summary(room, self._online_count(room.room_id)))

    async def DeleteRoom(self, request: rooms_pb2.DeleteRoomRequest, context: Context) -> rooms_pb2.DeleteRoomResponse:  # noqa: N802
        """See the proto."""
        details = await self._desk.delete(read_reference(request.room))
        room = details.room
        _log.warning("room deleted", room_id=room.room_id, operator=str(peer_identity(context)))
        return rooms_pb2.DeleteRoomResponse(
            room_id=room.room_id,
            name=room.name,
            member_count=room.member_count,
            message_count=room.last_seq,
            file_count=details.file_count,
        )
