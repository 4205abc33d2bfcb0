"""Two instances of rooms with one database and one folder of contents: uploads, downloads and removals cross."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from services.common.counters import Counters
from services.common.errors import ParleyError
from services.rooms.counts import FileCounts
from services.rooms.files.library import Library
from services.rooms.files.local_contents import LocalContents, LocalPart
from services.rooms.files.rules import Offer
from services.rooms.files.store import Sender
from services.rooms.files.uploads import Posted
from services.rooms.tables import contents, files
from tests.helpers.rooms_world import RoomsWorld, rooms_world, user_id
from tests.unit.rooms.files.test_sweeper import DAY_S, LIMITS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DATA = os.urandom(300_000)
ALICE = Sender(user_id("alice"), "alice")
LARGE = replace(LIMITS, file_bytes_max=10_000_000, user_bytes_max=100_000_000, room_bytes_max=100_000_000)


class Slow(LocalContents):
    """Stops where it would remove a content, until it may go on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.reached = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.opened = asyncio.Event()

    async def open_part(self, part_id: str) -> LocalPart:
        self.opened.set()
        return await super().open_part(part_id)

    async def remove(self, sha256: str) -> None:
        self.reached.set()
        await self.may_go_on.wait()
        await super().remove(sha256)


class Instance:
    """A library of files of one rooms instance."""

    def __init__(self, world: RoomsWorld, folder: Path) -> None:
        self.world = world
        self.contents = Slow(folder)
        self.library = Library(
            world.database,
            contents=self.contents,
            log=world.log,
            bus=world.bus,
            clock=world.clock,
            limits=LARGE,
            counts=FileCounts(Counters()),
        )

    async def offer(self, name: str, data: bytes = DATA) -> tuple[str, int]:
        offer = Offer(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        offered = await self.library.offer(ALICE, "tea", offer)
        return offered.file_id, offered.offset

    async def send(self, name: str, data: bytes = DATA) -> str:
        file_id, offset = await self.offer(name, data)
        return await self.upload(file_id, offset, data)

    async def upload(self, file_id: str, offset: int, data: bytes = DATA) -> str:
        uploads = self.library.uploads
        upload = await uploads.begin(ALICE.user_id, file_id, offset)
        if isinstance(upload, Posted):
            return file_id
        try:
            upload.take(offset, data[offset:], is_last=False)
            while await uploads.store(upload) is not None:
                pass
            await uploads.finish(upload)
        finally:
            await uploads.end(upload)
        return file_id

    async def fetch(self, file_id: str) -> bytes:
        download = await self.library.begin_download(ALICE.user_id, file_id, 0)
        try:
            return b"".join([block async for _, block in download.blocks(0)])
        finally:
            await self.library.end_download(download)

    async def rows(self, table: object) -> int:
        query = select(func.count()).select_from(table)  # type: ignore[arg-type]
        return int(await self.world.database.read(lambda c: c.execute(query).scalar_one()))


@pytest.fixture
async def two(postgres_url: str, tmp_path: Path) -> AsyncIterator[list[Instance]]:
    async with contextlib.AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(rooms_world(tmp_path, url=postgres_url)) for _ in range(2)]
        await worlds[0].create("alice", "tea")
        instances = [Instance(world, tmp_path / "files") for world in worlds]
        for instance in instances:
            stack.push_async_callback(instance.contents.close)
        yield instances


async def test_what_one_takes_the_other_gives(two: list[Instance]) -> None:
    here, there = two
    file_id = await here.send("a")
    assert await there.fetch(file_id) == DATA


async def test_an_upload_goes_on_at_the_other_instance(two: list[Instance]) -> None:
    here, there = two
    file_id, _ = await here.offer("a")
    upload = await here.library.uploads.begin(ALICE.user_id, file_id, 0)
    assert not isinstance(upload, Posted)
    upload.take(0, DATA[:100_000], is_last=False)
    assert await here.library.uploads.store(upload) == 100_000
    again, offset = await there.offer("a")
    assert (again, offset) == (file_id, 100_000)
    with pytest.raises(ParleyError, match="written elsewhere"):  # while the first one is not ended
        await there.upload(file_id, offset)
    await here.library.uploads.end(upload)
    await there.upload(file_id, offset)
    assert await here.fetch(file_id) == DATA
    assert await here.contents.part_ids() == []


async def test_both_sweep_at_once_and_what_comes_back_stays(two: list[Instance]) -> None:
    here, there = two
    await here.send("a")
    for instance in two:
        await instance.world.clock.advance(91 * DAY_S)
    here.contents.may_go_on.clear()
    sweeping = asyncio.create_task(here.library.sweeper.sweep())
    await here.contents.reached.wait()  # said in the database, and not yet done on the disk
    await there.library.sweeper.sweep()
    assert not there.contents.reached.is_set()  # one of them is enough
    sending = asyncio.create_task(there.send("b"))  # the same bytes come back meanwhile
    await there.contents.opened.wait()
    here.contents.may_go_on.set()
    await sweeping
    while not sending.done():
        await there.world.clock.advance(0.1)
    assert await here.fetch(await sending) == DATA
    for instance in two:
        await instance.library.sweeper.sweep()
    assert await here.fetch(await sending) == DATA
    assert await there.contents.hashes() == [hashlib.sha256(DATA).hexdigest()]


async def test_a_removal_that_was_cut_short_is_ended_by_the_other(two: list[Instance]) -> None:
    here, there = two
    await here.send("a")
    for instance in two:
        await instance.world.clock.advance(91 * DAY_S)
    here.contents.may_go_on.clear()
    sweeping = asyncio.create_task(here.library.sweeper.sweep())
    await here.contents.reached.wait()
    sweeping.cancel()  # killed
    await asyncio.wait([sweeping])
    await there.library.sweeper.sweep()
    assert await there.contents.hashes() == []
    assert await there.rows(contents) == 0


async def test_orphans_are_removed_by_one_of_two(two: list[Instance]) -> None:
    here, there = two
    for instance in two:
        for _ in range(2):
            part = await instance.contents.open_part("a" * 32)
            await part.append([DATA])
            await part.close()
            assert await instance.contents.keep("a" * 32, "b" * 64)
        await asyncio.gather(here.library.sweeper.sweep(), there.library.sweeper.sweep())
        await instance.world.clock.advance(3_601.0)
    for instance in two:
        await instance.world.clock.advance(3_601.0)
        await instance.library.sweeper.sweep()
    assert await here.contents.hashes() == []
    assert await here.rows(contents) == 0
    assert await here.rows(files) == 0
