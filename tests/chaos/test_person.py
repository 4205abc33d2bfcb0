"""A person's book-keeping, where answers come in another order than what they tell of."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos import events as e
from tests.chaos.recorder.board import Board
from tests.chaos.recorder.log import EventLog
from tests.chaos.recorder.person import Person
from tests.chaos.recorder.seat import Standing
from tests.chaos.recorder.wire import Trust

if TYPE_CHECKING:
    from pathlib import Path


async def nothing(_: Person) -> None:
    return


def resumed(tmp_path: Path, *, is_over: bool) -> tuple[Person, list[Any]]:
    """A person who had read up to 7 of a room, is out of it, and is answered a resume that lists it."""
    path = tmp_path / "log"
    with EventLog(path) as log:
        board = Board(log, [], Trust(ssl.create_default_context(), "nobody connects"), prefix="c")
        board.rooms = ["room"]
        person = Person("amy", board, 1, nothing)
        seat = person.seats["room"]
        seat.begin("e1", 7)
        seat.standing, seat.is_over = Standing.OUT, is_over
        room = {"room_id": "room", "epoch": "e1", "last_seq": 9, "recovered": True, "replay": 2}
        person._entered("edge-1", {"token": "t", "rooms": [room]}, {"room": {"epoch": "e1", "seq": 7}})
    with path.open("rb") as lines:
        return person, list(e.decode(lines))


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_room_that_is_listed_was_joined_unless_the_end_of_the_membership_is_known(
    tmp_path: Path, *, is_over: bool
) -> None:
    person, events = resumed(tmp_path, is_over=is_over)
    joins = [event for event in events if isinstance(event, e.JoinOk)]
    assert len(joins) == (0 if is_over else 1)  # an answer that was made before a removal is no new membership
    assert person.seats["room"].standing is (Standing.OUT if is_over else Standing.IN)
    assert [event.last_seq for event in events if isinstance(event, e.ResumeOk)] == [9]
