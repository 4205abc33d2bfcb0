"""Every RPC about rooms and members, over mutual TLS, in every state that it can meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

from tests.helpers.served_rooms import Edge, ServedRooms, refusal, serve_rooms, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedRooms]:
    # Whose edge has no stream is here for the grace period: longer than any of these tests takes.
    async with serve_rooms(tmp_path, rooms_per_owner_max=5, rooms_per_member_max=6, presence_grace_s=60.0) as made:
        yield made


@pytest.fixture
async def edge(served: ServedRooms) -> Edge:
    return await served.edge()


async def members(edge: Edge, name: str, room: str) -> list[tuple[str, str, bool]]:
    request = rooms_pb2.ListMembersRequest(user_id=user_id(name), room=room)
    return [(m.username, m.role, m.online) for m in (await edge.rooms.ListMembers(request)).members]


async def test_a_rooms_life(edge: Edge) -> None:
    room = await edge.create("alice", " Tea ", topic="Darjeeling")
    assert (room.name, room.topic, room.role, room.last_seq) == ("Tea", "Darjeeling", "owner", 0)
    assert 8 <= len(room.room_id) <= 16
    assert 4 <= len(room.epoch) <= 8
    joined = await edge.join("bob", "TEA")
    assert (joined.room_id, joined.role, joined.epoch) == (room.room_id, "member", room.epoch)
    assert await edge.join("bob", room.room_id[:5]) == joined
    assert (await edge.join("alice", "tea")).role == "owner"
    assert await members(edge, "bob", "tea") == [("alice", "owner", True), ("bob", "member", True)]
    assert await edge.leave("alice", room.room_id) == room.room_id
    assert await members(edge, "bob", "tea") == [("bob", "owner", True)]
    await edge.leave("bob", "tea")
    assert (await edge.join("carol", "tea")).role == "owner"


async def test_sessions(edge: Edge) -> None:
    await edge.create("alice", "one")
    await edge.create("alice", "two", private=True)
    again = Edge("edge-2", "boot2", edge.channel)
    await edge.rooms.CloseSessions(rooms_pb2.CloseSessionsRequest(session_ids=[edge.session("alice").session_id, "x"]))
    assert await members(edge, "alice", "one") == [("alice", "owner", False)]
    assert [room.name for room in await again.open("alice", enter_rooms=False)] == ["one", "two"]
    assert await members(edge, "alice", "one") == [("alice", "owner", False)]
    for _ in range(2):
        assert [room.role for room in await again.open("alice")] == ["owner", "owner"]
    assert await members(edge, "alice", "one") == [("alice", "owner", True)]
    assert await edge.open("nobody") == []
    too_many = rooms_pb2.CloseSessionsRequest(session_ids=[str(n) for n in range(50_001)])
    assert await refusal(edge.rooms.CloseSessions(too_many)) == "bad_request"


async def test_an_exclusive_session_sits_in_one_room(edge: Edge) -> None:
    await edge.create("alice", "one")
    await edge.create("alice", "two", exclusive=True)
    assert await members(edge, "alice", "one") == [("alice", "owner", False)]
    assert await members(edge, "alice", "two") == [("alice", "owner", True)]
    await edge.join("alice", "one", exclusive=True)
    assert await members(edge, "alice", "one") == [("alice", "owner", True)]
    assert await members(edge, "alice", "two") == [("alice", "owner", False)]


@pytest.mark.parametrize(
    ("name", "topic", "code"),
    [
        ("", "", "bad_room_name"),
        ("x" * 65, "", "bad_room_name"),
        ("a\x07b", "", "bad_room_name"),
        ("a\u202eb", "", "bad_room_name"),
        ("TEA", "", "room_exists"),
        ("ok", "x" * 257, "bad_request"),
        ("ok", "two\nlines", "bad_request"),
    ],
)
async def test_what_makes_no_room(edge: Edge, name: str, topic: str, code: str) -> None:
    await edge.create("alice", "tea")
    assert await refusal(edge.create("bob", name, topic=topic)) == code


async def test_quotas(edge: Edge) -> None:
    for n in range(5):
        await edge.create("alice", f"room {n}")
    assert await refusal(edge.create("alice", "one more")) == "quota_exceeded"
    for n in range(2):
        await edge.create("bob", f"other {n}")
    await edge.join("alice", "other 0")
    assert await refusal(edge.join("alice", "other 1")) == "quota_exceeded"
    await edge.leave("alice", "room 0")
    await edge.join("alice", "other 1")


@pytest.mark.parametrize("missing", ["session_id", "user_id", "username", "edge_boot_id"])
async def test_a_session_must_be_whole(edge: Edge, missing: str) -> None:
    session = edge.session("alice")
    for value in ("", "x" * 65):
        setattr(session, missing, value)
        calls: list[Any] = [
            edge.rooms.OpenSession(rooms_pb2.OpenSessionRequest(session=session)),
            edge.rooms.CreateRoom(rooms_pb2.CreateRoomRequest(session=session, name="x")),
            edge.rooms.JoinRoom(rooms_pb2.JoinRoomRequest(session=session, room="x")),
            edge.rooms.LeaveRoom(rooms_pb2.LeaveRoomRequest(session=session, room="x")),
        ]
        assert [await refusal(call) for call in calls] == ["bad_request"] * 4


def about(edge: Edge, name: str, room: str) -> dict[str, Any]:
    """A call of everything that is about one room."""
    user = user_id(name)
    return {
        "leave": edge.rooms.LeaveRoom(rooms_pb2.LeaveRoomRequest(session=edge.session(name), room=room)),
        "members": edge.rooms.ListMembers(rooms_pb2.ListMembersRequest(user_id=user, room=room)),
        "messages": edge.rooms.ListMessages(rooms_pb2.ListMessagesRequest(user_id=user, room=room)),
    }


@pytest.mark.parametrize("reference", ["", "x" * 257])
async def test_what_cannot_be_a_reference(edge: Edge, reference: str) -> None:
    calls = [*about(edge, "bob", reference).values(), edge.join("bob", reference)]
    assert [await refusal(call) for call in calls] == ["bad_request"] * 4


async def test_strangers_and_nowhere(edge: Edge) -> None:
    await edge.create("alice", "tea")
    assert {await refusal(call) for call in about(edge, "bob", "tea").values()} == {"not_a_member"}
    for reference in ("nowhere", "abcdefghijkl", "te", "abcd", "\ud7ff", "%"):
        calls = [*about(edge, "bob", reference).values(), edge.join("bob", reference)]
        assert {await refusal(call) for call in calls} == {"no_such_room"}


async def test_a_private_room_is_not_there_for_others(served: ServedRooms, edge: Edge) -> None:
    room = await edge.create("alice", "secret", private=True)
    for reference in ("secret", "SECRET", room.room_id, room.room_id[:6]):
        calls = [*about(edge, "bob", reference).values(), edge.join("bob", reference)]
        assert {await refusal(call) for call in calls} == {"no_such_room"}
    listed = await edge.rooms.ListRooms(rooms_pb2.ListRoomsRequest(user_id=user_id("bob")))
    assert list(listed.rooms) == []
    mine = await edge.rooms.ListRooms(rooms_pb2.ListRoomsRequest(user_id=user_id("alice")))
    assert [(one.name, one.private, one.joined) for one in mine.rooms] == [("secret", True, True)]
    admin = await served.admin()
    everything = await admin.ListAllRooms(rooms_pb2.ListAllRoomsRequest())
    assert [one.room_id for one in everything.rooms] == [room.room_id]
    async with edge.attach() as feed:
        stranger, owner = await feed.say("bob", room.room_id, "knock"), await feed.say("alice", room.room_id, "x")
        assert (stranger[0].error_code, owner[0].error_code) == ("no_such_room", "")


async def test_listing_rooms(edge: Edge) -> None:
    for name in ("Delta", "alpha", "Charlie", "bravo"):
        await edge.create("alice", name, topic=f"about {name}")
    await edge.join("bob", "alpha")
    names: list[str] = []
    token = ""
    for _ in range(9):
        request = rooms_pb2.ListRoomsRequest(user_id=user_id("bob"), page_size=3, page_token=token)
        page = await edge.rooms.ListRooms(request)
        names += [room.name for room in page.rooms]
        token = page.next_page_token
        if not token:
            break
    assert names == ["alpha", "bravo", "Charlie", "Delta"]
    found = await edge.rooms.ListRooms(rooms_pb2.ListRoomsRequest(user_id=user_id("bob"), query="ALPH"))
    room = found.rooms[0]
    assert (room.name, room.topic, room.user_count, room.member_count) == ("alpha", "about alpha", 2, 2)
    assert room.joined
    assert room.created_at_ms > 1_600_000_000_000


@pytest.mark.parametrize(
    "options", [{"page_size": -1}, {"page_size": 201}, {"page_token": "nonsense"}, {"query": "x" * 257}]
)
async def test_bad_pages_of_rooms(edge: Edge, options: dict[str, Any]) -> None:
    request = rooms_pb2.ListRoomsRequest(user_id=user_id("bob"), **options)
    assert await refusal(edge.rooms.ListRooms(request)) == "bad_request"


async def history(edge: Edge, **options: Any) -> rooms_pb2.ListMessagesResponse:
    return await edge.rooms.ListMessages(rooms_pb2.ListMessagesRequest(user_id=user_id("alice"), room="tea", **options))


async def test_history(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    empty = await history(edge)
    assert (empty.first_seq, empty.last_seq, empty.more, list(empty.messages)) == (0, 0, False, [])
    async with edge.attach() as feed:
        results = await feed.say("alice", room.room_id, *(f"text {n}" for n in range(1, 61)))
    newest = await history(edge)
    assert [m.seq for m in newest.messages] == list(range(11, 61))
    assert (newest.room_id, newest.epoch) == (room.room_id, room.epoch)
    assert (newest.first_seq, newest.last_seq, newest.more) == (1, 60, True)
    first = newest.messages[0]
    assert (first.user_id, first.username, first.text) == (user_id("alice"), "alice", "text 11")
    assert first.sent_at_ms == results[10].sent_at_ms
    older = await history(edge, before_seq=11, page_size=200)
    assert ([m.seq for m in older.messages], older.more) == (list(range(1, 11)), False)
    after = await history(edge, after_seq=0, page_size=3)
    assert ([m.seq for m in after.messages], after.more) == ([1, 2, 3], True)
    assert (await history(edge, after_seq=60)).more is False


@pytest.mark.parametrize(
    "options", [{"page_size": 201}, {"page_size": -1}, {"after_seq": -1}, {"before_seq": -1}, {"before_seq": -(2**63)}]
)
async def test_bad_pages_of_history(edge: Edge, options: dict[str, int]) -> None:
    await edge.create("alice", "tea")
    assert await refusal(history(edge, **options)) == "bad_request"
    assert list((await history(edge, before_seq=2**63 - 1)).messages) == []


async def test_the_longest_page_of_history_fits_into_one_message(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        for _ in range(10):
            await feed.say("alice", room.room_id, *["\U0001f600" * 4_000] * 20)
    page = await history(edge, page_size=200)
    assert len(page.messages) == 200


async def test_operators(served: ServedRooms, edge: Edge) -> None:
    admin = await served.admin()
    room = await edge.create("alice", "tea")
    await edge.create("alice", "secret", private=True)
    await edge.join("bob", "tea")
    page = await admin.ListAllRooms(rooms_pb2.ListAllRoomsRequest(page_size=1))
    rest = await admin.ListAllRooms(rooms_pb2.ListAllRoomsRequest(page_token=page.next_page_token))
    assert [one.name for one in [*page.rooms, *rest.rooms]] == ["secret", "tea"]
    assert [one.member_count for one in rest.rooms] == [2]
    for options in ({"page_size": 1_001}, {"page_token": "x"}):
        assert await refusal(admin.ListAllRooms(rooms_pb2.ListAllRoomsRequest(**options))) == "bad_request"
    await admin.RemoveMember(rooms_pb2.RemoveMemberRequest(room=room.room_id, username="alice"))
    assert await members(edge, "bob", "tea") == [("bob", "owner", True)]
    for name, where, code in (
        ("alice", "tea", "not_a_member"),
        ("bob", "nowhere", "no_such_room"),
        ("b", "", "bad_request"),
    ):
        request = rooms_pb2.RemoveMemberRequest(room=where, username=name)
        assert await refusal(admin.RemoveMember(request)) == code


async def test_who_may_ask(served: ServedRooms) -> None:
    for identity in ("auth", "metrics", "rooms", "admin/alice"):
        stub = rooms_pb2_grpc.RoomsServiceStub(await served.channel(identity))
        assert await refusal(stub.ListRooms(rooms_pb2.ListRoomsRequest())) == "forbidden"
    stub = rooms_pb2_grpc.RoomsAdminServiceStub(await served.channel("edge"))
    assert await refusal(stub.ListAllRooms(rooms_pb2.ListAllRoomsRequest())) == "forbidden"


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path) as served:
        edge = await served.edge()
        room = await edge.create("alice", "tea", topic="hot")
        async with edge.attach() as feed:
            await feed.say("alice", room.room_id, "first", keys=["ck"])
    async with serve_rooms(tmp_path) as served:
        edge = await served.edge(boot_id="boot2")
        found = await edge.open("alice")
        assert [(one.room_id, one.epoch, one.last_seq, one.topic) for one in found] == [
            (room.room_id, room.epoch, 1, "hot")
        ]
        async with edge.attach() as feed:
            again, more = await feed.say("alice", room.room_id, "first", "second", keys=["ck", "ck2"])
            assert (again.seq, again.duplicate, more.seq) == (1, True, 2)
