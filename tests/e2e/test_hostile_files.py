"""Files in bad hands and on bad days, over a real stack: a clear error, nothing left on the disk, the quota right."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.file_client import CHUNK, fetch, offer, send_file, upload
from tests.helpers.people import People
from tests.helpers.raw_client import RawClient
from tests.helpers.stack import FAST_CONFIG, Stack, running_stack

DATA = os.urandom(1_000_000)
QUOTA = 3_000_000
LIMITED = (
    f"{FAST_CONFIG}[rooms]\nfile_bytes_max = 2000000\nfile_bytes_per_user_max = {QUOTA}\nunfinished_files_max = 2\n"
)
DISK_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def limited() -> Iterator[Stack]:
    """A stack with narrow quotas, which the tests of this module share."""
    with running_stack(config=LIMITED) as stack:
        yield stack


@pytest.fixture
async def crowd(limited: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(limited, exits)


def parts(stack: Stack) -> list[str]:
    return sorted(path.name for path in (stack.home / "data" / "files" / "parts").iterdir())


async def quota_is_right(client: RawClient, room_id: str, *, kept: int = 0) -> None:
    """All that is not kept may be offered, and not a byte more."""
    size = min(QUOTA - kept, 2_000_000)
    offered = await client.expect("file_offer", {"name": "q", "size": size, "sha256": "1" * 64}, room_id=room_id)
    rest = QUOTA - kept - size
    if rest < 2_000_000:
        over = {"name": "r", "size": rest + 1, "sha256": "2" * 64}
        assert await client.refused("file_offer", over, room_id=room_id) == "quota_exceeded"
    await client.expect("file_cancel", {"file_id": offered["file_id"]})


NAMES = ["../x", "/etc/passwd", "a\0b", "\x1b[2J", "x" * 5_000, "é" * 200, "..", "", "a\\b", "\u202egpj.exe", "a\nb"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_names_that_are_none(crowd: People, limited: Stack, name: str) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    fields = {"name": name, "size": 5, "sha256": "0" * 64}
    assert await amy.refused("file_offer", fields, room_id=room_id) in ("bad_request", "bad_json")
    await quota_is_right(amy, room_id)


@pytest.mark.parametrize("name", ["CON", "nul.txt", "COM1", "раypal.txt", "con‌.txt.", "-rf", ".bashrc", "~"])
async def test_names_that_are_somebody_elses_problem_come_as_they_were_sent(crowd: People, name: str) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    reply = await amy.request("file_offer", {"name": name, "size": 5, "sha256": "0" * 64}, room_id=room_id)
    assert reply["type"] == "success" or reply["data"]["code"] == "bad_request"


WRONG: dict[str, list[tuple[int, bytes]]] = {
    "out of order": [(CHUNK, DATA[:CHUNK])],
    "twice": [(0, DATA[:CHUNK]), (0, DATA[:CHUNK])],
    "with a gap": [(0, DATA[:CHUNK]), (CHUNK + 1, DATA[:CHUNK])],
    "past the end": [(0, DATA[:CHUNK]), (CHUNK, DATA[:CHUNK])],
    "far away": [(2**64 - 1, b"x")],
    "empty": [(0, b"")],
}


@pytest.mark.parametrize("how", WRONG)
async def test_chunks_that_do_not_belong_there(crowd: People, limited: Stack, how: str) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    size = CHUNK + 1 if how == "past the end" else len(DATA)
    offered = await offer(amy, room_id, DATA[:size])
    for offset, data in WRONG[how]:
        await amy.send_chunk(offered["file_id"], offset, data)
    assert (await amy.event("error", file_id=offered["file_id"]))["data"]["code"] == "bad_request"
    await amy.expect("file_cancel", {"file_id": offered["file_id"]})
    assert offered["file_id"] not in parts(limited)
    await quota_is_right(amy, room_id)


async def test_a_wrong_hash(crowd: People, limited: Stack) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    offered = await offer(amy, room_id, DATA[:1000], sha256="0" * 64)
    await amy.send_chunk(offered["file_id"], 0, DATA[:1000])
    assert (await amy.event("error", file_id=offered["file_id"]))["data"]["code"] == "hash_mismatch"
    assert offered["file_id"] not in parts(limited)
    assert await amy.refused("file_get", {"file_id": offered["file_id"]}) == "no_such_file"
    await quota_is_right(amy, room_id)


@pytest.mark.parametrize("size", [-1, 2**63, "5", None, 1.5, 2_000_001])
async def test_sizes_that_are_none(crowd: People, size: Any) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    fields = {"name": "x", "size": size, "sha256": "0" * 64}
    assert await amy.refused("file_offer", fields, room_id=room_id) in ("bad_request", "too_large", "bad_json")
    await quota_is_right(amy, room_id)


async def test_after_a_cancel_chunks_go_nowhere(crowd: People, limited: Stack) -> None:
    amy = await crowd.person()
    room_id = await crowd.room(amy)
    offered = await offer(amy, room_id, DATA)
    await amy.send_chunk(offered["file_id"], 0, DATA[:CHUNK])
    await amy.event("file_ack")
    await amy.expect("file_cancel", {"file_id": offered["file_id"]})
    await amy.send_chunk(offered["file_id"], CHUNK, DATA[:CHUNK])
    assert (await amy.event("error"))["data"]["code"] == "no_such_file"
    assert offered["file_id"] not in parts(limited)
    assert await amy.refused("file_cancel", {"file_id": offered["file_id"]}) == "no_such_file"
    await quota_is_right(amy, room_id)


async def test_whoever_is_no_member_gets_nothing_by_knowing_the_id(crowd: People) -> None:
    amy, eve = await crowd.person(), await crowd.person()
    room_id = await crowd.room(amy)
    hidden = str((await amy.expect("create_room", {"name": f"p{room_id}", "private": True}))["room_id"])
    for room, code in ((room_id, "not_a_member"), (hidden, "no_such_file")):
        file_id = await send_file(amy, room, DATA[:1000], name=room)
        assert await eve.refused("file_get", {"file_id": file_id}) == code
        assert await eve.refused("file_cancel", {"file_id": file_id}) == "no_such_file"
        offered = await offer(amy, room, DATA[:5000], name=f"{room}.2")
        await eve.send_chunk(offered["file_id"], 0, DATA[:5000])
        assert (await eve.event("error"))["data"]["code"] == "no_such_file"
        await amy.expect("file_cancel", {"file_id": offered["file_id"]})
    # A hash opens nothing either: whoever has heard of it sends the bytes.
    own = await crowd.room(eve)
    assert (await offer(eve, own, DATA[:1000]))["offset"] == 0


async def test_ten_thousand_offers_at_once(crowd: People, limited: Stack) -> None:
    amy, bob = await crowd.person(), await crowd.person()
    room_id = await crowd.room(amy, bob)
    codes: dict[str, int] = {}
    taken: list[str] = []

    async def read() -> None:
        for _ in range(10_000):
            frame = await amy.wait_for(lambda frame: "re" in frame, 60.0)
            code = frame["data"].get("code", "success")
            codes[code] = codes.get(code, 0) + 1
            if code == "success":
                taken.append(frame["data"]["file_id"])

    reader = asyncio.create_task(read())
    for number in range(10_000):
        data = {"name": f"{number}", "size": 5, "sha256": f"{number:064x}"}
        await amy.send("file_offer", data, room_id=room_id, id=number)
    await reader
    assert set(codes) <= {"success", "rate_limited", "overloaded", "quota_exceeded"}
    assert len(taken) <= 2  # unfinished_files_max
    assert (await bob.say(room_id, "still there"))["seq"] == 1
    for file_id in taken:
        await _again_and_again(amy, "file_cancel", {"file_id": file_id})
    await asyncio.sleep(1.0)  # until more requests are taken from amy
    await quota_is_right(amy, room_id)


async def _again_and_again(client: RawClient, request: str, data: dict[str, Any]) -> None:
    reply = await client.request(request, data)
    while reply["data"].get("code") == "rate_limited":
        await asyncio.sleep(reply["data"]["retry_after_s"])
        reply = await client.request(request, data)
    assert reply["type"] == "success", reply


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        if os.environ.get("PARLEY_REQUIRE_ALL") == "1":
            pytest.fail(f"a small file system cannot be mounted: {done.stderr}")
        pytest.skip("mounting a small file system needs a privilege that is not there")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)


async def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    config = f'{FAST_CONFIG}[rooms]\nfiles_dir = "{small_disk}"\ndisk_free_bytes_min = 0\nunfinished_files_max = 1\n'
    async with AsyncExitStack() as exits:
        stack = exits.enter_context(running_stack(config=config))
        people = People(stack, exits)
        amy, bob = await people.person(), await people.person()
        room_id = await people.room(amy, bob)
        data = os.urandom(4_000_000)
        assert (
            await amy.refused("file_offer", {"name": "x", "size": 2 * DISK_BYTES, "sha256": "0" * 64}, room_id=room_id)
            == "quota_exceeded"
        )
        offered = await offer(amy, room_id, data)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(DISK_BYTES - 2_000_000))  # somebody else's, since the offer
        with pytest.raises(AssertionError, match="storage is full"):
            await upload(amy, offered["file_id"], data)
        assert list((small_disk / "parts").iterdir()) == []
        assert (await bob.say(room_id, "chat goes on"))["seq"] == 1
        filler.unlink()
        file_id = await send_file(amy, room_id, data)  # the one place for unfinished files is free again
        assert (await fetch(bob, file_id))[1] == data
        assert list((small_disk / "parts").iterdir()) == []


async def test_kill_9_of_rooms_and_of_the_edge_half_way(own_stack: Stack) -> None:
    data = os.urandom(3_000_000)
    async with AsyncExitStack() as exits:
        people = People(own_stack, exits)
        amy = await people.person()
        room_id, name = await people.room(amy), amy.username
        transfer = {"transfer_id": "ab" * 16}
        offered = await offer(amy, room_id, data, **transfer)
        for victim in ("rooms-1", "edge-1"):
            offset = offered["offset"]
            for start in range(offset, offset + 10 * CHUNK, CHUNK):
                await amy.send_chunk(offered["file_id"], start, data[start : start + CHUNK])
            acknowledged = (await amy.event("file_ack", file_id=offered["file_id"]))["data"]["offset"]
            own_stack.kill(victim)
            await people.heal()
            amy.abort()
            amy = await people.connect()
            await amy.expect("auth_request", {"username": name, "password": "correct horse battery", "takeover": True})
            offered = await offer(amy, room_id, data, **transfer)
            assert offered["offset"] >= acknowledged, victim
        await upload(amy, offered["file_id"], data, offered["offset"])
        assert parts(own_stack) == []
        own_stack.kill("rooms-1")  # in the middle of a download, as it will be for the one that follows
        await people.heal()
        assert (await fetch(amy, offered["file_id"], 1_000_000))[1] == data[1_000_000:]
        again = await offer(amy, room_id, data, **transfer)
        assert (again["file_id"], again["offset"]) == (offered["file_id"], len(data))
        page = await amy.expect("history", {}, room_id=room_id)
        assert sum("file" in message for message in page["messages"]) == 1
