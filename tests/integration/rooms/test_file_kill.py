"""kill -9 in the middle of an upload: what was acknowledged need not be sent again, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.helpers.file_calls import FileCalls
from tests.helpers.rooms_process import rooms_process

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(3).randbytes(6_000_000)
LIVES = 2


@pytest.mark.timeout(240)  # each life is a process that starts
async def test_kill_9_half_way_and_at_the_end(tmp_path: Path) -> None:
    async with rooms_process(tmp_path) as (started, edge):
        await edge.create("alice", "tea")
        await edge.join("bob", "tea")
    acknowledged = 0
    for life in range(LIVES):
        async with rooms_process(tmp_path) as (started, edge):
            files = FileCalls(edge.channel)
            offered = await files.offer("alice", "tea", DATA)
            assert offered.offset >= acknowledged, "what was acknowledged is there"
            uploading = await files.upload("alice", offered.file_id, offered.offset)
            end = len(DATA) * (life + 1) // (LIVES + 1)
            for start in range(offered.offset, end, 100_000):
                await uploading.piece(start, DATA[start : min(start + 100_000, end)])
            await uploading.until(end // 2 if life % 2 else end)
            acknowledged = uploading.acknowledged
            started.kill()
            await uploading.end()
    # Dying when everything is there: perhaps before the message is posted, perhaps after.
    (tmp_path / "data" / "files" / "parts" / ("f" * 32)).write_bytes(b"nobody knows it")
    async with rooms_process(tmp_path) as (started, edge):
        files = FileCalls(edge.channel)
        offered = await files.offer("alice", "tea", DATA)
        uploading = await files.upload("alice", offered.file_id, offered.offset)
        uploading.size = len(DATA)
        finishing = asyncio.create_task(uploading.finish(DATA, offered.offset))
        await uploading.everything.wait()
        started.kill()
        await asyncio.wait([finishing])
        finishing.exception()
    async with rooms_process(tmp_path) as (_, edge):
        files = FileCalls(edge.channel)
        if not (await files.list("alice", "tea")).files:
            again = await files.offer("alice", "tea", DATA)
            assert again.file_id == offered.file_id
            done = await (await files.upload("alice", again.file_id, again.offset)).finish(DATA, again.offset)
        else:
            repeated = await files.upload("alice", offered.file_id, offered.offset)
            assert repeated.done is not None
            done = repeated.done
        assert done.seq == 1
        assert (await files.fetch("bob", offered.file_id))[1] == DATA
        kept = [path for path in (tmp_path / "data" / "files").rglob("*") if path.is_file()]
        assert len(kept) == 1, "neither parts nor orphans"
