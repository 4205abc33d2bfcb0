"""Rooms over mutual TLS with assertions checked: an edge's identity alone speaks for nobody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from parley.rooms.v1 import feed_pb2, files_pb2, files_pb2_grpc, rooms_pb2

from services.common.assertions import METADATA_KEY, Claims, Signer
from services.common.clock import SystemClock
from tests.helpers import certificates, columns
from tests.helpers.served_rooms import Edge, refusal, serve_rooms, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.helpers.served_rooms import Feed, ServedRooms

SHA = "0" * 64


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedRooms]:
    keys = certificates.shared().assertion_keys
    async with serve_rooms(tmp_path, check_assertions=True, assertion_keys_file=keys.public) as served:
        yield served


class Auth:
    """Signs what auth would sign."""

    def __init__(self) -> None:
        self._signer = Signer(certificates.shared().assertion_keys.private, SystemClock())

    def assertion(self, edge: Edge, name: str, *, life_s: float = 900.0) -> bytes:
        session, now = edge.session(name), time.time()
        return self._signer.sign(
            Claims(
                session_id=session.session_id,
                user_id=session.user_id,
                username=name,
                edge=edge.name,
                boot_id=edge.boot_id,
                issued_at=now - 3_600,
                expires_at=now + life_s,
            )
        )


def calls(edge: Edge, name: str, metadata: Any) -> dict[str, Any]:
    """Every call that is for a person."""
    session, user = edge.session(name), user_id(name)
    rooms, files = edge.rooms, files_pb2_grpc.FileServiceStub(edge.channel)
    offer = files_pb2.OfferFileRequest(user_id=user, username=name, room="r", name="n", size=1, sha256=SHA)

    async def pieces() -> AsyncIterator[files_pb2.UploadRequest]:
        yield files_pb2.UploadRequest(begin=files_pb2.UploadBegin(user_id=user, file_id="0" * 32))

    async def first(stream: Any) -> None:
        async for _ in stream:
            return

    return {
        "OpenSession": lambda: rooms.OpenSession(rooms_pb2.OpenSessionRequest(session=session), metadata=metadata),
        "CreateRoom": lambda: rooms.CreateRoom(
            rooms_pb2.CreateRoomRequest(session=session, name="r"), metadata=metadata
        ),
        "JoinRoom": lambda: rooms.JoinRoom(rooms_pb2.JoinRoomRequest(session=session, room="r"), metadata=metadata),
        "LeaveRoom": lambda: rooms.LeaveRoom(rooms_pb2.LeaveRoomRequest(session=session, room="r"), metadata=metadata),
        "ListRooms": lambda: rooms.ListRooms(rooms_pb2.ListRoomsRequest(user_id=user), metadata=metadata),
        "ListMembers": lambda: rooms.ListMembers(
            rooms_pb2.ListMembersRequest(user_id=user, room="r"), metadata=metadata
        ),
        "ListMessages": lambda: rooms.ListMessages(
            rooms_pb2.ListMessagesRequest(user_id=user, room="r"), metadata=metadata
        ),
        "OfferFile": lambda: files.OfferFile(offer, metadata=metadata),
        "Upload": lambda: first(files.Upload(pieces(), metadata=metadata)),
        "Download": lambda: first(
            files.Download(files_pb2.DownloadRequest(user_id=user, file_id="0" * 32), metadata=metadata)
        ),
        "CancelFile": lambda: files.CancelFile(
            files_pb2.CancelFileRequest(user_id=user, file_id="0" * 32), metadata=metadata
        ),
        "ListFiles": lambda: files.ListFiles(
            files_pb2.ListFilesRequest(user_id=user, room="r", page_size=1), metadata=metadata
        ),
    }


async def refusals(edge: Edge, name: str, assertion: bytes | None) -> set[str]:
    metadata = () if assertion is None else ((METADATA_KEY, assertion),)
    return {await refusal(call()) for call in calls(edge, name, metadata).values()}


async def test_no_call_for_a_person_is_forgotten_here() -> None:
    services = (
        rooms_pb2.DESCRIPTOR.services_by_name["RoomsService"],
        files_pb2.DESCRIPTOR.services_by_name["FileService"],
    )
    every = {method.name for service in services for method in service.methods}
    nobodys = {"CloseSessions", "GetFileLimits"}
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    assert every - nobodys == calls(Edge("e", "b", channel), "amy", ()).keys()
    await channel.close()


async def test_an_edge_without_a_good_assertion_acts_for_nobody(served: ServedRooms) -> None:
    auth, edge, other = Auth(), await served.edge(), await served.edge("edge-2", "boot2")
    good = auth.assertion(edge, "amy")
    assert await refusals(edge, "amy", None) == {"not_authenticated"}
    assert await refusals(edge, "amy", b"nonsense") == {"not_authenticated"}
    assert await refusals(edge, "amy", good[:-1] + b"]") == {"not_authenticated"}  # forged
    assert await refusals(edge, "amy", auth.assertion(edge, "amy", life_s=-10)) == {"not_authenticated"}  # expired
    assert await refusals(edge, "amy", auth.assertion(edge, "bob")) == {"not_authenticated"}  # another person's
    metadata = ((METADATA_KEY, good),)
    for name in ("OpenSession", "CreateRoom", "JoinRoom", "LeaveRoom"):  # another edge's
        assert await refusal(calls(other, "amy", metadata)[name]()) == "not_authenticated"
    await calls(edge, "amy", metadata)["OpenSession"]()


async def test_what_everybody_may_see_needs_no_assertion(served: ServedRooms) -> None:
    auth, edge = Auth(), await served.edge()
    metadata = ((METADATA_KEY, auth.assertion(edge, "amy")),)
    for name, private in (("open", False), ("closed", True)):
        request = rooms_pb2.CreateRoomRequest(session=edge.session("amy"), name=name, private=private)
        await edge.rooms.CreateRoom(request, metadata=metadata)
    listed = (await edge.rooms.ListRooms(rooms_pb2.ListRoomsRequest())).rooms
    assert [(room.name, room.joined) for room in listed] == [("open", False)]


async def test_an_assertion_is_not_good_for_more_than_its_session(served: ServedRooms) -> None:
    auth, edge = Auth(), await served.edge()
    good = auth.assertion(edge, "amy")
    await calls(edge, "amy", ((METADATA_KEY, good),))["OpenSession"]()
    closing = rooms_pb2.CloseSessionsRequest(session_ids=[edge.session("amy").session_id])
    await edge.rooms.CloseSessions(closing)
    assert await refusals(edge, "amy", good) == {"not_authenticated"}  # replayed


async def said(feed: Feed, room: rooms_pb2.Room, name: str, number: int, *assertions: bytes) -> str:
    """What becomes of a text on a stream: the code with which it was refused, or `stored`."""
    row = columns.PublishRow(number, room.room_id, user_id(name), name, f"by {name}", f"k{number}{name}")
    await feed.call.write(feed_pb2.AttachRequest(publishes=columns.publishes(row), assertions=assertions))
    async for response in feed.call:
        if number in response.stored.numbers:
            return "stored"
        for result in response.results:
            if result.number == number:
                return result.error_code or "stored"
    raise AssertionError("the stream ended")


async def test_a_stream_speaks_for_those_whose_assertions_it_has_brought(served: ServedRooms) -> None:
    auth, edge, other = Auth(), await served.edge(), await served.edge("edge-2", "boot2")
    words = {name: auth.assertion(edge, name) for name in ("amy", "bob")}
    metadata = ((METADATA_KEY, words["amy"]),)
    room = (
        await edge.rooms.CreateRoom(
            rooms_pb2.CreateRoomRequest(session=edge.session("amy"), name="r"), metadata=metadata
        )
    ).room
    await edge.rooms.JoinRoom(
        rooms_pb2.JoinRoomRequest(session=edge.session("bob"), room="r"), metadata=((METADATA_KEY, words["bob"]),)
    )
    async with edge.attach(reads=False) as feed:
        assert await said(feed, room, "amy", 1) == "not_authenticated"
        assert await said(feed, room, "amy", 2, words["amy"]) == "stored"
        assert await said(feed, room, "amy", 3) == "stored"  # once for the stream
        assert await said(feed, room, "bob", 4) == "not_authenticated"
        assert await said(feed, room, "bob", 5, b"nonsense", words["bob"]) == "stored"
        words["eve"] = auth.assertion(edge, "eve")
        expired, foreign = auth.assertion(edge, "eve", life_s=-10), auth.assertion(other, "eve")
        for bad in (expired, foreign, words["eve"][:-3] + b"00}", words["amy"]):
            assert await said(feed, room, "eve", 6, bad) == "not_authenticated"
        assert await said(feed, room, "eve", 7, words["eve"]) == "not_a_member"  # believed, but not in
    async with edge.attach(reads=False) as feed:  # what was proved on one stream is not proved on another
        assert await said(feed, room, "amy", 8) == "not_authenticated"
    async with other.attach(reads=False) as feed:
        assert await said(feed, room, "amy", 9, words["amy"]) == "not_authenticated"
        room_log = rooms_pb2.ListMessagesRequest(user_id=user_id("amy"), room=room.room_id)
        stored = (await edge.rooms.ListMessages(room_log, metadata=metadata)).messages
    assert [message.text for message in stored] == ["by amy", "by amy", "by bob"]


async def test_nobody_is_announced_without_an_assertion(served: ServedRooms) -> None:
    auth, edge, other = Auth(), await served.edge(), await served.edge("edge-2", "boot2")

    def metadata(edge: Edge, name: str) -> Any:
        return ((METADATA_KEY, auth.assertion(edge, name)),)

    made = rooms_pb2.CreateRoomRequest(session=edge.session("amy"), name="r")
    room = (await edge.rooms.CreateRoom(made, metadata=metadata(edge, "amy"))).room
    joining = rooms_pb2.JoinRoomRequest(session=other.session("bob"), room="r")
    await other.rooms.JoinRoom(joining, metadata=metadata(other, "bob"))
    await other.rooms.CloseSessions(rooms_pb2.CloseSessionsRequest(session_ids=[other.session("bob").session_id]))

    async def is_online(name: str) -> bool:
        request = rooms_pb2.ListMembersRequest(user_id=user_id("amy"), room=room.room_id)
        members = (await edge.rooms.ListMembers(request, metadata=metadata(edge, "amy"))).members
        return {member.username: member.online for member in members}[name]

    def presence(assertion: bytes) -> feed_pb2.SessionPresence:
        session = edge.session("bob")
        session.assertion = assertion
        return feed_pb2.SessionPresence(session=session, room_ids=[room.room_id])

    good = auth.assertion(edge, "bob")
    for assertion in (b"", b"nonsense", auth.assertion(other, "bob"), auth.assertion(edge, "amy"), good):
        async with edge.attach(sessions=[presence(assertion)], reads=False) as feed:
            await feed.call.read()  # the stream is in place
            assert await is_online("bob") is (assertion == good)


async def test_many_assertions_on_a_stream_hold_nobody_up(served: ServedRooms) -> None:
    """An edge that comes back announces everyone: verifying is spread over the turns of the event loop."""
    auth, edge = Auth(), await served.edge()
    sessions = []
    for number in range(400):
        session = edge.session(f"p{number}")
        session.assertion = auth.assertion(edge, f"p{number}")
        sessions.append(feed_pb2.SessionPresence(session=session))
    async with edge.attach(sessions=sessions, reads=False) as feed:
        assert isinstance(await feed.call.read(), feed_pb2.AttachResponse)
