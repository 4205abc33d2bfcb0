"""What is swept, when, and what is not."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from services.common.clock import FakeClock
from services.common.counters import Counters
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.counts import FileCounts
from services.rooms.files.contents import MemoryContents
from services.rooms.files.library import Library
from services.rooms.files.rules import FileLimits, Offer
from services.rooms.files.store import Sender
from services.rooms.files.upload import Upload
from services.rooms.files.uploads import Posted
from services.rooms.tables import contents, files
from tests.helpers.rooms_world import RoomsWorld, rooms_world, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY_S = 86_400.0
LIMITS = FileLimits(
    file_bytes_max=1_000,
    user_bytes_max=10_000,
    user_files_max=100,
    room_bytes_max=10_000,
    room_files_max=100,
    unfinished_max=10,
    transfers_max=10,
    free_bytes_min=0,
    retention_s=90 * DAY_S,
    unfinished_retention_s=DAY_S,
)


class Shelf:
    """A library on a content store in memory."""

    def __init__(self, world: RoomsWorld, limits: FileLimits = LIMITS) -> None:
        self.world = world
        self.contents = MemoryContents()
        self.library = self.opened(limits)

    def opened(self, limits: FileLimits = LIMITS) -> Library:
        """The library after a restart, on the same stores."""
        world = self.world
        return Library(
            world.database,
            contents=self.contents,
            log=world.log,
            bus=world.bus,
            clock=world.clock,
            limits=limits,
            counts=FileCounts(Counters()),
        )

    async def begin(self, name: str, data: bytes) -> Upload | Posted:
        offer = Offer(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        offered = await self.library.offer(Sender(user_id("alice"), "alice"), "tea", offer)
        return await self.library.uploads.begin(user_id("alice"), offered.file_id, offered.offset)

    async def send(self, name: str, data: bytes) -> Posted:
        upload = await self.begin(name, data)
        if isinstance(upload, Posted):
            return upload
        uploads = self.library.uploads
        upload.take(0, data, is_last=True)
        while await uploads.store(upload) is not None:
            pass
        posted = await uploads.finish(upload)
        await uploads.end(upload)
        return posted

    async def rows(self) -> tuple[int, int]:
        """How many files and contents the database knows."""
        tables = (files, contents)
        counts = [
            await self.world.database.read(
                lambda c, t=table: c.execute(select(func.count()).select_from(t)).scalar_one()
            )
            for table in tables
        ]
        return counts[0], counts[1]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with rooms_world(tmp_path) as world:
        assert isinstance(world.clock, FakeClock)
        await world.create("alice", "tea")
        yield Shelf(world)


async def test_unfinished_files_wait_for_their_time(shelf: Shelf) -> None:
    upload = await shelf.begin("a", b"12345")
    assert isinstance(upload, Upload)
    upload.take(0, b"12", is_last=False)
    assert await shelf.library.uploads.store(upload) == 2
    await shelf.world.clock.advance(2 * DAY_S)
    await shelf.library.sweeper.sweep()
    assert await shelf.contents.part_ids() != [], "it is under way"
    await shelf.library.uploads.end(upload)
    await shelf.world.clock.advance(0.9 * DAY_S)
    await shelf.library.sweeper.sweep()
    assert await shelf.contents.part_ids() != []
    await shelf.world.clock.advance(0.2 * DAY_S)
    await shelf.library.sweeper.sweep()
    assert await shelf.contents.part_ids() == []
    assert await shelf.rows() == (0, 0)


async def test_old_files_lose_their_bytes_and_keep_their_message(shelf: Shelf) -> None:
    first = await shelf.send("a", b"old")
    await shelf.world.clock.advance(60 * DAY_S)
    second = await shelf.send("b", b"old")
    await shelf.world.clock.advance(31 * DAY_S)
    await shelf.library.sweeper.sweep()
    assert await shelf.contents.hashes() == [first.file.sha256], "the younger file has the same content"
    with pytest.raises(ParleyError) as caught:
        await shelf.library.begin_download(user_id("alice"), first.file.file_id, 0)
    assert caught.value.code is ErrorCode.NO_SUCH_FILE
    await shelf.library.end_download(await shelf.library.begin_download(user_id("alice"), second.file.file_id, 0))
    await shelf.world.clock.advance(60 * DAY_S)
    await shelf.library.sweeper.sweep()
    assert await shelf.contents.hashes() == []
    assert await shelf.rows() == (2, 0)
    room = await shelf.world.directory.list_messages(user_id("alice"), "tea", after_seq=None, before_seq=None, limit=10)
    assert [message.file for message in room.messages] == [first.file, second.file]
    third = await shelf.send("c", b"old")
    assert third.outcome.seq == 3


async def test_without_a_retention_nothing_gets_old(tmp_path: Path) -> None:
    async with rooms_world(tmp_path) as world:
        await world.create("alice", "tea")
        shelf = Shelf(world, replace(LIMITS, retention_s=0))
        await shelf.send("a", b"kept")
        await world.clock.advance(10_000 * DAY_S)
        await shelf.library.sweeper.sweep()
        assert len(await shelf.contents.hashes()) == 1


async def test_orphans_go_and_nothing_else(shelf: Shelf) -> None:
    posted = await shelf.send("a", b"posted")
    upload = await shelf.begin("b", b"open")
    assert isinstance(upload, Upload)
    await shelf.library.uploads.end(upload)
    stray = await shelf.contents.open_part("d" * 32)
    await stray.append([b"stray"])
    lost = await shelf.contents.open_part("e" * 32)
    await lost.append([b"lost"])
    assert await shelf.contents.keep("e" * 32, hashlib.sha256(b"lost").hexdigest())
    await shelf.opened().sweeper.sweep()
    assert await shelf.contents.part_ids() == [upload.file_id]
    assert await shelf.contents.hashes() == [posted.file.sha256]
    assert await shelf.rows() == (2, 1)


async def test_a_content_that_is_gone_is_wanted_again(shelf: Shelf) -> None:
    posted = await shelf.send("a", b"lost")
    await shelf.contents.remove(posted.file.sha256)
    with pytest.raises(ParleyError):
        await shelf.library.begin_download(user_id("alice"), posted.file.file_id, 0)
    again = await shelf.send("b", b"lost")
    assert (again.outcome.seq, await shelf.contents.hashes()) == (2, [posted.file.sha256])


async def test_an_upload_that_dies_before_its_message_goes_on_there(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> None:
        raise ParleyError(ErrorCode.UNAVAILABLE, "injected")

    for step in ("keep", "_append"):
        with monkeypatch.context() as broken:
            target = shelf.contents if step == "keep" else shelf.library.uploads
            broken.setattr(target, step, die)
            with contextlib.suppress(ParleyError):
                await shelf.send(step, step.encode())
        shelf.library = shelf.opened()
        await shelf.library.sweeper.sweep()
        assert not (await shelf.send(step, step.encode())).outcome.is_duplicate
    assert await shelf.rows() == (2, 2)
    assert await shelf.contents.part_ids() == []
