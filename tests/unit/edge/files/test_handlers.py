from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import FileCancel, FileGet, FileList, FileOffer, FileTransfer, Request
from services.edge.decisions import Command
from services.edge.files.desk import Desk
from services.edge.files.handlers import LIMITS_INTERVAL_S, FileHandlers
from services.edge.files.old_desk import OldDesk
from services.edge.handlers import Answer, Gone
from services.edge.qos.classes import QosClass
from tests.helpers.file_client import sha256
from tests.helpers.file_desk import DeskWorld

DATA = b"some bytes"


class World(DeskWorld):
    """The handlers, and a caller."""

    def __init__(self) -> None:
        super().__init__()
        self.server_info: dict[str, Any] = {"max_file_bytes": 1_000}
        self.handlers = FileHandlers(self.rules, self.server_info)

    async def ask(self, request: Request) -> Answer:
        command = Command(request, 1, QosClass.HIGH, 0.0)
        return await self.handlers.table[type(request)](self.connection, request, command)

    def offer_of(self, data: bytes, **changes: Any) -> FileOffer:
        return FileOffer(**{"room_id": self.room_id, "name": "a", "size": len(data), "sha256": sha256(data), **changes})

    def transfer(self, number: int, total: int, data: str) -> FileTransfer:
        return FileTransfer("ab" * 16, "a", number, total, data, self.room_id)


@pytest.fixture
async def world() -> World:
    world = World()
    await world.begin()
    return world


async def test_an_offer_opens_a_desk(world: World) -> None:
    answer = await world.ask(world.offer_of(DATA))
    assert answer.data == {"file_id": f"{1:032x}", "offset": 0, "chunk_bytes": 65_536}
    assert answer.room_id == world.room_id
    assert isinstance(world.connection.session.desk, Desk)


async def test_the_senders_name_for_a_transfer_reaches_rooms(world: World) -> None:
    await world.ask(world.offer_of(DATA, transfer_id="cd" * 16))
    assert next(iter(world.backend.files.values())).offer.transfer_id == "cd" * 16


async def test_whoever_has_gone_meanwhile_gets_nothing(world: World) -> None:
    file_id = await world.posted(DATA)
    world.backend.describing.clear()
    asking = asyncio.create_task(world.ask(FileGet(file_id)))
    await world.until(lambda: world.backend.downloads)
    world.connection.user = None
    world.backend.describing.set()
    with pytest.raises(Gone):
        await asking
    assert world.rules.downloads.taken == 0
    with pytest.raises(ParleyError, match="logged out"):
        await world.ask(FileGet(file_id))


async def test_a_download_is_described_and_begun(world: World) -> None:
    file_id = await world.posted(DATA)
    answer = await world.ask(FileGet(file_id, 3))
    assert answer.data == {
        "file_id": file_id, "name": "a", "size": len(DATA), "sha256": sha256(DATA), "mime": "",
    }  # fmt: skip
    await world.until(lambda: world.connection.chunks)
    assert (world.connection.chunks[0].offset, world.connection.chunks[0].data) == (3, DATA[3:])


async def test_what_cannot_be_fetched_gives_its_place_back(world: World) -> None:
    with pytest.raises(ParleyError, match="no such file"):
        await world.ask(FileGet("ab" * 16))
    assert world.rules.downloads.taken == 0


async def test_a_cancel_is_of_whatever_there_is(world: World) -> None:
    file_id = await world.posted(DATA)
    with pytest.raises(ParleyError) as caught:
        await world.ask(FileCancel(file_id))
    assert caught.value.code is ErrorCode.CONFLICT  # it is posted, and nobody fetches it
    world.backend.describing.clear()
    asking = asyncio.create_task(world.ask(FileGet(file_id)))
    await world.until(lambda: world.backend.downloads)
    assert (await world.ask(FileCancel(file_id))).type == "success"
    with pytest.raises(ParleyError, match="cancelled"):
        await asking
    offered = (await world.ask(world.offer_of(b"other"))).data["file_id"]
    await world.ask(FileCancel(offered))
    assert world.backend.given_up == [offered]


async def test_a_page_fits_into_a_frame(world: World) -> None:
    for number in range(100):
        await world.posted(str(number).encode(), '"' * 250 + str(number))
    seen: list[str] = []
    before = None
    while True:
        answer = await world.ask(FileList(world.room_id, before, 200))
        assert answer.type == "file_list"
        assert len(json.dumps(answer.data["next_before"])) < 10
        seen += [file.name for file in answer.data["files"]]
        before = answer.data["next_before"]
        if before is None:
            break
    assert len(seen) == len(set(seen)) == 100


async def test_pieces_of_version_1_are_answered_at_the_end(world: World) -> None:
    first = await world.ask(world.transfer(0, 2, "AAAA"))
    assert first.frame == b""
    last = await world.ask(world.transfer(1, 2, "AAAA"))
    assert (last.data["transfer_id"], last.data["seq"]) == ("ab" * 16, 1)
    assert isinstance(world.connection.session.desk, OldDesk)


async def test_limits_are_learnt_from_rooms(world: World) -> None:
    learning = asyncio.create_task(world.handlers.learn_limits())
    await world.until(lambda: world.server_info["max_file_bytes"] == world.backend.size_max)
    world.backend.failure = ParleyError(ErrorCode.UNAVAILABLE, "gone")
    await world.clock.advance(LIMITS_INTERVAL_S)
    world.backend.failure, world.backend.size_max = None, 7
    await world.clock.advance(1.0)
    await world.until(lambda: world.server_info["max_file_bytes"] == 7)
    learning.cancel()
    await asyncio.wait([learning])


async def test_a_file_is_relayed_to_who_is_logged_in(world: World) -> None:
    file_id = await world.posted(DATA)
    world.handlers.relay(world.connection, world.room_id, "bob", file_id)
    await world.until(lambda: world.connection.told("file_chunk"))
    world.connection.user = None
    world.handlers.relay(world.connection, world.room_id, "bob", file_id)
    assert len(world.connection.told("file_chunk")) == 1
