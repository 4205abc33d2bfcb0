"""Operators who remove people from rooms, over the admin calls of rooms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.seat import Standing

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.chaos.recorder.board import Board
    from tests.chaos.recorder.person import Person
    from tests.chaos.recorder.seat import Seat

EVERY_S = (2.0, 6.0)
CALL_S = 20.0


def remove(home: Path, room: str, username: str) -> str:
    """Removes a member, as `parley admin` does; "" where it is done, and otherwise what went wrong. Blocks."""
    from parley.rooms.v1 import rooms_pb2, rooms_pb2_grpc

    from client.admin.channels import ask_one, open_stack
    from client.admin.failures import AdminError

    request = rooms_pb2.RemoveMemberRequest(room=room, username=username)
    try:
        ask_one(
            open_stack(home, "local"),
            "rooms",
            lambda channel: rooms_pb2_grpc.RoomsAdminServiceStub(channel).RemoveMember(request, timeout=CALL_S),
        )
    except AdminError as error:
        return error.code
    return ""


async def kick_people(home: Path, people: list[Person], board: Board, dice: random.Random, until: float) -> None:
    """Until the log's time is `until`."""
    while board.log.now() < until:
        await asyncio.sleep(dice.uniform(*EVERY_S))
        person = dice.choice(people)
        inside = [seat for seat in person.seats.values() if seat.standing is Standing.IN]
        if board.log.now() < until and len(inside) > 1:
            await _kick(home, person, dice.choice(inside), board)


async def _kick(home: Path, person: Person, seat: Seat, board: Board) -> None:
    seat.standing = Standing.PARTING
    board.log.write(e.PartAsk, user=person.name, room=seat.room)
    problem = await asyncio.to_thread(remove, home, seat.room, person.name)
    if seat.standing is not Standing.PARTING:
        return  # the connection broke meanwhile, and nothing is expected of this place any more
    if problem:
        board.refusals[f"kick: {problem}"] += 1
        seat.standing = Standing.RETIRED
        return
    board.log.write(e.KickOk, user=person.name, room=seat.room)
    seat.standing, seat.out_since, seat.is_over = Standing.OUT, board.log.now(), True
