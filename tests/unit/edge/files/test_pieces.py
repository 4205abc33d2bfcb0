from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import FileTransfer
from services.edge.files.old_desk import OldDesk
from services.edge.files.pieces import TRANSFERS_MAX, Pieces
from tests.helpers.file_desk import AMY, DeskWorld

DATA = os.urandom(100_000)
PIECE = 30_000
SIZE_MAX = 1_000_000


class World(DeskWorld):
    """A version-1 client that sends files."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.desk = OldDesk(self.connection, AMY, self.rules)
        self.pieces: Pieces = self.desk.pieces

    async def send(
        self, number: int, data: bytes, *, total: int = 4, transfer_id: str = "ab" * 16
    ) -> dict[str, Any] | None:
        text = base64.b64encode(data).decode()
        request = FileTransfer(transfer_id, "a.bin", number, total, text, self.room_id)
        return await self.pieces.receive(self.room_id, request, size_max=SIZE_MAX)

    async def refused(self, *arguments: Any, **options: Any) -> ErrorCode:
        with pytest.raises(ParleyError) as caught:
            await self.send(*arguments, **options)
        return caught.value.code


@pytest.fixture
async def world() -> World:
    world = World()
    await world.begin()
    return world


def cut(number: int) -> bytes:
    return DATA[number * PIECE : (number + 1) * PIECE]


async def test_pieces_become_a_file(world: World) -> None:
    assert [await world.send(number, cut(number)) for number in range(3)] == [None] * 3
    done = await world.send(3, cut(3))
    assert done is not None
    file = world.backend.files[done["file_id"]]
    assert (bytes(file.data), file.offer.piece_bytes, file.offer.transfer_id) == (DATA, PIECE, "ab" * 16)
    assert world.rules.uploads.taken == 0
    assert world.rules.bytes_in.value == len(DATA)


async def test_an_empty_file(world: World) -> None:
    done = await world.send(0, b"", total=1)
    assert done is not None
    assert world.backend.files[done["file_id"]].info.size == 0


@pytest.mark.parametrize(("number", "total"), [(2, 4), (0, 4), (1, 5), (7, 4)])
async def test_pieces_in_no_order(world: World, number: int, total: int) -> None:
    await world.send(0, cut(0))
    assert await world.refused(number, cut(1), total=total) is ErrorCode.BAD_REQUEST
    # It has failed once; what still comes of it is passed over.
    assert await world.send(2, cut(2)) is None
    await world.until(lambda: not world.rules.uploads.taken)
    assert world.backend.uploads[0].is_cancelled


async def test_a_beginning_that_is_none(world: World) -> None:
    assert await world.refused(1, cut(1)) is ErrorCode.BAD_REQUEST


async def test_a_failed_transfer_may_begin_anew(world: World) -> None:
    await world.send(0, cut(0))
    await world.refused(3, cut(3))
    for number in range(3):
        await world.send(number, cut(number))
    assert await world.send(3, cut(3)) is not None


async def test_more_than_a_file_may_have(world: World) -> None:
    assert await world.refused(0, cut(0), total=1_000) is ErrorCode.TOO_LARGE


async def test_so_many_at_a_time(world: World) -> None:
    for number in range(TRANSFERS_MAX):
        await world.send(0, cut(0), transfer_id=f"{number:032x}")
    assert await world.refused(0, cut(0)) is ErrorCode.OVERLOADED


async def test_what_rooms_says_ends_it(world: World) -> None:
    await world.send(0, cut(0))
    world.backend.uploads[0].fail(ParleyError(ErrorCode.QUOTA_EXCEEDED, "full"))
    await world.until(lambda: not world.rules.uploads.taken)
    assert await world.refused(1, cut(1)) is ErrorCode.QUOTA_EXCEEDED
    assert await world.send(2, cut(2)) is None


async def test_nothing_is_left_when_the_client_is_gone(world: World) -> None:
    await world.send(0, cut(0))
    world.desk.close()
    await world.until(lambda: not world.rules.uploads.taken)
    assert world.backend.uploads[0].is_cancelled
    assert await world.refused(0, cut(0), transfer_id="cd" * 16) is ErrorCode.UNAVAILABLE
