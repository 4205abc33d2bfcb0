"""`parley admin rooms`."""

from __future__ import annotations

from argparse import Namespace

import grpc
from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_one
from client.admin.pages import read_all
from client.admin.report import Context, Row

COLUMNS = {
    "ID": "room_id",
    "NAME": "name",
    "ONLINE": "user_count",
    "MEMBERS": "member_count",
    "CREATED": "created_at_ms",
    "PRIVATE": "private",
    "TOPIC": "topic",
}


def list_rooms(context: Context, arguments: Namespace) -> None:
    """Lists all rooms, private ones too."""

    def read(channel: grpc.Channel) -> list[Row]:
        stub = rooms_pb2_grpc.RoomsAdminServiceStub(channel)

        def fetch(size: int, token: str) -> rooms_pb2.ListAllRoomsResponse:
            request = rooms_pb2.ListAllRoomsRequest(query=arguments.query or "", page_size=size, page_token=token)
            return stub.ListAllRooms(request, timeout=CALL_TIMEOUT_S)

        return read_all(fetch, lambda page: page.rooms, limit=arguments.limit)

    rows = ask_one(context.channels, "rooms", read)
    for row in rows:
        del row["joined"]  # means something to a user only
    context.write_rows(rows, COLUMNS)


def remove_member(context: Context, arguments: Namespace) -> None:
    """Removes a member from a room at once."""
    context.confirm(f"Remove {arguments.user} from the room {arguments.room}?")
    request = rooms_pb2.RemoveMemberRequest(room=arguments.room, username=arguments.user)
    ask_one(
        context.channels,
        "rooms",
        lambda channel: rooms_pb2_grpc.RoomsAdminServiceStub(channel).RemoveMember(request, timeout=CALL_TIMEOUT_S),
    )
    context.write_done(f"{arguments.user} is no longer in the room {arguments.room}.")
