from __future__ import annotations

import asyncio
import os

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.files.uploads import PIECE_BYTES_MAX, Upload
from services.edge.files.windows import Incoming
from tests.helpers.fake_files import FakeUpload
from tests.helpers.file_desk import AMY, CHUNK, DeskWorld

DATA = os.urandom(20 * CHUNK)


class Uploading:
    """An upload under way."""

    def __init__(self, world: DeskWorld, incoming: Incoming, stream: FakeUpload, idle_s: float) -> None:
        self.stored: list[int] = []
        self.incoming = incoming
        self.stream = stream
        self.upload = Upload(
            incoming,
            stream,
            on_stored=self.stored.append,
            give_way=world.rules.give_way,
            idle_s=idle_s,
            clock=world.clock,
        )
        self.task = asyncio.create_task(self.upload.run())

    def receive(self, data: bytes) -> str | None:
        return self.upload.receive(self.incoming.received, data)


async def begin(world: DeskWorld, data: bytes = DATA, *, idle_s: float = 60.0) -> Uploading:
    await world.begin()
    offered = await world.offer(data)
    stream = world.backend.open_upload(AMY, offered)
    return Uploading(world, Incoming(size=len(data), offset=0, window=len(data) + 1), stream, idle_s)


async def test_what_has_come_in_goes_on_together() -> None:
    world = DeskWorld()
    world.backend.gate.clear()
    one = await begin(world)
    for start in range(0, len(DATA), CHUNK):
        assert one.receive(DATA[start : start + CHUNK]) is None
    world.backend.gate.set()
    assert await one.task == 1
    assert one.stored[-1] == len(DATA)
    assert sum(one.stream.pieces) == len(DATA)
    assert max(one.stream.pieces) <= PIECE_BYTES_MAX
    assert len(one.stream.pieces) <= 3
    assert one.stream.is_cancelled  # idempotent: whatever happened, the call is given back


async def test_an_empty_file_and_one_that_is_there_need_no_bytes() -> None:
    world = DeskWorld()
    one = await begin(world, b"")
    assert await one.task == 1


async def test_an_end_stores_what_has_come() -> None:
    world = DeskWorld()
    one = await begin(world)
    one.receive(DATA[:CHUNK])
    one.upload.end()
    with pytest.raises(ParleyError, match="ended before the file"):
        await one.task
    assert one.stream.has_finished_writing
    assert one.stored[-1] == CHUNK


async def test_a_size_that_is_known_at_the_end() -> None:
    world = DeskWorld()
    one = await begin(world, DATA[: 3 * CHUNK])
    one.receive(DATA[: 3 * CHUNK])
    one.upload.complete()
    assert await one.task == 1


async def test_what_rooms_says_is_what_it_fails_with() -> None:
    world = DeskWorld()
    one = await begin(world)
    await asyncio.sleep(0)
    one.stream.fail(ParleyError(ErrorCode.QUOTA_EXCEEDED, "full"))
    with pytest.raises(ParleyError, match="full"):
        await one.task


async def test_an_end_without_a_word_may_be_tried_again() -> None:
    world = DeskWorld()
    one = await begin(world)
    await asyncio.sleep(0)
    one.stream.fail(None)
    with pytest.raises(ParleyError) as caught:
        await one.task
    assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.UNAVAILABLE, 1.0)


async def test_when_nothing_comes_it_is_over() -> None:
    world = DeskWorld()
    one = await begin(world, idle_s=0.01)
    with pytest.raises(ParleyError, match="nothing has come"):
        await one.task


async def test_whoever_waits_for_room_waits_no_longer_than_the_upload() -> None:
    world = DeskWorld()
    world.backend.gate.clear()
    one = await begin(world)
    one.receive(DATA[:CHUNK])
    one.receive(DATA[CHUNK : 2 * CHUNK])
    waiting = asyncio.create_task(one.upload.wait_until_below(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    one.upload.cancel()
    with pytest.raises(ParleyError):
        await one.task
    await waiting
