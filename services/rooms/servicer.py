"""The servicers of rooms and their members: gRPC in, domain out. Check the form of requests and decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.common.wire.limits import HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, ROOMS_LIMIT_MAX
from services.rooms.presence import Session
from services.rooms.vouchers import assertion_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from services.rooms.directory import Directory
    from services.rooms.messages import File, Message
    from services.rooms.store import RoomRecord
    from services.rooms.vouchers import Vouchers

    Context = grpc.aio.ServicerContext[Any, Any]

NAME_CHARS_MAX: Final = 256
"""Names, references and parts of names before they are normalised; what is longer is none."""

ID_CHARS_MAX: Final = 64
"""Ids of sessions, users and boots: they are labels."""

SESSION_IDS_MAX: Final = 50_000
"""Sessions in one call; an edge with more connections than that closes them in several."""

_log = get_logger(__name__)


class RoomsServicer(rooms_pb2_grpc.RoomsServiceServicer):
    """`parley.rooms.v1.RoomsService`: what an edge may ask. `online_count` says how many are present in a room."""

    def __init__(self, *, directory: Directory, online_count: Callable[[str], int], vouchers: Vouchers) -> None:
        self._directory = directory
        self._online_count = online_count
        self._vouchers = vouchers

    async def OpenSession(  # noqa: N802
        self, request: rooms_pb2.OpenSessionRequest, context: Context
    ) -> rooms_pb2.OpenSessionResponse:
        """See the proto."""
        session = self._session(request.session, context)
        found = await self._directory.open_session(session, enter_rooms=request.enter_rooms)
        return rooms_pb2.OpenSessionResponse(rooms=[_room(room) for room in found])

    async def CloseSessions(  # noqa: N802
        self, request: rooms_pb2.CloseSessionsRequest, context: Context
    ) -> rooms_pb2.CloseSessionsResponse:
        """See the proto."""
        if len(request.session_ids) > SESSION_IDS_MAX:
            raise _bad_request(f"session_ids: at most {SESSION_IDS_MAX}")
        self._vouchers.close(request.session_ids)
        self._directory.close_sessions(request.session_ids)
        return rooms_pb2.CloseSessionsResponse()

    async def CreateRoom(  # noqa: N802
        self, request: rooms_pb2.CreateRoomRequest, context: Context
    ) -> rooms_pb2.CreateRoomResponse:
        """See the proto."""
        session = self._session(request.session, context)
        room = await self._directory.create_room(
            session,
            name=request.name,
            topic=request.topic,
            is_private=request.private,
            is_exclusive=request.exclusive,
        )
        _log.info("room created", room_id=room.room_id, user_id=session.user_id, private=room.is_private)
        return rooms_pb2.CreateRoomResponse(room=_room(room))

    async def JoinRoom(self, request: rooms_pb2.JoinRoomRequest, context: Context) -> rooms_pb2.JoinRoomResponse:  # noqa: N802
        """See the proto."""
        session = self._session(request.session, context)
        reference = read_reference(request.room)
        room = await self._directory.join_room(session, reference, is_exclusive=request.exclusive)
        return rooms_pb2.JoinRoomResponse(room=_room(room))

    async def LeaveRoom(self, request: rooms_pb2.LeaveRoomRequest, context: Context) -> rooms_pb2.LeaveRoomResponse:  # noqa: N802
        """See the proto."""
        session = self._session(request.session, context)
        room_id = await self._directory.leave_room(session, read_reference(request.room))
        return rooms_pb2.LeaveRoomResponse(room_id=room_id)

    async def ListRooms(self, request: rooms_pb2.ListRoomsRequest, context: Context) -> rooms_pb2.ListRoomsResponse:  # noqa: N802
        """See the proto."""
        if request.user_id:  # what everybody may see is no secret from an edge
            self._vouchers.check_person(assertion_of(context), user_id=request.user_id)
        page = await self._directory.list_rooms(
            request.user_id,
            query=read_query(request.query),
            cursor=read_query(request.page_token),
            limit=read_page_size(request.page_size, default=ROOMS_LIMIT_MAX, most=ROOMS_LIMIT_MAX),
        )
        return rooms_pb2.ListRoomsResponse(
            rooms=[encode_summary(room, self._online_count(room.room_id)) for room in page.rooms],
            next_page_token=page.next_cursor,
        )

    async def ListMembers(  # noqa: N802
        self, request: rooms_pb2.ListMembersRequest, context: Context
    ) -> rooms_pb2.ListMembersResponse:
        """See the proto."""
        self._vouchers.check_person(assertion_of(context), user_id=request.user_id)
        page = await self._directory.list_members(request.user_id, read_reference(request.room))
        return rooms_pb2.ListMembersResponse(
            room_id=page.room.room_id,
            members=[
                rooms_pb2.Member(username=member.username, role=member.role, online=member.user_id in page.online_ids)
                for member in page.members
            ],
        )

    async def ListMessages(  # noqa: N802
        self, request: rooms_pb2.ListMessagesRequest, context: Context
    ) -> rooms_pb2.ListMessagesResponse:
        """See the proto."""
        self._vouchers.check_person(assertion_of(context), user_id=request.user_id)
        position = request.WhichOneof("position")
        seq = {None: 0, "after_seq": request.after_seq, "before_seq": request.before_seq}[position]
        if seq < 0:
            raise _bad_request(f"{position}: not below 0")
        room, messages, more = await self._directory.list_messages(
            request.user_id,
            read_reference(request.room),
            after_seq=seq if position == "after_seq" else None,
            before_seq=seq if position == "before_seq" else None,
            limit=read_page_size(request.page_size, default=HISTORY_LIMIT_DEFAULT, most=HISTORY_LIMIT_MAX),
        )
        return rooms_pb2.ListMessagesResponse(
            room_id=room.room_id,
            epoch=room.epoch,
            messages=[encode_message(message) for message in messages],
            first_seq=min(1, room.last_seq),
            last_seq=room.last_seq,
            more=more,
        )

    def _session(self, named: rooms_pb2.Session, context: Context) -> Session:
        session = read_session(named)
        self._vouchers.check_session(assertion_of(context), session)
        return session


def read_session(session: rooms_pb2.Session) -> Session:
    """The session that a request names. Raises ParleyError bad_request where a part of it is missing."""
    found = Session(session.session_id, session.user_id, session.username, session.edge_boot_id)
    for field, value in zip(Session._fields, found, strict=True):
        if not 0 < len(value) <= ID_CHARS_MAX:
            raise _bad_request(f"session.{field}: 1 to {ID_CHARS_MAX} characters")
    return found


def encode_message(message: Message) -> rooms_pb2.Message:
    """The message in the form in which it is sent."""
    encoded = rooms_pb2.Message(
        seq=message.seq,
        user_id=message.user_id,
        username=message.username,
        text=message.text,
        sent_at_ms=message.sent_at_ms,
    )
    if message.file is not None:
        encoded.file.CopyFrom(encode_file(message.file))
    return encoded


def encode_file(file: File) -> rooms_pb2.File:
    """The description of a file in the form in which it is sent."""
    return rooms_pb2.File(
        file_id=file.file_id,
        name=file.name,
        size=file.size,
        sha256=file.sha256,
        mime=file.mime,
        transfer_id=file.transfer_id,
        piece_bytes=file.piece_bytes,
    )


def read_reference(reference: str) -> str:
    """How somebody points at a room. Raises ParleyError bad_request."""
    if not 0 < len(reference) <= NAME_CHARS_MAX:
        raise _bad_request("room: an id, a name, or the first characters of an id")
    return reference


def read_query(text: str) -> str:
    """A part of a name, or a token. Raises ParleyError bad_request."""
    if len(text) > NAME_CHARS_MAX:
        raise _bad_request(f"at most {NAME_CHARS_MAX} characters")
    return text


def read_page_size(size: int, *, default: int, most: int) -> int:
    """How many entries a page shall have. Raises ParleyError bad_request."""
    if not 0 <= size <= most:
        raise _bad_request(f"page_size: 0 to {most}")
    return size or default


def _room(room: RoomRecord) -> rooms_pb2.Room:
    return rooms_pb2.Room(
        room_id=room.room_id,
        name=room.name,
        topic=room.topic,
        role=room.role or "",
        epoch=room.epoch,
        last_seq=room.last_seq,
    )


def encode_summary(room: RoomRecord, online_count: int) -> rooms_pb2.RoomSummary:
    """The room in the form in which lists have it."""
    return rooms_pb2.RoomSummary(
        room_id=room.room_id,
        name=room.name,
        topic=room.topic,
        user_count=online_count,
        member_count=room.member_count,
        created_at_ms=room.created_at_ms,
        joined=room.role is not None,
        private=room.is_private,
        closed=room.is_closed,
    )


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)
