"""What `parley admin rooms` asks of rooms and edges."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest
from parley.edge.v1 import edge_pb2
from parley.rooms.v1 import rooms_pb2

from client.admin.failures import AdminError
from tests.unit.client.admin.test_program import Operator

ROOM = rooms_pb2.RoomSummary(room_id="room00000000", name="lobby\x1b[31m", member_count=3)


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.close()


def shown(operator: Operator) -> rooms_pb2.GetRoomRequest:
    found = rooms_pb2.GetRoomResponse(room=ROOM, last_seq=42, file_count=2, owner="ada")
    request: rooms_pb2.GetRoomRequest = operator.serve("RoomsAdminService", "GetRoom", found)
    return request


def told(operator: Operator, *, text: str) -> None:
    """Both edges are asked to tell those who are in the room."""
    for edge in ("edge-1", "edge-2"):
        response = edge_pb2.SendNoticeResponse(recipient_count=2)
        request = operator.serve("EdgeAdminService", "SendNotice", response, process=edge)
        assert request == edge_pb2.SendNoticeRequest(text=text, room_id=ROOM.room_id)


def test_a_room_is_shown_and_sanitised(operator: Operator) -> None:
    running = operator.start("rooms", "show", "lob")
    assert shown(operator).room == "lob"
    written = running.result(10)
    assert "\x1b" not in written
    assert "ada" in written


def test_members_are_listed_in_pages(operator: Operator) -> None:
    running = operator.start("--json", "rooms", "members", "lobby")
    member = rooms_pb2.RoomMember(username="ada", role="owner")
    first = rooms_pb2.ListRoomMembersResponse(members=[member], next_page_token="ada")
    operator.serve("RoomsAdminService", "ListRoomMembers", first)
    last = rooms_pb2.ListRoomMembersResponse(members=[rooms_pb2.RoomMember(username="bob")])
    request = operator.serve("RoomsAdminService", "ListRoomMembers", last)
    assert request.page_token == "ada"
    assert [row["username"] for row in json.loads(running.result(10))] == ["ada", "bob"]


def test_closing_is_asked_about_and_told(operator: Operator) -> None:
    operator.answer = "yes"
    running = operator.start("rooms", "close", "lobby", "--reason", "Later.")
    response = rooms_pb2.SetRoomClosedResponse(room=ROOM)
    request = operator.serve("RoomsAdminService", "SetRoomClosed", response)
    assert request == rooms_pb2.SetRoomClosedRequest(room="lobby", closed=True)
    told(operator, text="This room is closed. Later.")
    assert "is closed" in running.result(10)
    assert "Close the room lobby" in operator.questions[0]


def test_opening_is_told(operator: Operator) -> None:
    running = operator.start("rooms", "open", "lobby")
    request = operator.serve("RoomsAdminService", "SetRoomClosed", rooms_pb2.SetRoomClosedResponse(room=ROOM))
    assert request == rooms_pb2.SetRoomClosedRequest(room="lobby")
    told(operator, text="This room is open again.")
    assert "is open" in running.result(10)


def test_what_a_deletion_takes_away_is_said_before_it_is_done(operator: Operator) -> None:
    operator.answer = "no"
    running = operator.start("rooms", "delete", "lobby")
    shown(operator)
    with pytest.raises(AdminError, match="Nothing was done"):
        running.result(10)
    for part in ("room00000000", "42 messages", "2 files", "3 members"):
        assert part in operator.questions[0]


def test_what_is_deleted_is_what_was_shown(operator: Operator) -> None:
    running = operator.start("rooms", "delete", "lobby", "--yes")
    shown(operator)
    response = rooms_pb2.DeleteRoomResponse(room_id=ROOM.room_id, name="lobby")
    assert operator.serve("RoomsAdminService", "DeleteRoom", response).room == ROOM.room_id
    assert running.result(10) == "The room lobby is gone.\n"


def test_an_announcement_goes_to_every_edge(operator: Operator) -> None:
    running = operator.start("--json", "rooms", "announce", "lobby", "cake")
    shown(operator)
    told(operator, text="cake")
    assert json.loads(running.result(10))["recipient_count"] == 4


def test_a_room_that_is_not_there_is_said(operator: Operator) -> None:
    running = operator.start("rooms", "show", "nowhere")
    operator.serve(
        "RoomsAdminService",
        "GetRoom",
        status=grpc.StatusCode.NOT_FOUND,
        details="there is no such room",
        metadata=(("parley-code", "no_such_room"),),
    )
    with pytest.raises(AdminError) as caught:
        running.result(10)
    assert caught.value.code == "no_such_room"
