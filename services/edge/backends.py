"""Backends: the ports to auth and rooms over gRPC. Generated messages and gRPC errors end here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import grpc.aio
from parley.auth.v1 import auth_pb2, auth_pb2_grpc
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc
from parley.rooms.v1 import feed_pb2_grpc, rooms_pb2, rooms_pb2_grpc

from services.common.assertions import METADATA_KEY
from services.common.errors import ParleyError, from_rpc_error
from services.common.wire.codes import ErrorCode
from services.common.wire.events import Message, iso_time
from services.common.wire.requests import History
from services.edge.decisions import User
from services.edge.ports import Assertion, Login, Member, Page, Revocation, Room, RoomSummary, TracedSpan

AUTH_IDEMPOTENT: Final = (
    "parley.auth.v1.AuthService/Logout",
    "parley.auth.v1.AuthService/EndSessions",
    "parley.auth.v1.AuthService/RenewLease",
)
ROOMS_IDEMPOTENT: Final = (
    "parley.rooms.v1.RoomsService/OpenSession",
    "parley.rooms.v1.RoomsService/CloseSessions",
    "parley.rooms.v1.RoomsService/JoinRoom",
    "parley.rooms.v1.RoomsService/ListRooms",
    "parley.rooms.v1.RoomsService/ListMembers",
    "parley.rooms.v1.RoomsService/ListMessages",
)
"""Calls that may be repeated when the service was not there."""

SPANS_SHOWN_MAX: Final = 200
"""At some 150 bytes each this fits into a frame; a message's way has about ten."""

_DOUBT_RETRY_S: Final = 2.0
"""The renewal of an assertion takes a second to begin."""

T = TypeVar("T")


def assertion_metadata(user: User | None) -> tuple[tuple[str, bytes], ...]:
    """The metadata by which rooms knows that auth vouches for the person whom a call is for."""
    return () if user is None else ((METADATA_KEY, user.voucher.assertion),)


async def _call(method: Callable[..., Awaitable[T]], request: object, timeout_s: float, user: User | None = None) -> T:
    try:
        return await method(request, timeout=timeout_s, metadata=assertion_metadata(user))
    except grpc.aio.AioRpcError as error:
        raise believed(from_rpc_error(error), user) from None


def believed(error: ParleyError, user: User | None) -> ParleyError:
    """The error as a person is to see it: that rooms does not believe the edge is for a moment, and not their fault."""
    if error.code is not ErrorCode.NOT_AUTHENTICATED or user is None:
        return error
    user.voucher.doubt()
    return ParleyError(ErrorCode.UNAVAILABLE, "the session is being confirmed", retry_after_s=_DOUBT_RETRY_S)


