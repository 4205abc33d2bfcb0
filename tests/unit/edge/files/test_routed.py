from __future__ import annotations

import pytest

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.decisions import User
from services.edge.files.ports import Offer, Offered
from services.edge.files.routed import RoutedFiles
from services.edge.routes import Routes
from tests.helpers.edge_world import FakeRooms
from tests.helpers.fake_files import FakeFiles

AMY = User("u1", "amy", "s1", 0.0)
TARGETS = ("one:1", "two:2", "three:3")
GONE = ParleyError(ErrorCode.UNAVAILABLE, "gone")


class World:
    """Three instances of one store of files."""

    def __init__(self) -> None:
        self.rooms = FakeRooms()
        self.clock = FakeClock()
        self.routes = Routes(TARGETS)
        self.instances = {target: FakeFiles(self.rooms) for target in TARGETS}
        shared = self.instances["one:1"].files
        for instance in self.instances.values():
            instance.files = shared
            instance.describing.set()
        self.files = RoutedFiles(self.instances, self.routes, self.clock)
        self.room_id = ""

    async def begin(self) -> None:
        room = await self.rooms.create_room(AMY, name="lobby", topic="", private=False, exclusive=False)
        self.room_id = room.room_id

    def offer(self, name: str = "a") -> Offer:
        return Offer(name=name, size=1, sha256="0" * 64)


@pytest.fixture
async def world() -> World:
    world = World()
    await world.begin()
    return world


async def test_bytes_go_where_the_offer_was_taken(world: World) -> None:
    offered = await world.files.offer(AMY, world.room_id, world.offer())
    assert offered.target == world.routes.candidates(world.room_id)[0]
    world.files.open_upload(AMY, offered)
    assert [len(one.uploads) for one in world.instances.values()].count(1) == 1
    assert len(world.instances[offered.target].uploads) == 1


async def test_another_instance_stands_in_for_one_that_is_gone(world: World) -> None:
    first, second, third = world.routes.candidates(world.room_id)
    world.instances[first].failure = GONE
    offered = await world.files.offer(AMY, world.room_id, world.offer())
    assert offered.target == second
    assert await world.files.list_files(AMY, world.room_id, before=0, limit=5)
    world.instances[second].failure = GONE
    with pytest.raises(ParleyError, match="gone"):
        await world.files.offer(AMY, world.room_id, world.offer("b"))
    assert world.instances[third].failure is None  # two are asked, and no more


async def test_a_refusal_is_asked_of_nobody_else(world: World) -> None:
    first = world.routes.candidates(world.room_id)[0]
    world.instances[first].failure = ParleyError(ErrorCode.QUOTA_EXCEEDED, "full")
    with pytest.raises(ParleyError, match="full"):
        await world.files.offer(AMY, world.room_id, world.offer())


async def test_what_took_long_is_not_asked_again(world: World) -> None:
    first = world.instances[world.routes.candidates(world.room_id)[0]]

    async def slow(*_: object) -> Offered:
        await world.clock.advance(2.0)
        raise GONE

    first.offer = slow  # type: ignore[method-assign]
    with pytest.raises(ParleyError, match="gone"):
        await world.files.offer(AMY, world.room_id, world.offer())


async def posted(world: World) -> str:
    offered = await world.files.offer(AMY, world.room_id, Offer(name="a", size=5, transfer_id="ab" * 16))
    upload = world.files.open_upload(AMY, offered)
    await upload.write(0, b"hello", is_last=True)
    return offered.file_id


async def test_a_download_is_begun_by_another_instance(world: World) -> None:
    file_id = await posted(world)
    first, second, _ = world.routes.candidates(file_id)
    world.instances[first].failure = GONE
    download = world.files.open_download(AMY, file_id, 1)
    assert (await download.describe()).size == 5
    assert await download.read() == b"ello"
    assert await download.read() is None
    assert world.instances[first].downloads[0].is_cancelled
    download.cancel()
    assert world.instances[second].downloads[0].is_cancelled


async def test_a_download_that_is_cancelled_before_it_begins(world: World) -> None:
    file_id = await posted(world)
    download = world.files.open_download(AMY, file_id, 0)
    download.cancel()
    with pytest.raises(ParleyError, match="cancelled"):
        await download.describe()
    assert all(not one.downloads for one in world.instances.values())


async def test_limits_and_giving_up(world: World) -> None:
    assert await world.files.file_bytes_max() == 1_000_000_000
    offered = await world.files.offer(AMY, world.room_id, world.offer())
    await world.files.give_up(AMY, offered.file_id)
    with pytest.raises(ParleyError, match="no such file"):
        await world.files.give_up(AMY, offered.file_id)
