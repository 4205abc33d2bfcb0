"""Files on the disk: what is durable, what is locked, and what a failing disk looks like."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.files.contents import StorageFailedError, StorageFullError
from services.rooms.files.local_contents import LocalContents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PART = "a" * 32
HASH = "0123456789abcdef" * 4


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalContents]:
    made = LocalContents(tmp_path)
    yield made
    await made.close()


async def test_bytes_are_synced_before_they_are_acknowledged(
    store: LocalContents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def fdatasync(handle: int) -> None:
        real(handle)
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    part = await store.open_part(PART)
    for n in range(1, 4):
        await part.append([b"x" * 10, b"y" * 5])
        assert synced[-1] == part.offset == n * 15
    await part.close()
    assert (tmp_path / "parts" / PART).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, StorageFullError), (errno.EDQUOT, StorageFullError), (errno.EIO, StorageFailedError)],
)
@pytest.mark.parametrize("call", ["write", "fdatasync"])
async def test_a_failing_disk(
    store: LocalContents, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[ParleyError]
) -> None:
    part = await store.open_part(PART)

    def fail(*_: Any) -> int:
        raise OSError(code, "injected")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind):
        await part.append([b"x"])
    assert part.offset == 0
    await part.close()
    await store.discard(PART)
    assert await store.part_ids() == []


async def test_a_disk_that_takes_a_part(store: LocalContents, monkeypatch: pytest.MonkeyPatch) -> None:
    part = await store.open_part(PART)
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:3]))
    await part.append([b"0123456789"])
    await part.close()
    monkeypatch.undo()
    again = await store.open_part(PART)
    assert (again.offset, again.sha256()) == (10, part.sha256())
    await again.close()


async def test_a_part_that_another_writes_is_locked(store: LocalContents, tmp_path: Path) -> None:
    part = await store.open_part(PART)
    other = LocalContents(tmp_path)
    with pytest.raises(ParleyError) as caught:
        await other.open_part(PART)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await part.append([b"abc"])
    await part.close()
    theirs = await other.open_part(PART)
    await theirs.append([b"def"])
    await theirs.close()
    with pytest.raises(StorageFailedError):  # it is not what this one knows any more
        await part.append([b"ghi"])
    await part.close()
    await other.close()


async def test_a_link_in_the_place_of_a_part_is_not_followed(store: LocalContents, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "parts" / PART).symlink_to(target)
    with pytest.raises(StorageFailedError):
        await store.open_part(PART)
    assert target.read_bytes() == b"precious"


async def test_what_is_no_id_is_no_path(store: LocalContents) -> None:
    for bad in ("../" + "a" * 29, "A" * 32, "", "a" * 31 + "\n"):
        with pytest.raises(AssertionError):
            await store.discard(bad)
    for bad in ("../" + "a" * 61, HASH.upper(), HASH + "\n"):
        with pytest.raises(AssertionError):
            await store.remove(bad)


async def test_an_abandoned_call_ends_before_the_file_is_closed(
    store: LocalContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = await store.open_part(PART)
    began, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = os.fdatasync

    def fdatasync(handle: int) -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    writing = asyncio.create_task(part.append([b"x"]))
    await began.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    closing = asyncio.create_task(part.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    # What it wrote counts, and the part goes on behind it.
    assert part.offset == 1
    assert await part.append([b"y"]) == 2
    assert part.sha256() == hashlib.sha256(b"xy").hexdigest()
    await part.close()
