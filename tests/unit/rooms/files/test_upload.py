"""One upload: its queue, its end, and what does not belong."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.files.contents import MemoryContents
from services.rooms.files.store import OPEN, FileRecord
from services.rooms.files.upload import PIECE_BYTES_MAX, WAITING_BYTES_MAX, WAITING_PIECES_MAX, Upload
from services.rooms.messages import File


async def opened(size: int, sha256: str = "0" * 64) -> Upload:
    file = File("a" * 32, "a.txt", size, sha256)
    upload = Upload(FileRecord(file, "room", 1, "epoch", "idalice", "alice", OPEN, None, 0))
    upload.start(await MemoryContents().open_part(file.file_id))
    return upload


async def test_a_slow_disk_holds_the_sender_up() -> None:
    upload = await opened(10 * PIECE_BYTES_MAX)
    offset = 0
    while not (waiting := asyncio.ensure_future(upload.wait_for_room())).done():
        await asyncio.sleep(0)
        if not waiting.done():
            break
        upload.take(offset, bytes(PIECE_BYTES_MAX), is_last=False)
        offset += PIECE_BYTES_MAX
    assert offset == WAITING_BYTES_MAX
    assert await upload.store() == offset
    await waiting


async def test_tiny_pieces_hold_the_sender_up_too() -> None:
    upload = await opened(10_000)
    for offset in range(WAITING_PIECES_MAX):
        upload.take(offset, b"x", is_last=False)
    waiting = asyncio.ensure_future(upload.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await upload.store()
    await waiting


async def test_what_came_before_a_fault_is_stored_first() -> None:
    upload = await opened(10)
    upload.take(0, b"12345", is_last=False)
    upload.fail(ParleyError(ErrorCode.CONFLICT, "elsewhere"))
    assert await upload.store() == 5
    with pytest.raises(ParleyError, match="elsewhere"):
        await upload.store()


async def test_a_complete_file_is_complete_whatever_comes_behind_it() -> None:
    upload = await opened(5)
    upload.take(0, b"12345", is_last=False)
    with pytest.raises(ParleyError, match="behind the end"):
        upload.take(5, b"6", is_last=False)
    upload.fail(ParleyError(ErrorCode.BAD_REQUEST, "behind the end"))
    assert await upload.store() == 5
    assert await upload.store() is None


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(-3, 210), st.integers(0, 60)), max_size=30))
async def test_whatever_comes_the_part_is_a_beginning_of_the_file(data: bytes, pieces: list[tuple[int, int]]) -> None:
    upload = await opened(len(data))
    assert upload.part is not None
    expected = 0
    for offset, count in pieces:
        piece = data[max(offset, 0) : max(offset, 0) + count]
        try:
            upload.take(offset, piece, is_last=False)
        except ParleyError:
            continue
        expected += len(piece)
    if expected:
        assert await upload.store() == expected
    assert bytes(upload.part.data) == data[:expected]  # type: ignore[attr-defined]
