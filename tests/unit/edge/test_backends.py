"""The ports over gRPC, against servicers that write down what they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from parley.auth.v1 import auth_pb2, auth_pb2_grpc
from parley.rooms.v1 import feed_pb2, feed_pb2_grpc, rooms_pb2, rooms_pb2_grpc

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import History
from services.edge.backends import AUTH_IDEMPOTENT, ROOMS_IDEMPOTENT, GrpcAuth, GrpcRooms
from services.edge.decisions import User, Voucher
from services.edge.ports import Assertion, Login, Member, Revocation, Room
from tests.helpers import columns, rpc

AMY = User("u1", "amy", "s1", 0.0)
SESSION = rooms_pb2.Session(session_id="s1", user_id="u1", username="amy", edge_boot_id="b007")
EDGE = auth_pb2.EdgeBoot(name="edge-1", boot_id="b007")


class Recorder:
    """Answers each RPC with what was prepared, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answer: Any = None

    async def _take(self, request: Any, _: Any = None) -> Any:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    Register = Login = Resume = Logout = EndSessions = RenewLease = RenewAssertions = _take
    OpenSession = CloseSessions = CreateRoom = JoinRoom = LeaveRoom = ListRooms = ListMembers = ListMessages = _take

    async def WatchRevocations(self, request: Any, _: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        yield auth_pb2.WatchRevocationsResponse()
        yield auth_pb2.WatchRevocationsResponse(revocations=[auth_pb2.Revocation(session_id="s1", reason="replaced")])
        raise ParleyError(ErrorCode.UNAVAILABLE, "over")

    async def Attach(self, requests: Any, _: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            self.requests.append(request)
            yield feed_pb2.AttachResponse(
                results=[feed_pb2.PublishResult(number=one.number) for one in columns.publish_rows(request.publishes)]
            )


@asynccontextmanager
async def auth() -> AsyncIterator[tuple[GrpcAuth, Recorder]]:
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            rpc.serve(
                {"parley.auth.v1.AuthService": {"edge"}},
                lambda s: auth_pb2_grpc.add_AuthServiceServicer_to_server(recorder, s),  # type: ignore[arg-type]
            )
        )
        channel = await stack.enter_async_context(rpc.channel(server, idempotent_methods=AUTH_IDEMPOTENT))
        yield GrpcAuth(channel, edge_name="edge-1", boot_id="b007", timeout_s=10, login_timeout_s=10), recorder


@asynccontextmanager
async def rooms() -> AsyncIterator[tuple[GrpcRooms, Recorder]]:
    recorder = Recorder()

    def add(server: grpc.aio.Server) -> None:
        rooms_pb2_grpc.add_RoomsServiceServicer_to_server(recorder, server)  # type: ignore[arg-type]
        feed_pb2_grpc.add_RoomFeedServiceServicer_to_server(recorder, server)  # type: ignore[arg-type]

    allow = {"parley.rooms.v1.RoomsService": {"edge"}, "parley.rooms.v1.RoomFeedService": {"edge"}}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(rpc.serve(allow, add, service="rooms"))
        channel = await stack.enter_async_context(
            rpc.channel(server, service="rooms", idempotent_methods=ROOMS_IDEMPOTENT)
        )
        yield GrpcRooms(channel, boot_id="b007", timeout_s=10), recorder


async def test_accounts_and_sessions() -> None:
    async with auth() as (backend, recorder):
        recorder.answer = auth_pb2.RegisterResponse(user_id="u1", username="amy")
        assert await backend.register("Amy", "secret", address="192.0.2.1") == "u1"
        recorder.answer = auth_pb2.LoginResponse(
            user_id="u1",
            username="amy",
            session_id="s1",
            token="t",
            token_expires_at_ms=5,
            assertion=auth_pb2.Assertion(data=b"word", lifetime_s=900),
        )
        login = await backend.login("Amy", "secret", address="192.0.2.1", device="laptop", takeover=True)
        assert login == Login(
            user_id="u1",
            username="amy",
            session_id="s1",
            token="t",
            token_expires_at_ms=5,
            assertion=Assertion(b"word", 900.0),
        )
        recorder.answer = auth_pb2.ResumeResponse(
            user_id="u1", username="amy", session_id="s2", token="t2", token_expires_at_ms=6
        )
        resumed = await backend.resume("t", address="192.0.2.1")
        assert resumed == Login(user_id="u1", username="amy", session_id="s2", token="t2", token_expires_at_ms=6)
        recorder.answer = auth_pb2.LogoutResponse()
        await backend.logout("s1")
        recorder.answer = auth_pb2.EndSessionsResponse()
        await backend.end_sessions(["s1", "s2"])
        recorder.answer = auth_pb2.RenewLeaseResponse(lease_s=15, ended_session_ids=["s2"])
        assert await backend.renew_lease(["s1", "s2"]) == (15.0, ["s2"])
        recorder.answer = auth_pb2.RenewAssertionsResponse(
            assertions=[auth_pb2.Assertion(data=b"new", lifetime_s=900), auth_pb2.Assertion(lifetime_s=900)]
        )
        assert await backend.renew_assertions([b"one", b"two"]) == [Assertion(b"new", 900.0), Assertion(b"", 900.0)]
        assert recorder.requests.pop() == auth_pb2.RenewAssertionsRequest(
            edge=auth_pb2.EdgeBoot(name="edge-1", boot_id="b007"), assertions=[b"one", b"two"]
        )
        assert recorder.requests == [
            auth_pb2.RegisterRequest(username="Amy", password="secret", address="192.0.2.1"),
            auth_pb2.LoginRequest(
                username="Amy", password="secret", address="192.0.2.1", device="laptop", edge=EDGE, takeover=True
            ),
            auth_pb2.ResumeRequest(token="t", address="192.0.2.1", edge=EDGE),
            auth_pb2.LogoutRequest(session_id="s1"),
            auth_pb2.EndSessionsRequest(session_ids=["s1", "s2"]),
            auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=["s1", "s2"]),
        ]