class GrpcAuth:
    """AuthBackend over gRPC. A login waits for its turn at the password checkers, so its time-out is another."""

    def __init__(
        self, channel: grpc.aio.Channel, *, edge_name: str, boot_id: str, timeout_s: float, login_timeout_s: float
    ) -> None:
        self._stub = auth_pb2_grpc.AuthServiceStub(channel)
        self._edge = auth_pb2.EdgeBoot(name=edge_name, boot_id=boot_id)
        self._timeout_s = timeout_s
        self._login_timeout_s = login_timeout_s

    async def register(self, username: str, password: str, *, address: str) -> str:
        """Create an account; return its user id."""
        request = auth_pb2.RegisterRequest(username=username, password=password, address=address)
        return (await _call(self._stub.Register, request, self._login_timeout_s)).user_id

    async def login(self, username: str, password: str, *, address: str, device: str, takeover: bool) -> Login:
        """Verify a password and open the account's session; with `takeover`, in place of one that it has."""
        request = auth_pb2.LoginRequest(
            username=username, password=password, address=address, device=device, edge=self._edge, takeover=takeover
        )
        return _login(await _call(self._stub.Login, request, self._login_timeout_s))

    async def resume(self, token: str, *, address: str) -> Login:
        """Open a session with the token of an earlier one, which it ends."""
        request = auth_pb2.ResumeRequest(token=token, address=address, edge=self._edge)
        return _login(await _call(self._stub.Resume, request, self._timeout_s))

    async def logout(self, session_id: str) -> None:
        """End a session and kill its token."""
        await _call(self._stub.Logout, auth_pb2.LogoutRequest(session_id=session_id), self._timeout_s)

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """Say that the connections of these sessions have ended."""
        await _call(self._stub.EndSessions, auth_pb2.EndSessionsRequest(session_ids=session_ids), self._timeout_s)

    async def renew_lease(self, session_ids: Sequence[str]) -> tuple[float, list[str]]:
        """Keep these sessions alive; return for how many seconds, and which of them are not alive."""
        request = auth_pb2.RenewLeaseRequest(edge=self._edge, session_ids=session_ids)
        response = await _call(self._stub.RenewLease, request, self._timeout_s)
        return response.lease_s, list(response.ended_session_ids)

    async def renew_assertions(self, assertions: Sequence[bytes]) -> list[Assertion]:
        """New ones for these, in the same order."""
        request = auth_pb2.RenewAssertionsRequest(edge=self._edge, assertions=assertions)
        response = await _call(self._stub.RenewAssertions, request, self._timeout_s)
        return list(map(_assertion, response.assertions))

    async def watch_revocations(self) -> AsyncGenerator[list[Revocation], None]:
        """Sessions as they are ended by others; an empty list first, when the watch is in place."""
        call = self._stub.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=self._edge))
        try:
            async for response in call:
                yield [Revocation(revocation.session_id, revocation.reason) for revocation in response.revocations]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()  # an abandoned stream is never collected


class GrpcRooms:
    """RoomsBackend over gRPC, and the streams of the feed."""

    def __init__(self, channel: grpc.aio.Channel, *, boot_id: str, timeout_s: float) -> None:
        self._stub = rooms_pb2_grpc.RoomsServiceStub(channel)
        self._feed_stub = feed_pb2_grpc.RoomFeedServiceStub(channel)
        self._boot_id = boot_id
        self._timeout_s = timeout_s

    def open_stream(self) -> Any:
        """Begin a stream for the feed."""
        return self._feed_stub.Attach()

    async def open_session(self, user: User, *, enter_rooms: bool) -> list[Room]:
        """Say that a person is here; return the rooms that they are a member of."""
        request = rooms_pb2.OpenSessionRequest(session=self._session(user), enter_rooms=enter_rooms)
        return [_room(room) for room in (await _call(self._stub.OpenSession, request, self._timeout_s, user)).rooms]

    async def close_sessions(self, session_ids: Sequence[str]) -> None:
        """Take back the presence of sessions."""
        request = rooms_pb2.CloseSessionsRequest(session_ids=session_ids)
        await _call(self._stub.CloseSessions, request, self._timeout_s)

    async def create_room(self, user: User, *, name: str, topic: str, private: bool, exclusive: bool) -> Room:
        """Create a room, with the person in it."""
        request = rooms_pb2.CreateRoomRequest(
            session=self._session(user), name=name, topic=topic, private=private, exclusive=exclusive
        )
        return _room((await _call(self._stub.CreateRoom, request, self._timeout_s, user)).room)

    async def join_room(self, user: User, room: str, *, exclusive: bool) -> Room:
        """Make a person a member and present."""
        request = rooms_pb2.JoinRoomRequest(session=self._session(user), room=room, exclusive=exclusive)
        return _room((await _call(self._stub.JoinRoom, request, self._timeout_s, user)).room)

    async def leave_room(self, user: User, room: str) -> str:
        """End a membership; return the room's id."""
        request = rooms_pb2.LeaveRoomRequest(session=self._session(user), room=room)
        return (await _call(self._stub.LeaveRoom, request, self._timeout_s, user)).room_id

    async def list_rooms(self, user: User, *, query: str, limit: int, cursor: str) -> tuple[list[RoomSummary], str]:
        """A page of the rooms that a person may see, and the cursor of the next page or an empty string."""
        request = rooms_pb2.ListRoomsRequest(user_id=user.user_id, query=query, page_size=limit, page_token=cursor)
        response = await _call(self._stub.ListRooms, request, self._timeout_s, user)
        summaries = [
            RoomSummary(
                id=room.room_id,
                name=room.name,
                topic=room.topic,
                user_count=room.user_count,
                member_count=room.member_count,
                created=iso_time(room.created_at_ms / 1000),
                joined=room.joined,
            )
            for room in response.rooms
        ]
        return summaries, response.next_page_token

    async def list_members(self, user: User, room: str) -> tuple[str, list[Member]]:
        """A room's id and its members."""
        request = rooms_pb2.ListMembersRequest(user_id=user.user_id, room=room)
        response = await _call(self._stub.ListMembers, request, self._timeout_s, user)
        return response.room_id, [Member(member.username, member.role, member.online) for member in response.members]

    async def list_messages(self, user: User, request: History) -> Page:
        """A page of a room's log."""
        query = rooms_pb2.ListMessagesRequest(user_id=user.user_id, room=request.room_id, page_size=request.limit)
        if request.after is not None:
            query.after_seq = request.after
        if request.before is not None:
            query.before_seq = request.before
        response = await _call(self._stub.ListMessages, query, self._timeout_s, user)
        messages = [
            Message(
                message.seq,
                message.username,
                message.text,
                message.sent_at_ms,
                file_data(message.file) if message.HasField("file") else None,
            )
            for message in response.messages
        ]
        return Page(response.room_id, response.epoch, messages, response.first_seq, response.last_seq, response.more)

    def _session(self, user: User) -> rooms_pb2.Session:
        return rooms_pb2.Session(
            session_id=user.session_id, user_id=user.user_id, username=user.username, edge_boot_id=self._boot_id
        )


