from __future__ import annotations

import os
from typing import Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk
from services.common.wire.requests import FileAck, FileGet
from services.edge.files.desk import OFFERS_MAX, Desk, Places
from tests.helpers.file_desk import AMY, CHUNK, WINDOW, DeskWorld

DATA = os.urandom(6 * CHUNK)


def chunk(file_id: str, offset: int, data: bytes) -> Chunk:
    return Chunk(bytes.fromhex(file_id), offset, data)


async def desk(**options: Any) -> tuple[DeskWorld, Desk]:
    world = DeskWorld(**options)
    await world.begin()
    return world, Desk(world.connection, AMY, world.rules)


async def offered(world: DeskWorld, own: Desk, data: bytes = DATA, name: str = "a") -> str:
    found = await world.offer(data, name)
    own.add_offer(found, len(data))
    return found.file_id


async def test_an_upload_is_acknowledged_and_done() -> None:
    world, own = await desk()
    file_id = await offered(world, own)
    for start in range(0, len(DATA), CHUNK):
        assert own.receive(chunk(file_id, start, DATA[start : start + CHUNK])) is None
        await world.until(lambda: (world.connection.told("file_ack") or [{}])[-1].get("offset", 0) > start)  # noqa: B023
    await world.until(lambda: world.connection.told("file_done"))
    assert world.connection.told("file_done") == [{"file_id": file_id, "seq": 1}]
    assert world.rules.bytes_in.value == len(DATA)
    await world.until(lambda: not world.rules.uploads.taken)


