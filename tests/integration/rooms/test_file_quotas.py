"""Files when there is no room for them: quotas, a full disk, far too many offers; and that nothing stays behind."""

from __future__ import annotations

import asyncio
import collections
import errno
from typing import TYPE_CHECKING, Any

import pytest

from services.rooms.files import local_contents
from tests.helpers.file_calls import FileCalls, sha256
from tests.helpers.served_rooms import refusal, serve_rooms

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = bytes(1_000_000)
OFFERS = 10_000
AT_ONCE = 500


def left_over(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "data" / "files").rglob("*") if path.is_file())


async def test_quotas_are_right_after_everything(tmp_path: Path) -> None:
    limits = {"file_bytes_per_user_max": 3_000_000, "files_per_room_max": 4, "unfinished_files_max": 2}
    async with serve_rooms(tmp_path, disk_free_bytes_min=0, **limits) as served:
        edge = await served.edge()
        await edge.create("alice", "tea")
        await edge.join("bob", "tea")
        files = FileCalls(edge.channel)
        first = await files.offer("alice", "tea", MEGABYTE, name="1")
        await files.offer("alice", "tea", MEGABYTE, name="2")
        assert await refusal(files.offer("alice", "tea", b"", name="3")) == "quota_exceeded"  # unfinished
        await (await files.upload("alice", first.file_id, 0)).finish(MEGABYTE)
        await files.send("alice", "tea", MEGABYTE, name="3")
        assert await refusal(files.offer("alice", "tea", b"x", name="4")) == "quota_exceeded"  # bytes of a person
        again = await files.offer("alice", "tea", MEGABYTE, name="2")
        await files.cancel("alice", again.file_id)
        other = await files.offer("alice", "tea", b"y" * len(MEGABYTE), name="5")
        uploading = await files.upload("alice", other.file_id, 0)
        assert await refusal(uploading.finish(b"x" * len(MEGABYTE))) == "hash_mismatch"
        await files.send("alice", "tea", MEGABYTE, name="6")
        await files.send("bob", "tea", b"", name="7")
        assert await refusal(files.offer("bob", "tea", b"", name="8")) == "quota_exceeded"  # files of the room
        assert len(left_over(tmp_path)) == 2, "the content that three files have, and the empty one"


async def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_rooms(tmp_path, disk_free_bytes_min=0) as served:
        edge = await served.edge()
        await edge.create("alice", "tea")
        files = FileCalls(edge.channel)
        offered = await files.offer("alice", "tea", MEGABYTE)
        uploading = await files.upload("alice", offered.file_id, 0)
        await uploading.piece(0, MEGABYTE[:1000])
        await uploading.until(1000)

        def write(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        with monkeypatch.context() as full:
            full.setattr(local_contents, "_write", write)
            await uploading.piece(1000, MEGABYTE[1000:2000])
            assert await refusal(uploading.until_done()) == "quota_exceeded"
        assert left_over(tmp_path) == []
        assert await refusal(files.upload("alice", offered.file_id, 0)) == "no_such_file"
        assert (await files.send("alice", "tea", MEGABYTE)).seq == 1


async def test_a_disk_that_is_nearly_full_takes_no_offers(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, disk_free_bytes_min=1 << 60) as served:
        edge = await served.edge()
        await edge.create("alice", "tea")
        assert await refusal(FileCalls(edge.channel).offer("alice", "tea", b"x")) == "quota_exceeded"


@pytest.mark.timeout(300)
async def test_ten_thousand_offers(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, disk_free_bytes_min=0) as served:
        edge = await served.edge()
        await edge.create("alice", "tea")
        files = FileCalls(edge.channel)
        places = asyncio.Semaphore(AT_ONCE)
        answers: collections.Counter[str] = collections.Counter()
        taken: list[str] = []

        async def offer(n: int) -> None:
            async with places:
                changes = {"name": f"{n}.bin", "size": 5, "sha256": sha256(b"12345")}
                try:
                    taken.append((await files.offer("alice", "tea", **changes)).file_id)
                except Exception as error:  # noqa: BLE001 - counted by its code
                    answers[await refusal(_raise(error))] += 1

        async with asyncio.timeout(280):
            await asyncio.gather(*(offer(n) for n in range(OFFERS)))
        assert len(taken) == 32
        assert set(answers) <= {"quota_exceeded", "overloaded", "unavailable"}
        assert left_over(tmp_path) == []
        for file_id in taken:
            await files.cancel("alice", file_id)
        assert (await files.send("alice", "tea", MEGABYTE)).seq == 1


async def _raise(error: Exception) -> None:
    raise error