async def test_a_refusal_keeps_its_code_time_and_details() -> None:
    async with auth() as (backend, recorder):
        recorder.answer = ParleyError(
            ErrorCode.ALREADY_LOGGED_IN, "elsewhere", retry_after_s=2.0, details={"since-ms": "5"}
        )
        with pytest.raises(ParleyError) as caught:
            await backend.login("amy", "secret", address="", device="", takeover=False)
        assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.ALREADY_LOGGED_IN, 2.0)
        assert caught.value.details == {"since-ms": "5"}


async def test_revocations() -> None:
    async with auth() as (backend, recorder), aclosing(backend.watch_revocations()) as watch:
        assert await anext(watch) == []
        assert await anext(watch) == [Revocation("s1", "replaced")]
        with pytest.raises(ParleyError, match="over"):
            await anext(watch)
        assert recorder.requests == [auth_pb2.WatchRevocationsRequest(edge=EDGE)]


ROOM = rooms_pb2.Room(room_id="room0001", name="lobby", topic="t", role="owner", epoch="e001", last_seq=7)
LOBBY = Room("room0001", "lobby", "t", "owner", "e001", 7)


async def test_rooms() -> None:
    async with rooms() as (backend, recorder):
        recorder.answer = rooms_pb2.OpenSessionResponse(rooms=[ROOM])
        assert await backend.open_session(AMY, enter_rooms=True) == [LOBBY]
        recorder.answer = rooms_pb2.CreateRoomResponse(room=ROOM)
        assert await backend.create_room(AMY, name="lobby", topic="t", private=True, exclusive=False) == LOBBY
        recorder.answer = rooms_pb2.JoinRoomResponse(room=ROOM)
        assert await backend.join_room(AMY, "lob", exclusive=True) == LOBBY
        recorder.answer = rooms_pb2.LeaveRoomResponse(room_id="room0001")
        assert await backend.leave_room(AMY, "lobby") == "room0001"
        recorder.answer = rooms_pb2.CloseSessionsResponse()
        await backend.close_sessions(["s1"])
        assert recorder.requests == [
            rooms_pb2.OpenSessionRequest(session=SESSION, enter_rooms=True),
            rooms_pb2.CreateRoomRequest(session=SESSION, name="lobby", topic="t", private=True),
            rooms_pb2.JoinRoomRequest(session=SESSION, room="lob", exclusive=True),
            rooms_pb2.LeaveRoomRequest(session=SESSION, room="lobby"),
            rooms_pb2.CloseSessionsRequest(session_ids=["s1"]),
        ]


