from __future__ import annotations

import base64
import os

import pytest

from services.common.errors import ParleyError
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.edge.files.old_desk import OldDesk
from services.edge.files.relay import WAITING_MAX
from tests.helpers.file_desk import AMY, DeskWorld

DATA = os.urandom(3 * limits.MAX_V1_PIECE_BYTES + 5)


class World(DeskWorld):
    """A version-1 client to whom files come."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = OldDesk(self.connection, AMY, self.rules)

    def received(self) -> bytes:
        return b"".join(base64.b64decode(one["data"]) for one in self.connection.told("file_chunk"))


@pytest.fixture
async def world() -> World:
    world = World()
    await world.begin()
    return world


async def test_a_file_comes_in_pieces(world: World) -> None:
    file_id = await world.posted(DATA)
    world.desk.relay.add(world.room_id, "bob", file_id)
    await world.until(lambda: len(world.connection.told("file_chunk")) == 4)
    first = world.connection.told("file_chunk")[0]
    assert {name: first[name] for name in first if name != "data"} == {
        "transfer_id": file_id, "filename": "a", "chunk_num": 0, "total_chunks": 4, "username": "bob",
    }  # fmt: skip
    assert world.received() == DATA
    await world.until(lambda: not world.rules.downloads.taken)


async def test_an_empty_file_is_one_empty_piece(world: World) -> None:
    offered = await world.offer(b"")
    await world.backend.open_upload(AMY, offered).write(0, b"", is_last=False)
    world.desk.relay.add(world.room_id, "bob", offered.file_id)
    await world.until(lambda: world.connection.told("file_chunk"))
    assert world.received() == b""


async def test_one_after_the_other(world: World) -> None:
    world.connection.takes.clear()
    files = [await world.posted(bytes([number]), str(number)) for number in range(3)]
    for file_id in files:
        world.desk.relay.add(world.room_id, "bob", file_id)
    await world.until(lambda: world.backend.downloads)
    assert len(world.backend.downloads) == 1
    world.connection.takes.set()
    await world.until(lambda: len(world.connection.told("file_chunk")) == 3)
    assert world.received() == bytes([0, 1, 2])


async def test_what_passes_is_tried_again_where_it_stopped(world: World) -> None:
    file_id = await world.posted(DATA)
    world.backend.failure = ParleyError(ErrorCode.UNAVAILABLE, "gone")
    world.desk.relay.add(world.room_id, "bob", file_id)
    await world.until(lambda: world.backend.downloads)
    world.backend.failure = None
    await world.clock.advance(1.0)
    await world.until(lambda: len(world.connection.told("file_chunk")) == 4)
    assert world.received() == DATA


async def test_a_file_that_cannot_be_had_is_told(world: World) -> None:
    world.desk.relay.add(world.room_id, "bob", "ab" * 16)
    await world.until(lambda: world.connection.told("error"))
    [error] = world.connection.told("error")
    assert (error["code"], error["file_id"]) == ("no_such_file", "ab" * 16)


async def test_nothing_of_a_room_that_was_left(world: World) -> None:
    file_id = await world.posted(DATA)
    world.connection.subscriber.rooms.clear()
    world.desk.relay.add(world.room_id, "bob", file_id)
    await world.until(lambda: world.backend.downloads and not world.rules.downloads.taken)
    world.desk.relay.add(world.room_id, "bob", "ab" * 16)
    await world.until(lambda: len(world.backend.downloads) == 2 and not world.rules.downloads.taken)
    assert world.connection.replies == []


async def test_too_many_wait(world: World) -> None:
    world.connection.takes.clear()
    file_id = await world.posted(DATA)
    for _ in range(WAITING_MAX + 2):
        world.desk.relay.add(world.room_id, "bob", file_id)
    assert world.connection.told("error")[0]["code"] == "overloaded"
    world.desk.close()
    world.connection.takes.set()
    await world.until(lambda: not world.rules.downloads.taken)
    assert world.connection.told("file_chunk") == []
