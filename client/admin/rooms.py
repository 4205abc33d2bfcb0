"""`parley admin rooms`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import TypeVar

import grpc
from parley.edge.v1 import edge_pb2, edge_pb2_grpc
from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_each, ask_one
from client.admin.pages import read_all
from client.admin.report import Context, Row, as_dict, moment

T = TypeVar("T")

COLUMNS = {
    "ID": "room_id",
    "NAME": "name",
    "ONLINE": "user_count",
    "MEMBERS": "member_count",
    "CREATED": "created_at_ms",
    "PRIVATE": "private",
    "CLOSED": "closed",
    "TOPIC": "topic",
}

MEMBER_COLUMNS = {"NAME": "username", "ROLE": "role", "ONLINE": "online", "JOINED": "joined_at_ms", "ID": "user_id"}


def list_rooms(context: Context, arguments: Namespace) -> None:
    """Lists all rooms, private ones too."""

    def read(stub: rooms_pb2_grpc.RoomsAdminServiceStub) -> list[Row]:
        def fetch(size: int, token: str) -> rooms_pb2.ListAllRoomsResponse:
            request = rooms_pb2.ListAllRoomsRequest(query=arguments.query or "", page_size=size, page_token=token)
            return stub.ListAllRooms(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.rooms, limit=arguments.limit)

    rows = _ask(context, read)
    for row in rows:
        del row["joined"]  # means something to a user only
    context.write_rows(rows, COLUMNS)


def show(context: Context, arguments: Namespace) -> None:
    """Shows one room."""
    response = _get(context, arguments.room)
    values = {**as_dict(response.room), **as_dict(response)}
    del values["room"], values["joined"]
    if not context.as_json:
        values = {key: moment(value) if key.endswith("_at_ms") else value for key, value in values.items()}
    context.write_values(values)


def list_members(context: Context, arguments: Namespace) -> None:
    """Lists the members of a room by name."""

    def read(stub: rooms_pb2_grpc.RoomsAdminServiceStub) -> list[Row]:
        def fetch(size: int, token: str) -> rooms_pb2.ListRoomMembersResponse:
            request = rooms_pb2.ListRoomMembersRequest(room=arguments.room, page_size=size, page_token=token)
            return stub.ListRoomMembers(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.members, limit=arguments.limit)

    context.write_rows(_ask(context, read), MEMBER_COLUMNS)


def remove_member(context: Context, arguments: Namespace) -> None:
    """Removes a member from a room at once."""
    context.confirm(f"Remove {arguments.user} from the room {arguments.room}?")
    request = rooms_pb2.RemoveMemberRequest(room=arguments.room, username=arguments.user)
    _ask(context, lambda stub: stub.RemoveMember(request, timeout=CALL_TIMEOUT_S))
    context.write_done(f"{arguments.user} is no longer in the room {arguments.room}.")


def close(context: Context, arguments: Namespace) -> None:
    """Closes a room: nobody sends and nobody new comes in; those who are in it are told."""
    context.confirm(f"Close the room {arguments.room}?")
    room = _set_closed(context, arguments.room, is_closed=True)
    _announce(context, room.room_id, f"This room is closed. {arguments.reason}".strip())
    context.write_done(f"The room {room.name} is closed.", as_dict(room))


def reopen(context: Context, arguments: Namespace) -> None:
    """Opens a room that was closed; those who are in it are told."""
    room = _set_closed(context, arguments.room, is_closed=False)
    _announce(context, room.room_id, "This room is open again.")
    context.write_done(f"The room {room.name} is open.", as_dict(room))


def delete(context: Context, arguments: Namespace) -> None:
    """Deletes a room for ever, with all its messages and files."""
    found = _get(context, arguments.room)
    room = found.room
    context.confirm(
        f"Delete the room {room.name} ({room.room_id}) with {found.last_seq} messages, {found.file_count} files and "
        f"{room.member_count} members for ever?"
    )
    request = rooms_pb2.DeleteRoomRequest(room=room.room_id)  # what was shown, whatever its name means by now
    deleted = _ask(context, lambda stub: stub.DeleteRoom(request, timeout=CALL_TIMEOUT_S))
    context.write_done(f"The room {deleted.name} is gone.", as_dict(deleted))


def announce(context: Context, arguments: Namespace) -> None:
    """Shows a text to everyone who is connected and in a room; it does not become part of the room's history."""
    room = _get(context, arguments.room).room
    count = _announce(context, room.room_id, arguments.text)
    context.write_done(f"Shown to {count} in {room.name}.", {"room_id": room.room_id, "recipient_count": count})


def room_id_of(context: Context, reference: str) -> str:
    """The id of the room that an operator means. Raises AdminError."""
    return _get(context, reference).room.room_id


def _get(context: Context, reference: str) -> rooms_pb2.GetRoomResponse:
    request = rooms_pb2.GetRoomRequest(room=reference)
    return _ask(context, lambda stub: stub.GetRoom(request, timeout=CALL_TIMEOUT_S))


def _set_closed(context: Context, reference: str, *, is_closed: bool) -> rooms_pb2.RoomSummary:
    request = rooms_pb2.SetRoomClosedRequest(room=reference, closed=is_closed)
    return _ask(context, lambda stub: stub.SetRoomClosed(request, timeout=CALL_TIMEOUT_S)).room


def _announce(context: Context, room_id: str, text: str) -> int:
    request = edge_pb2.SendNoticeRequest(text=text, room_id=room_id)

    def send(channel: grpc.Channel) -> int:
        stub = edge_pb2_grpc.EdgeAdminServiceStub(channel)
        return stub.SendNotice(request, timeout=CALL_TIMEOUT_S).recipient_count

    return sum(count for _, count in ask_each(context.channels, "edge", send))


def _ask(context: Context, call: Callable[[rooms_pb2_grpc.RoomsAdminServiceStub], T]) -> T:
    return ask_one(context.channels, "rooms", lambda channel: call(rooms_pb2_grpc.RoomsAdminServiceStub(channel)))
