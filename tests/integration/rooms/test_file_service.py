"""Files over mutual TLS: whole, broken, hostile, at once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from parley.rooms.v1 import files_pb2, rooms_pb2

from tests.helpers.file_calls import FileCalls, sha256
from tests.helpers.served_rooms import Edge, ServedRooms, refusal, serve_rooms, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DATA = random.Random(1).randbytes(700_000)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedRooms]:
    async with serve_rooms(tmp_path, file_bytes_max=4_000_000, disk_free_bytes_min=0) as made:
        yield made


@pytest.fixture
async def edge(served: ServedRooms) -> Edge:
    return await served.edge()


@pytest.fixture
async def room(edge: Edge) -> rooms_pb2.Room:
    made = await edge.create("alice", "tea")
    await edge.join("bob", "tea")
    return made


@pytest.fixture
def files(edge: Edge) -> FileCalls:
    return FileCalls(edge.channel)


def left_over(served: ServedRooms) -> list[Path]:
    return sorted(path for path in (served.folder / "data" / "files").rglob("*") if path.is_file())


async def history(edge: Edge, room: rooms_pb2.Room) -> list[Any]:
    request = rooms_pb2.ListMessagesRequest(user_id=user_id("alice"), room=room.room_id)
    return list((await edge.rooms.ListMessages(request)).messages)


async def test_a_file_is_posted_and_fetched(edge: Edge, room: rooms_pb2.Room, files: FileCalls) -> None:
    async with edge.attach() as feed:
        await feed.follow(room)
        done = await files.send("alice", room.room_id, DATA, name="ما.txt")
        await feed.until_seq(room, 1)
        shown = feed.messages[room.room_id][0]
    assert (done.seq, done.epoch, done.room_id, done.duplicate) == (1, room.epoch, room.room_id, False)
    assert (done.file.name, done.file.size, done.file.sha256) == ("ما.txt", len(DATA), sha256(DATA))
    assert (shown.text, shown.username, shown.file) == ("", "alice", done.file)
    assert [message.file for message in await history(edge, room)] == [done.file]
    assert await files.fetch("bob", done.file.file_id) == (done.file, DATA)
    assert (await files.fetch("bob", done.file.file_id, 600_000))[1] == DATA[600_000:]
    assert (await files.fetch("bob", done.file.file_id, len(DATA)))[1] == b""
    assert await refusal(files.fetch("bob", done.file.file_id, len(DATA) + 1)) == "bad_request"


async def test_nobody_but_edges_may_call(served: ServedRooms) -> None:
    for identity in ("auth", "metrics", "admin/alice"):
        calls = FileCalls(await served.channel(identity))
        assert await refusal(calls.offer("alice", "tea", DATA)) == "forbidden"
        assert await refusal(calls.fetch("alice", "0" * 32)) == "forbidden"
        assert await refusal(calls.upload("alice", "0" * 32, 0)) == "forbidden"


async def test_an_upload_goes_on_where_it_was_acknowledged(room: rooms_pb2.Room, files: FileCalls) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    first = await files.upload("alice", offered.file_id, 0)
    await first.piece(0, DATA[:300_000])
    await first.until(300_000)
    await first.end()
    again = await files.offer("alice", room.room_id, DATA)
    assert (again.file_id, again.offset) == (offered.file_id, 300_000)
    done = await (await files.upload("alice", again.file_id, 300_000)).finish(DATA, 300_000)
    assert (await files.fetch("bob", done.file.file_id))[1] == DATA
    repeated = await files.upload("alice", offered.file_id, 0)
    assert repeated.done is not None
    assert (repeated.done.seq, repeated.done.duplicate, repeated.done.file) == (done.seq, True, done.file)


async def test_a_new_offer_takes_over_from_a_stream_that_hangs(room: rooms_pb2.Room, files: FileCalls) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    first = await files.upload("alice", offered.file_id, 0)
    await first.piece(0, DATA[:200_000])
    await first.until(200_000)
    assert await refusal(files.upload("alice", offered.file_id, 200_000)) == "conflict"
    again = await files.offer("alice", room.room_id, DATA)
    assert again.offset == 200_000
    assert await refusal(first.until_done()) == "conflict"
    assert (await (await files.upload("alice", again.file_id, 200_000)).finish(DATA, 200_000)).seq == 1


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (100_001, b"gap"),
        (99_999, b"again"),
        (0, b"twice"),
        (100_000, DATA[:610_000]),
        (100_000, bytes(1024 * 1024 + 1)),
    ],
)
async def test_a_piece_that_does_not_belong_there(
    room: rooms_pb2.Room, files: FileCalls, offset: int, data: bytes
) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    uploading = await files.upload("alice", offered.file_id, 0)
    await uploading.piece(0, DATA[:100_000])
    await uploading.piece(offset, data)
    assert await refusal(uploading.until_done()) == "bad_request"
    again = await files.offer("alice", room.room_id, DATA)
    assert again.offset == 100_000, "what came before is kept"
    assert (await (await files.upload("alice", again.file_id, again.offset)).finish(DATA, 100_000)).seq == 1


async def test_an_end_before_the_size(room: rooms_pb2.Room, files: FileCalls) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    uploading = await files.upload("alice", offered.file_id, 0)
    await uploading.piece(0, DATA[:10], last=True)
    assert await refusal(uploading.until_done()) == "bad_request"
    uploading = await files.upload("alice", offered.file_id, (await files.offer("alice", room.room_id, DATA)).offset)
    await uploading.call.done_writing()
    assert await refusal(uploading.until_done()) == "bad_request"
    assert await refusal(files.upload("alice", offered.file_id, 5)) == "conflict"


async def test_a_wrong_hash_leaves_nothing(
    served: ServedRooms, edge: Edge, room: rooms_pb2.Room, files: FileCalls
) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    uploading = await files.upload("alice", offered.file_id, 0)
    assert await refusal(uploading.finish(DATA[:-1] + b"x")) == "hash_mismatch"
    assert left_over(served) == []
    assert await history(edge, room) == []
    assert await refusal(files.upload("alice", offered.file_id, 0)) == "no_such_file"
    assert (await files.send("alice", room.room_id, DATA)).seq == 1


async def test_cancelled_is_gone(served: ServedRooms, room: rooms_pb2.Room, files: FileCalls) -> None:
    offered = await files.offer("alice", room.room_id, DATA)
    uploading = await files.upload("alice", offered.file_id, 0)
    await uploading.piece(0, DATA[:1000])
    await uploading.until(1000)
    assert await refusal(files.cancel("bob", offered.file_id)) == "no_such_file"
    await files.cancel("alice", offered.file_id)
    assert await refusal(uploading.until_done()) == "no_such_file"
    assert await refusal(files.upload("alice", offered.file_id, 0)) == "no_such_file"
    assert await refusal(files.cancel("alice", offered.file_id)) == "no_such_file"
    assert left_over(served) == []
    done = await files.send("alice", room.room_id, DATA)
    assert await refusal(files.cancel("alice", done.file.file_id)) == "conflict"


async def test_who_is_no_member_gets_nothing(edge: Edge, room: rooms_pb2.Room, files: FileCalls) -> None:
    done = await files.send("alice", room.room_id, DATA)
    hidden = await edge.create("alice", "hidden", private=True)
    secret = await files.send("alice", hidden.room_id, DATA + b"!")
    assert await refusal(files.fetch("eve", done.file.file_id)) == "not_a_member"
    assert await refusal(files.fetch("eve", secret.file.file_id)) == "no_such_file"
    assert await refusal(files.fetch("bob", "f" * 32)) == "no_such_file"
    assert await refusal(files.fetch("bob", "../../etc/passwd")) == "bad_request"
    assert await refusal(files.offer("eve", room.room_id, DATA)) == "not_a_member"
    assert await refusal(files.list("eve", room.room_id)) == "not_a_member"
    # Who has only heard of a hash is not given the content: all bytes are wanted from them.
    await edge.create("eve", "den")
    assert (await files.offer("eve", "den", DATA + b"!")).offset == 0
    assert await refusal(files.upload("bob", (await files.offer("alice", "tea", b"x")).file_id, 0)) == "no_such_file"


async def test_what_the_server_has_is_posted_at_once(
    served: ServedRooms, edge: Edge, room: rooms_pb2.Room, files: FileCalls
) -> None:
    done = await files.send("alice", room.room_id, DATA)
    await edge.create("bob", "den")
    offered = await files.offer("bob", "den", DATA, name="same.txt")
    assert (offered.offset, offered.file_id == done.file.file_id) == (len(DATA), False)
    posted = await files.upload("bob", offered.file_id, offered.offset)
    assert posted.done is not None
    assert (posted.done.seq, posted.done.file.name) == (1, "same.txt")
    assert len(left_over(served)) == 1
    assert (await files.fetch("bob", offered.file_id))[1] == DATA


async def test_the_same_content_twice_at_once(served: ServedRooms, room: rooms_pb2.Room, files: FileCalls) -> None:
    sent = await asyncio.gather(
        files.send("alice", room.room_id, DATA, name="a"),
        files.send("bob", room.room_id, DATA, name="b"),
        files.send("alice", room.room_id, DATA, name="c"),
    )
    assert sorted(done.seq for done in sent) == [1, 2, 3]
    assert len(left_over(served)) == 1
    for done in sent:
        assert (await files.fetch("bob", done.file.file_id))[1] == DATA


async def test_leaving_ends_what_is_under_way(
    served: ServedRooms, edge: Edge, room: rooms_pb2.Room, files: FileCalls
) -> None:
    big = random.Random(2).randbytes(4_000_000)
    posted = await files.send("alice", room.room_id, big)
    offered = await files.offer("bob", room.room_id, DATA)
    uploading = await files.upload("bob", offered.file_id, 0)
    await uploading.piece(0, DATA[:1000])
    await uploading.until(1000)
    call = files.stub.Download(files_pb2.DownloadRequest(user_id=user_id("bob"), file_id=posted.file.file_id))
    assert (await call.read()).file == posted.file
    await edge.leave("bob", room.room_id)
    assert await refusal(uploading.until_done()) == "not_a_member"

    async def rest() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    assert await refusal(rest()) == "not_a_member"
    assert len(left_over(served)) == 1
    assert await refusal(files.upload("bob", offered.file_id, 0)) == "no_such_file"


@pytest.mark.parametrize("delay", range(6))
async def test_an_upload_races_with_leaving(
    served: ServedRooms, edge: Edge, room: rooms_pb2.Room, files: FileCalls, delay: int
) -> None:
    offered = await files.offer("bob", room.room_id, DATA)
    uploading = await files.upload("bob", offered.file_id, 0)
    sending = asyncio.create_task(uploading.finish(DATA))
    for _ in range(delay * 40):
        await asyncio.sleep(0)
    await edge.leave("bob", room.room_id)
    await asyncio.wait([sending])
    if sending.exception() is not None:
        assert await refusal(sending) == "not_a_member"
        assert await history(edge, room) == []
        assert left_over(served) == []
    else:
        assert [message.file for message in await history(edge, room)] == [sending.result().file]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/passwd", "a\\b", "a\0b", "a\x1b[2Jb", "x" * 256, "ß" * 128, "a\u202egpj.exe", " a"],
)
async def test_names_that_are_none(room: rooms_pb2.Room, files: FileCalls, name: str) -> None:
    assert await refusal(files.offer("alice", room.room_id, DATA, name=name)) == "bad_request"


async def test_what_cannot_be_offered(room: rooms_pb2.Room, files: FileCalls) -> None:
    for changes, code in (
        ({"size": 4_000_001}, "too_large"),
        ({"size": -1}, "bad_request"),
        ({"sha256": "F" * 64}, "bad_request"),
        ({"sha256": "abc"}, "bad_request"),
        ({"mime": "x" * 101}, "bad_request"),
        ({"mime": "text/\n"}, "bad_request"),
        ({"transfer_id": "nope"}, "bad_request"),
    ):
        assert await refusal(files.offer("alice", room.room_id, DATA, **changes)) == code
    assert await refusal(files.offer("alice", "nosuchroom00", DATA)) == "no_such_room"
    limits = await files.stub.GetFileLimits(files_pb2.GetFileLimitsRequest())
    assert limits.file_bytes_max == 4_000_000


async def test_an_empty_file(room: rooms_pb2.Room, files: FileCalls) -> None:
    done = await files.send("alice", room.room_id, b"")
    assert (await files.fetch("bob", done.file.file_id)) == (done.file, b"")


async def test_a_file_whose_size_and_hash_are_known_at_the_end(
    served: ServedRooms, room: rooms_pb2.Room, files: FileCalls
) -> None:
    changes = {"size": 1_000_000, "sha256": "", "transfer_id": "ab" * 16, "piece_bytes": 30_000}
    offered = await files.offer("alice", room.room_id, **changes)
    done = await (await files.upload("alice", offered.file_id, 0)).finish(DATA, last=True)
    assert (done.file.size, done.file.sha256) == (len(DATA), sha256(DATA))
    assert (done.file.transfer_id, done.file.piece_bytes) == ("ab" * 16, 30_000)
    assert (await files.fetch("bob", done.file.file_id))[1] == DATA
    offered = await files.offer("alice", room.room_id, **changes)
    uploading = await files.upload("alice", offered.file_id, 0)
    await uploading.piece(0, b"lost")
    await uploading.until(4)
    await uploading.call.done_writing()
    assert await refusal(uploading.until_done()) == "bad_request"
    assert len(left_over(served)) == 1


async def test_the_files_of_a_room_in_pages(room: rooms_pb2.Room, files: FileCalls) -> None:
    for n in range(5):
        await files.send("alice", room.room_id, b"%d" % n, name=f"{n}.txt")
    page = await files.list("bob", "tea", page_size=3)
    assert [(one.file.name, one.seq, one.username, one.available) for one in page.files] == [
        ("4.txt", 5, "alice", True), ("3.txt", 4, "alice", True), ("2.txt", 3, "alice", True),
    ]  # fmt: skip
    page = await files.list("bob", "tea", page_size=3, before_seq=page.next_before_seq)
    assert ([one.seq for one in page.files], page.next_before_seq) == ([2, 1], 0)


async def test_the_same_transfer_is_posted_once(served: ServedRooms, room: rooms_pb2.Room, files: FileCalls) -> None:
    named = {"transfer_id": "ab" * 16}
    first = await files.send("alice", room.room_id, DATA, **named)
    again = await files.offer("alice", room.room_id, DATA, **named)
    assert (again.file_id, again.offset) == (first.file.file_id, len(DATA))
    uploading = await files.upload("alice", again.file_id, again.offset)
    assert uploading.done is not None
    assert (uploading.done.seq, uploading.done.duplicate) == (first.seq, True)
    another = await files.offer("alice", room.room_id, DATA, transfer_id="cd" * 16)
    assert another.file_id != first.file.file_id  # on purpose, a second time
    # Whoever goes on with what is unfinished calls it by the last name.
    last = await files.offer("alice", room.room_id, DATA, transfer_id="ef" * 16)
    assert last.file_id == another.file_id
    assert (await files.upload("alice", last.file_id, last.offset)).done is not None
    assert (await files.offer("alice", room.room_id, DATA, transfer_id="ef" * 16)).file_id == last.file_id
    assert len((await files.list("alice", room.room_id)).files) == 2