async def test_lists() -> None:
    async with rooms() as (backend, recorder):
        summary = rooms_pb2.RoomSummary(
            room_id="room0001", name="lobby", topic="t", user_count=1, member_count=2, created_at_ms=1_500, joined=True
        )
        recorder.answer = rooms_pb2.ListRoomsResponse(rooms=[summary], next_page_token="n")
        page, cursor = await backend.list_rooms(AMY, query="lob", limit=5, cursor="c")
        assert (page[0].id, page[0].created, page[0].joined, cursor) == (
            "room0001",
            "1970-01-01T00:00:01.500+00:00",
            True,
            "n",
        )
        member = rooms_pb2.Member(username="amy", role="owner", online=True)
        recorder.answer = rooms_pb2.ListMembersResponse(room_id="room0001", members=[member])
        assert await backend.list_members(AMY, "lobby") == ("room0001", [Member("amy", "owner", True)])
        assert recorder.requests == [
            rooms_pb2.ListRoomsRequest(user_id="u1", query="lob", page_size=5, page_token="c"),
            rooms_pb2.ListMembersRequest(user_id="u1", room="lobby"),
        ]


@pytest.mark.parametrize(
    ("position", "expected"),
    [({"after": 0}, {"after_seq": 0}), ({"before": 9}, {"before_seq": 9}), ({}, {})],
)
async def test_history_begins_where_it_is_asked_to(position: dict[str, int], expected: dict[str, int]) -> None:
    async with rooms() as (backend, recorder):
        message = rooms_pb2.Message(seq=3, user_id="u1", username="amy", text="hi", sent_at_ms=9)
        recorder.answer = rooms_pb2.ListMessagesResponse(
            room_id="room0001", epoch="e001", messages=[message], first_seq=1, last_seq=8, more=True
        )
        page = await backend.list_messages(AMY, History("lobby", limit=4, **position))
        assert (page.room_id, page.epoch, page.first_seq, page.last_seq, page.more) == ("room0001", "e001", 1, 8, True)
        assert [(one.seq, one.username, one.text, one.ts) for one in page.messages] == [(3, "amy", "hi", 9)]
        request = rooms_pb2.ListMessagesRequest(user_id="u1", room="lobby", page_size=4, **expected)  # type: ignore[arg-type]
        assert recorder.requests == [request]
        assert recorder.requests[0].WhichOneof("position") == next(iter(expected), None)


async def test_the_feeds_stream() -> None:
    async with rooms() as (backend, recorder):
        stream = backend.open_stream()
        try:
            await stream.write(feed_pb2.AttachRequest(publishes=columns.publishes(columns.PublishRow(4))))
            response = await stream.read()
            assert [result.number for result in response.results] == [4]
        finally:
            stream.cancel()
        assert len(recorder.requests) == 1


async def test_nobody_there_is_unavailable() -> None:
    async with rpc.channel("127.0.0.1:1") as channel:
        backend = GrpcAuth(channel, edge_name="edge-1", boot_id="b007", timeout_s=10, login_timeout_s=10)
        with pytest.raises(ParleyError) as caught:
            await backend.register("amy", "secret", address="")
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert "status" in caught.value.details


async def test_a_call_that_rooms_does_not_believe_may_be_made_again_soon() -> None:
    async with rooms() as (backend, recorder):
        recorder.answer = ParleyError(ErrorCode.NOT_AUTHENTICATED, "the session's assertion has expired")
        user = User("u1", "amy", "s1", 0.0, Voucher(b"word", renew_at=100.0))
        with pytest.raises(ParleyError) as caught:
            await backend.join_room(user, "lobby", exclusive=False)
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert caught.value.retry_after_s
        assert user.voucher.renew_at == float("-inf")