async def test_chunks_that_belong_nowhere_and_those_that_are_late() -> None:
    world, own = await desk()
    refusal = own.receive(chunk("ab" * 16, 0, b"x"))
    assert refusal is not None
    assert refusal.data["code"] == "no_such_file"
    file_id = await offered(world, own)
    fault = own.receive(chunk(file_id, 5, b"x"))
    assert fault is not None
    assert (fault.data["code"], fault.data["file_id"]) == ("bad_request", file_id)
    late = [own.receive(chunk(file_id, start, bytes(CHUNK))) for start in range(0, WINDOW + CHUNK, CHUNK)]
    assert late[:-1] == [None] * (WINDOW // CHUNK)
    assert late[-1] is not None


async def test_an_upload_that_fails_is_told_once() -> None:
    world, own = await desk()
    file_id = await offered(world, own)
    own.receive(chunk(file_id, 0, DATA[:CHUNK]))
    await world.until(lambda: world.backend.uploads)
    world.backend.uploads[0].fail(ParleyError(ErrorCode.UNAVAILABLE, "10.1.1.1 refused", details={"status": "X"}))
    await world.until(lambda: world.connection.told("error"))
    [error] = world.connection.told("error")
    assert (error["code"], error["file_id"]) == ("unavailable", file_id)
    assert "10.1.1.1" not in error["error"]
    await world.until(lambda: not world.rules.uploads.taken)


async def test_a_new_offer_ends_what_hangs_and_offers_are_few() -> None:
    world, own = await desk()
    file_id = await offered(world, own)
    own.receive(chunk(file_id, 0, DATA[:CHUNK]))
    await world.until(lambda: world.connection.told("file_ack"))
    assert await offered(world, own) == file_id
    assert world.backend.uploads[0].is_cancelled
    for number in range(OFFERS_MAX - 1):
        await offered(world, own, name=f"{number}")
    with pytest.raises(ParleyError, match="offered first"):
        await offered(world, own, name="one more")


async def test_what_the_server_has_is_posted_without_a_chunk() -> None:
    world, own = await desk()
    file_id = await offered(world, own, b"")
    await world.until(lambda: world.connection.told("file_done"))
    assert world.connection.told("file_done")[0]["file_id"] == file_id
    assert world.connection.told("file_ack") == []


async def test_places_of_a_connection_and_of_all() -> None:
    world, own = await desk(per_connection=1, in_all=2)
    first, second = await offered(world, own), await offered(world, own, name="b")
    world.backend.gate.clear()
    assert own.receive(chunk(first, 0, b"x")) is None
    refusal = own.receive(chunk(second, 0, b"x"))
    assert refusal is not None
    assert (refusal.data["code"], refusal.data["retry_after_s"]) == ("overloaded", 1.0)
    places = Places(per_connection=9, in_all=1)
    places.take(0)
    with pytest.raises(ParleyError, match="too many files"):
        places.take(0)
    places.give_back()
    places.take(0)


async def test_a_download_goes_out_within_the_window() -> None:
    world, own = await desk()
    file_id = await world.posted(DATA)
    stream = own.ask(file_id, 0)
    await stream.describe()
    own.add_download(FileGet(file_id), stream)
    acknowledged = 0
    while acknowledged < len(DATA):
        await world.until(lambda: sum(len(one.data) for one in world.connection.chunks) > acknowledged)  # noqa: B023
        sent = sum(len(one.data) for one in world.connection.chunks)
        assert sent - acknowledged <= WINDOW
        assert own.acknowledge(FileAck(file_id, sent))
        acknowledged = sent
    assert b"".join(one.data for one in world.connection.chunks) == DATA
    await world.until(lambda: not world.rules.downloads.taken)
    assert world.rules.bytes_out.value == len(DATA)
    assert own.acknowledge(FileAck(file_id, len(DATA)))  # late, and no fault


async def test_acknowledgements_of_nothing_are_worth_nothing() -> None:
    world, own = await desk()
    file_id = await world.posted(DATA)
    assert not own.acknowledge(FileAck(file_id, 5))
    stream = own.ask(file_id, 0)
    own.add_download(FileGet(file_id), stream)
    await world.until(lambda: world.connection.chunks)
    assert not own.acknowledge(FileAck(file_id, 100))
    own.close()


async def test_a_download_that_fails_is_told_as_a_cancel() -> None:
    world, own = await desk()
    file_id = await world.posted(DATA)
    stream = own.ask(file_id, 0)
    world.backend.downloads[0].fault = ParleyError(ErrorCode.NOT_A_MEMBER, "left")
    own.add_download(FileGet(file_id), stream)
    await world.until(lambda: world.connection.told("file_cancel"))
    assert world.connection.told("file_cancel") == [{"file_id": file_id, "code": "not_a_member", "error": "left"}]


async def test_dropped_is_over_whether_asked_for_or_under_way() -> None:
    world, own = await desk()
    file_id = await world.posted(DATA)
    assert not own.drop(file_id)
    stream = own.ask(file_id, 0)
    with pytest.raises(ParleyError, match="already"):
        own.ask(file_id, 0)
    assert own.is_wanted(file_id, stream)
    assert own.drop(file_id)
    assert not own.is_wanted(file_id, stream)
    own.withdraw(file_id, stream)
    assert world.rules.downloads.taken == 0
    again = own.ask(file_id, 0)
    own.add_download(FileGet(file_id), again)
    await world.until(lambda: world.connection.chunks)
    assert own.drop(file_id)
    await world.until(lambda: not world.rules.downloads.taken)
    assert world.connection.told("file_cancel") == []
    mine = await offered(world, own, name="b")
    own.receive(chunk(mine, 0, b"x"))
    assert not own.drop(mine)
    assert world.backend.uploads[-1].is_cancelled


async def test_a_client_that_is_gone_is_sent_nothing_and_loses_nothing() -> None:
    world, own = await desk()
    file_id = await world.posted(DATA, "b")
    own.ask(file_id, 0)
    other = await world.posted(DATA[1:], "c")
    stream = own.ask(other, 0)
    own.add_download(FileGet(other), stream)
    mine = await offered(world, own)
    own.receive(chunk(mine, 0, DATA[:CHUNK]))
    own.close()
    sent = len(world.connection.chunks)
    await world.until(lambda: world.backend.uploads[-1].has_finished_writing)
    assert len(world.backend.files[mine].data) == CHUNK
    assert len(world.connection.chunks) == sent
    assert all(one.is_cancelled for one in world.backend.downloads)
    assert world.connection.told("error") == []
