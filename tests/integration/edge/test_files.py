"""Files of version-2 clients through the edge, over real TLS, with the files themselves in memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import force_setattr

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.edge_world import EdgeWorld, edge_world, until
from tests.helpers.file_client import CHUNK, WINDOW, fetch, offer, rest, send_file, sha256, upload
from tests.helpers.raw_client import RawClient

DATA = os.urandom(3 * WINDOW + 12_345)


async def lobby(world: EdgeWorld, *names: str) -> tuple[str, list[RawClient]]:
    """A room with these people in it."""
    clients = [await world.user(name) for name in names]
    room_id = (await clients[0].expect("create_room", {"name": "lobby"}))["room_id"]
    for client in clients[1:]:
        await client.expect("join_room", {"room_id": room_id})
    return room_id, clients


async def test_a_file_goes_from_one_to_the_other(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy, bob) = await lobby(world, "amy", "bob")
        offered = await offer(amy, room_id, DATA)
        assert (offered["offset"], offered["chunk_bytes"]) == (0, CHUNK)
        done = await upload(amy, offered["file_id"], DATA)
        described = {"file_id": offered["file_id"], "name": "notes.txt", "size": len(DATA), "sha256": sha256(DATA)}
        for client in (amy, bob):
            (message,) = await client.messages(room_id, 1)
            assert (message["seq"], message["username"], message["text"]) == (done["seq"], "amy", "")
            assert message["file"] == {**described, "mime": "text/plain"}
        file, data = await fetch(bob, offered["file_id"])
        assert file == {**described, "mime": "text/plain"}
        assert data == DATA
        assert world.value("parley.edge.files.received") == len(DATA)
        assert world.value("parley.edge.files.sent") >= len(DATA)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, WINDOW, WINDOW + 1])
async def test_files_of_every_size(tmp_path: Path, size: int) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA[:size])
        assert (await fetch(amy, file_id))[1] == DATA[:size]


async def test_an_upload_goes_on_where_it_broke(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        for start in range(0, 10 * CHUNK, CHUNK):
            await amy.send_chunk(offered["file_id"], start, DATA[start : start + CHUNK])
        await amy.event("file_ack", offset=CHUNK)
        amy.abort()
        await until(lambda: world.files.uploads[0].has_finished_writing)
        again = await world.user("amy")
        more = await offer(again, room_id, DATA)
        assert more["file_id"] == offered["file_id"]
        assert more["offset"] == 10 * CHUNK  # everything that came in, acknowledged or not
        await upload(again, more["file_id"], DATA, more["offset"])
        assert (await fetch(again, more["file_id"]))[1] == DATA


async def test_a_download_begins_where_it_is_told(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        for offset in (1, CHUNK + 7, len(DATA) - 1, len(DATA)):
            assert (await fetch(amy, file_id, offset))[1] == DATA[offset:]
        assert await amy.refused("file_get", {"file_id": file_id, "offset": len(DATA) + 1}) == "bad_request"


async def test_no_more_than_a_window_is_on_its_way_to_a_client(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        await amy.expect("file_get", {"file_id": file_id})
        for _ in range(WINDOW // CHUNK):
            await amy.read_chunk()
        await amy.expect("list_rooms")  # the edge has had every chance
        assert len(amy.chunks) == WINDOW // CHUNK
        assert world.files.downloads[0].read_bytes <= WINDOW + 512 * 1024
        await amy.send("file_ack", {"file_id": file_id, "offset": CHUNK})
        await amy.read_chunk()
        assert await rest(amy, file_id, len(DATA)) == DATA


async def test_more_than_a_window_is_not_taken(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        world.files.gate.clear()  # nothing is acknowledged
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        for start in range(0, WINDOW + CHUNK, CHUNK):
            await amy.send_chunk(offered["file_id"], start, DATA[start : start + CHUNK])
        error = await amy.event("error", file_id=offered["file_id"])
        assert error["data"]["code"] == "bad_request"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(CHUNK, CHUNK), (1, 5), (0, 0), (2**64 - 1, 5), (0, 1001)],
    ids=["out of order", "with a gap", "empty", "far away", "past the end"],
)
async def test_chunks_that_do_not_belong_there(tmp_path: Path, offset: int, size: int) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA[:1000])
        await amy.send_chunk(offered["file_id"], offset, DATA[:size])
        error = await amy.event("error", file_id=offered["file_id"])
        assert error["data"]["code"] == "bad_request"
        assert await send_file(amy, room_id, DATA[:1000]) == offered["file_id"]  # the same offer goes on


async def test_a_chunk_that_comes_twice(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        for _ in range(2):
            await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
        assert (await amy.event("error", file_id=offered["file_id"]))["data"]["code"] == "bad_request"


async def test_what_is_on_its_way_to_a_transfer_that_ended_is_no_fault(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        world.files.gate.clear()
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
        await until(lambda: world.files.uploads)
        world.files.uploads[0].fail(ParleyError(ErrorCode.QUOTA_EXCEEDED, "the disk is full"))
        error = await amy.event("error", file_id=offered["file_id"])
        assert (error["data"]["code"], error["data"]["error"]) == ("quota_exceeded", "the disk is full")
        for start in range(CHUNK, CHUNK + WINDOW, CHUNK):
            await amy.send_chunk(offered["file_id"], start, DATA[start : start + CHUNK])
        await amy.expect("list_rooms")
        assert not [frame for frame in amy.events if frame["type"] == "error"]
        await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])  # more than was on its way
        assert (await amy.event("error"))["data"]["code"] == "no_such_file"


async def test_chunks_of_nothing_end_the_connection(tmp_path: Path) -> None:
    async with edge_world(tmp_path, clock=FakeClock()) as world:  # as time goes by, faults are forgiven
        _, (amy,) = await lobby(world, "amy")
        for _ in range(21):
            await amy.send_chunk("ab" * 16, 0, b"x")
        assert (await amy.event("goodbye"))["data"]["reason"] == "protocol_error"


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
        await amy.expect("file_cancel", {"file_id": offered["file_id"]})
        assert world.files.given_up == [offered["file_id"]]
        assert not [frame for frame in amy.events if frame["type"] == "error"]
        await amy.send_chunk(offered["file_id"], CHUNK, DATA[:CHUNK])
        assert (await amy.event("error"))["data"]["code"] == "no_such_file"
        assert await amy.refused("file_cancel", {"file_id": offered["file_id"]}) == "no_such_file"


async def test_a_cancelled_download_stops(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        await amy.expect("file_get", {"file_id": file_id})
        await amy.expect("file_cancel", {"file_id": file_id})
        await until(lambda: world.files.downloads[0].is_cancelled)
        await amy.send("file_ack", {"file_id": file_id, "offset": CHUNK})  # was on its way
        await amy.expect("list_rooms")
        assert not [frame for frame in amy.events if frame["type"] == "error"]
        amy.chunks.clear()
        assert (await fetch(amy, file_id))[1] == DATA


async def test_a_download_is_cancelled_before_it_is_answered(tmp_path: Path) -> None:
    async with edge_world(tmp_path, files_per_connection_max=1) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        world.files.describing.clear()
        await amy.send("file_get", {"file_id": file_id}, id=1)
        await until(lambda: world.files.downloads)
        assert await amy.refused("file_get", {"file_id": file_id}) == "conflict"
        await amy.expect("file_cancel", {"file_id": file_id})
        assert world.files.downloads[0].is_cancelled
        world.files.describing.set()
        answer = await amy.wait_for(lambda frame: frame.get("re") == 1)
        assert (answer["type"], answer["data"]["code"]) == ("error", "conflict")
        assert (await fetch(amy, file_id))[1] == DATA  # its place is free again, and nothing else comes


async def test_a_cancel_behind_its_get_in_one_write(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        world.files.describing.clear()
        await amy.send("file_get", {"file_id": file_id}, id=1)
        await amy.send("file_cancel", {"file_id": file_id}, id=2)
        assert (await amy.wait_for(lambda frame: frame.get("re") == 2))["type"] == "success"
        assert (await amy.wait_for(lambda frame: frame.get("re") == 1))["data"]["code"] == "conflict"
        await amy.expect("list_rooms")
        assert not amy.chunks


async def test_a_download_that_fails_is_cancelled_by_the_server(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        await amy.expect("file_get", {"file_id": file_id})
        await amy.read_chunk()
        world.files.downloads[0].fault = ParleyError(ErrorCode.NOT_A_MEMBER, "no longer a member")
        await amy.send("file_ack", {"file_id": file_id, "offset": CHUNK})
        for _ in range(WINDOW // CHUNK):
            await amy.read_chunk()
            _, offset, data = amy.chunks[-1]
            await amy.send("file_ack", {"file_id": file_id, "offset": offset + len(data)})
            if amy.events:
                break
        ended = await amy.event("file_cancel", file_id=file_id)
        assert (ended["data"]["code"], ended["data"]["error"]) == ("not_a_member", "no longer a member")


async def test_a_wrong_hash(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA[:1000], sha256="0" * 64)
        await amy.send_chunk(offered["file_id"], 0, DATA[:1000])
        assert (await amy.event("error", file_id=offered["file_id"]))["data"]["code"] == "hash_mismatch"
        assert world.files.files == {}


async def test_rooms_is_gone_in_the_middle(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
        await amy.event("file_ack")
        gone = ParleyError(ErrorCode.UNAVAILABLE, "10.0.0.1: connection refused", details={"status": "UNAVAILABLE"})
        world.files.uploads[0].fail(gone)
        error = await amy.event("error", file_id=offered["file_id"])
        assert error["data"]["code"] == "unavailable"
        assert "10.0.0.1" not in error["data"]["error"]
        world.files.failure = gone
        assert await amy.refused("file_get", {"file_id": offered["file_id"]}) == "unavailable"
        world.files.failure = None
        assert await send_file(amy, room_id, DATA) == offered["file_id"]


async def test_an_upload_in_which_nothing_moves_is_ended(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        offered = await offer(amy, room_id, DATA)
        idle_s = world.edge._files._rules.idle_s
        force_setattr(world.edge._files._rules, "idle_s", 0.2)
        await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
        error = await amy.event("error", file_id=offered["file_id"])
        assert error["data"]["code"] == "unavailable"
        assert world.files.uploads[0].has_finished_writing
        force_setattr(world.edge._files._rules, "idle_s", idle_s)  # this one is to get through
        file_id = await send_file(amy, room_id, DATA)
        force_setattr(world.edge._files._rules, "idle_s", 0.2)
        await amy.expect("file_get", {"file_id": file_id})
        assert (await amy.event("file_cancel", file_id=file_id))["data"]["code"] == "unavailable"


async def test_places_are_limited_and_come_back(tmp_path: Path) -> None:
    async with edge_world(tmp_path, files_per_connection_max=2) as world:
        room_id, (amy,) = await lobby(world, "amy")
        contents = [bytes([number]) * 2 * CHUNK for number in range(3)]
        file_ids = [(await offer(amy, room_id, data))["file_id"] for data in contents]
        for file_id, data in zip(file_ids, contents, strict=True):
            await amy.send_chunk(file_id, 0, data[:CHUNK])
        error = await amy.event("error", file_id=file_ids[2])
        assert (error["data"]["code"], error["data"]["retry_after_s"]) == ("overloaded", 1.0)
        for file_id, data in zip(file_ids[:2], contents[:2], strict=True):
            await upload(amy, file_id, data, CHUNK)
        await send_file(amy, room_id, contents[2])
        for file_id in file_ids[:2]:
            assert len((await fetch(amy, file_id))[1]) == 2 * CHUNK


async def test_ten_thousand_offers_at_once(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy, bob) = await lobby(world, "amy", "bob")
        codes: dict[str, int] = {}

        async def read() -> None:
            for _ in range(10_000):
                frame = await amy.wait_for(lambda frame: "re" in frame)
                code = frame["data"].get("code", "success")
                codes[code] = codes.get(code, 0) + 1

        reader = asyncio.create_task(read())
        for number in range(10_000):
            data = {"name": f"{number}", "size": 5, "sha256": f"{number:064x}"}
            await amy.send("file_offer", data, room_id=room_id, id=number)
        await reader
        assert codes["success"] <= 64
        assert set(codes) <= {"success", "rate_limited", "overloaded"}
        assert (await bob.say(room_id, "still there"))["seq"] == 1


async def test_logging_out_ends_transfers(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy,) = await lobby(world, "amy")
        file_id = await send_file(amy, room_id, DATA)
        await amy.expect("file_get", {"file_id": file_id})
        offered = await offer(amy, room_id, DATA[1:])
        await amy.send_chunk(offered["file_id"], 0, DATA[1:CHUNK])
        await amy.expect("logout")
        await until(lambda: world.files.downloads[0].is_cancelled and world.files.uploads[1].has_finished_writing)
        await amy.send_chunk(offered["file_id"], CHUNK, DATA[:CHUNK])
        assert (await amy.event("error"))["data"]["code"] == "not_authenticated"


async def test_chat_passes_a_download(tmp_path: Path) -> None:
    async with edge_world(tmp_path, file_window_bytes=64 * 1024 * 1024) as world:
        room_id, (amy, bob) = await lobby(world, "amy", "bob")
        file_id = await send_file(amy, room_id, os.urandom(16 * WINDOW))
        await bob.messages(room_id, 1)
        await bob.expect("file_get", {"file_id": file_id})
        await bob.read_chunk()  # from now on bob does not read, and everything is full
        await until(lambda: next(iter(world.edge._directory.sessions()))[1] is not None)
        await amy.say(room_id, "in between")
        before = len(bob.chunks)
        await bob.messages(room_id, 1)
        # What the system holds goes first: buffers of the two sockets, not the window.
        assert (len(bob.chunks) - before) * CHUNK < 12 * WINDOW


async def test_files_are_listed(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        room_id, (amy, bob) = await lobby(world, "amy", "bob")
        names = ['"' * 250 + str(number) for number in range(100)]
        for number, name in enumerate(names):
            await send_file(amy, room_id, str(number).encode(), name=name)
        found: list[str] = []
        before = None
        while True:
            page = {"limit": 200} if before is None else {"limit": 200, "before": before}
            listed = await bob.expect("file_list", page, room_id=room_id)
            found += [file["name"] for file in listed["files"]]
            before = listed["next_before"]
            if before is None:
                break
        assert found == names[::-1]
        assert set(listed["files"][0]) == {
            "file_id", "name", "size", "sha256", "mime", "username", "seq", "ts", "available",
        }  # fmt: skip
        eve = await world.user("eve")
        assert await eve.refused("file_list", {}, room_id=room_id) == "not_a_member"


async def test_the_limit_is_what_rooms_says(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        await until(lambda: world.edge._files._server_info["max_file_bytes"] == world.files.size_max)
        client = await world.connect(hello=False)
        info = (await client.request("hello", {"protocol": 2}))["data"]
        assert info["max_file_bytes"] == world.files.size_max
