from __future__ import annotations

import asyncio
import os

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk, FrameDecoder
from services.edge.files.downloads import Download
from services.edge.files.windows import Outgoing
from tests.helpers.fake_files import FakeDownload
from tests.helpers.file_desk import AMY, CHUNK, DeskWorld

DATA = os.urandom(20 * CHUNK + 3)
FILE_ID = b"f" * 16


class Fetching:
    """A download under way, to somebody who reads when told to."""

    def __init__(
        self,
        world: DeskWorld,
        stream: FakeDownload,
        *,
        window: int,
        idle_s: float = 60.0,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self.decoder = FrameDecoder()
        self.data = bytearray()
        self.stream = stream
        self.takes = asyncio.Event()
        self.takes.set()
        self.download = Download(
            FILE_ID,
            stream,
            Outgoing(offset=0, window=window),
            post=self._post,
            drained=self._drained,
            give_way=world.rules.give_way,
            turn=turn or asyncio.Lock(),
            idle_s=idle_s,
        )
        self.task = asyncio.create_task(self.download.run())

    async def _drained(self) -> None:
        await self.takes.wait()
        await asyncio.sleep(0)  # as when there was something to write

    def _post(self, frame: bytes) -> None:
        for chunk in self.decoder.feed(frame):
            assert isinstance(chunk, Chunk)
            assert (chunk.file_id, chunk.offset) == (FILE_ID, len(self.data))
            self.data += chunk.data


async def fetch(window: int = 4 * CHUNK, **options: float) -> tuple[DeskWorld, Fetching]:
    world = DeskWorld()
    await world.begin()
    file_id = await world.posted(DATA)
    return world, Fetching(world, world.backend.open_download(AMY, file_id, 0), window=window, **options)


async def test_a_window_and_no_more_until_it_is_acknowledged() -> None:
    world, one = await fetch()
    acknowledged = 0
    while not one.task.done():
        await world.until(lambda: one.task.done() or len(one.data) > acknowledged)  # noqa: B023 - it is waited for
        assert len(one.data) - acknowledged <= 4 * CHUNK
        acknowledged = len(one.data)
        one.download.acknowledge(acknowledged)
        await asyncio.sleep(0)
    assert await one.task
    assert one.data == DATA
    one.download.acknowledge(len(DATA))
    assert one.download.is_acknowledged


async def test_a_client_that_allows_less_is_sent_less_until_it_allows_more() -> None:
    world, one = await fetch()
    await world.until(lambda: len(one.data) == 4 * CHUNK)
    one.download.acknowledge(4 * CHUNK, 0)  # a chunk at least: a window of nothing would never end
    await world.until(lambda: len(one.data) == 5 * CHUNK)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(one.data) == 5 * CHUNK
    one.download.acknowledge(5 * CHUNK, 1_000 * CHUNK)  # and no more than the window
    await world.until(lambda: len(one.data) == 9 * CHUNK)
    one.download.end()
    assert not await one.task


async def test_acknowledgements_that_are_none() -> None:
    world, one = await fetch()
    await world.until(lambda: len(one.data) == 4 * CHUNK)
    assert one.download.acknowledge(5 * CHUNK) == 0
    assert one.download.acknowledge(CHUNK) == CHUNK
    assert one.download.acknowledge(CHUNK) == 0
    assert not one.download.is_acknowledged
    one.download.end()
    assert not await one.task


async def test_it_waits_for_whatever_is_more_urgent() -> None:
    world, one = await fetch(window=len(DATA))
    one.takes.clear()
    await world.until(lambda: one.stream.read_bytes)
    before = len(one.data)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(one.data) <= before + 2 * CHUNK
    one.takes.set()
    await one.task
    assert one.data == DATA


async def test_downloads_of_one_connection_take_turns() -> None:
    world, first = await fetch(window=len(DATA))
    first.download.end()
    await first.task
    turn = asyncio.Lock()
    file_id = next(iter(world.backend.files))
    two = [Fetching(world, world.backend.open_download(AMY, file_id, 0), window=len(DATA), turn=turn) for _ in range(2)]
    await world.until(lambda: min(len(one.data) for one in two) > 0)
    assert max(len(one.data) for one in two) < len(DATA)
    for one in two:
        await one.task
        assert one.data == DATA


async def test_an_end_is_no_failure_and_a_failure_is_one() -> None:
    world, one = await fetch()
    await world.until(lambda: one.data)
    one.stream.fault = ParleyError(ErrorCode.UNAVAILABLE, "gone")
    one.download.end()
    assert await one.task is False
    assert one.stream.is_cancelled
    _, other = await fetch()
    other.stream.fault = ParleyError(ErrorCode.NOT_A_MEMBER, "left")
    with pytest.raises(ParleyError, match="left"):
        await other.task


async def test_whoever_acknowledges_nothing_is_not_waited_for() -> None:
    _, one = await fetch(idle_s=0.01)
    with pytest.raises(ParleyError, match="nothing was acknowledged"):
        await one.task