class GrpcTraces:
    """TracesBackend over gRPC. Without a channel there is no metrics service, and there are no traces."""

    def __init__(self, channel: grpc.aio.Channel | None, *, timeout_s: float) -> None:
        self._stub = None if channel is None else metrics_pb2_grpc.MessageTraceServiceStub(channel)
        self._timeout_s = timeout_s

    async def own_message_trace(self, user: User, message_id: str) -> tuple[str, list[TracedSpan]]:
        """The trace of a message that this user has sent; empty where there is none."""
        if self._stub is None:
            raise ParleyError(ErrorCode.UNAVAILABLE, "traces are not kept here")
        request = metrics_pb2.FindOwnMessageTraceRequest(user_id=user.user_id, message_id=message_id)
        trace = (await _call(self._stub.FindOwnMessageTrace, request, self._timeout_s)).trace
        begin_ns = min((span.start_ns for span in trace.spans), default=0)
        return trace.trace_id, [
            TracedSpan(
                span_id=span.span_id,
                parent_id=span.parent_span_id,
                service=span.service,
                instance=span.instance,
                name=span.name,
                start_us=(span.start_ns - begin_ns) // 1_000,
                duration_us=(span.end_ns - span.start_ns) // 1_000,
                error=(span.status_message or "error") if span.is_error else "",
            )
            for span in trace.spans[:SPANS_SHOWN_MAX]
        ]


def _login(response: auth_pb2.LoginResponse | auth_pb2.ResumeResponse) -> Login:
    return Login(
        user_id=response.user_id,
        username=response.username,
        session_id=response.session_id,
        token=response.token,
        token_expires_at_ms=response.token_expires_at_ms,
        assertion=_assertion(response.assertion) if response.HasField("assertion") else Assertion(),
    )


def _assertion(assertion: auth_pb2.Assertion) -> Assertion:
    return Assertion(assertion.data, assertion.lifetime_s)


def file_data(file: rooms_pb2.File) -> dict[str, Any]:
    """The `file` of a message, as clients see it."""
    return {"file_id": file.file_id, "name": file.name, "size": file.size, "sha256": file.sha256, "mime": file.mime}


def _room(room: rooms_pb2.Room) -> Room:
    return Room(room.room_id, room.name, room.topic, room.role, room.epoch, room.last_seq)
