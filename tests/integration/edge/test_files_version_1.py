"""Files of version-1 clients: pieces in, pieces out, over real TLS."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.helpers.edge_world import edge_world, until
from tests.helpers.file_client import fetch, send_file
from tests.helpers.raw_client import RawClient

DATA = os.urandom(200_000)
TRANSFER = "ab" * 16


def pieces(data: bytes, size: int) -> list[dict[str, object]]:
    cut = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return [
        {
            "transfer_id": TRANSFER,
            "filename": "notes.txt",
            "chunk_num": number,
            "total_chunks": len(cut),
            "data": base64.b64encode(piece).decode(),
        }
        for number, piece in enumerate(cut)
    ]


async def collect(client: RawClient) -> bytes:
    first = await client.event("file_chunk")
    found = [first]
    while len(found) < first["data"]["total_chunks"]:
        found.append(await client.event("file_chunk"))
    assert [frame["data"]["chunk_num"] for frame in found] == list(range(len(found)))
    return b"".join(base64.b64decode(frame["data"]["data"]) for frame in found)


@pytest.mark.parametrize("size", [0, 1, 3_000, 200_000])
@pytest.mark.parametrize("piece", [3_000, 45_000])
async def test_pieces_reach_old_and_new_clients(tmp_path: Path, size: int, piece: int) -> None:
    async with edge_world(tmp_path) as world:
        amy = await world.user("amy", hello=False)
        room_id = (await amy.expect("create_room", {"name": "lobby"}))["room_id"]
        bob, eve = await world.user("bob", hello=False), await world.user("eve")
        for client in (bob, eve):
            await client.expect("join_room", {"room_id": room_id})
        sent = pieces(DATA[:size], piece)
        for data in sent:
            await amy.send("file_transfer", data)
        assert (await amy.event("success", transfer_id=TRANSFER))["data"]["seq"] == 1
        (message,) = await eve.messages(room_id, 1)
        assert (await fetch(eve, message["file"]["file_id"]))[1] == DATA[:size]
        for data in sent:
            frame = await bob.event("file_chunk", timeout_s=20.0)
            assert {key: frame["data"][key] for key in data} == data
            assert frame["room_id"] == room_id
        assert not [frame for frame in amy.events if frame["type"] == "file_chunk"]


async def test_a_file_of_version_2_reaches_version_1(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        amy, bob = await world.user("amy"), await world.user("bob", hello=False)
        room_id = (await amy.expect("create_room", {"name": "lobby"}))["room_id"]
        await bob.expect("join_room", {"room_id": room_id})
        await send_file(amy, room_id, DATA)
        assert await collect(bob) == DATA


@pytest.mark.parametrize("order", [[1], [0, 2], [0, 0], [0, 1, 1]])
async def test_pieces_out_of_order(tmp_path: Path, order: list[int]) -> None:
    async with edge_world(tmp_path) as world:
        amy = await world.user("amy", hello=False)
        await amy.expect("create_room", {"name": "lobby"})
        sent = pieces(DATA, 20_000)
        for number in order:
            await amy.send("file_transfer", sent[number])
        assert (await amy.event("error"))["data"]["code"] == "bad_request"
        for data in sent[5:]:  # were on their way
            await amy.send("file_transfer", data)
        await amy.expect("list_rooms")
        assert not [frame for frame in amy.events if frame["type"] == "error"]
        await until(lambda: all(upload.is_cancelled for upload in world.files.uploads))
        for data in sent:
            await amy.send("file_transfer", data)
        await amy.event("success", transfer_id=TRANSFER)
