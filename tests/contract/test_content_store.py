"""What every content store must do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from services.rooms.files.contents import ContentStore, MemoryContents, StorageFullError
from services.rooms.files.local_contents import LocalContents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PART, OTHER = "a" * 32, "b" * 32
DATA = bytes(range(256)) * 5_000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContentStore]:
    made: ContentStore = MemoryContents() if request.param == "memory" else LocalContents(tmp_path / "files")
    yield made
    await made.close()


async def put(store: ContentStore, part_id: str, data: bytes) -> bool:
    part = await store.open_part(part_id)
    await part.append([data])
    await part.close()
    return await store.keep(part_id, hashlib.sha256(data).hexdigest())


async def test_a_part_grows_and_knows_its_hash(store: ContentStore) -> None:
    assert await store.part_size(PART) == 0
    part = await store.open_part(PART)
    assert (part.offset, part.sha256()) == (0, hashlib.sha256(b"").hexdigest())
    assert await part.append([DATA[:10], DATA[10:700_000]]) == 700_000
    await part.close()
    assert await store.part_size(PART) == part.offset == 700_000
    assert await part.append([DATA[700_000:]]) == len(DATA)
    assert part.sha256() == HASH
    await part.close()
    assert await store.part_ids() == [PART]


async def test_a_part_is_found_again(store: ContentStore) -> None:
    part = await store.open_part(PART)
    await part.append([DATA[:1000]])
    await part.close()
    again = await store.open_part(PART)
    assert again.offset == 1000
    await again.append([DATA[1000:]])
    assert again.sha256() == HASH
    await again.close()


async def test_a_whole_part_becomes_a_content(store: ContentStore) -> None:
    assert await put(store, PART, DATA)
    assert (await store.part_ids(), await store.hashes()) == ([], [HASH])
    assert await store.keep(PART, HASH), "again: it is in place"
    reader = await store.open_content(HASH)
    assert reader is not None
    assert reader.size == len(DATA)
    assert await reader.read(5, 10) == DATA[5:15]
    assert await reader.read(len(DATA) - 3, 10) == DATA[-3:]
    assert await reader.read(len(DATA), 10) == b""
    await reader.close()


async def test_an_equal_content_is_kept_once(store: ContentStore) -> None:
    assert await put(store, PART, DATA)
    assert await put(store, OTHER, DATA)
    assert (await store.part_ids(), await store.hashes()) == ([], [HASH])


async def test_an_empty_content(store: ContentStore) -> None:
    part = await store.open_part(PART)
    await part.close()
    assert await store.keep(PART, part.sha256())
    reader = await store.open_content(part.sha256())
    assert reader is not None
    assert (reader.size, await reader.read(0, 10)) == (0, b"")
    await reader.close()


async def test_what_is_not_there(store: ContentStore) -> None:
    assert not await store.keep(PART, HASH)
    assert await store.open_content(HASH) is None
    await store.discard(PART)
    await store.remove(HASH)


async def test_what_is_removed_can_be_read_to_its_end(store: ContentStore) -> None:
    await put(store, PART, DATA)
    reader = await store.open_content(HASH)
    assert reader is not None
    await store.remove(HASH)
    assert await store.hashes() == []
    assert await reader.read(0, len(DATA)) == DATA
    await reader.close()


async def test_a_discarded_part_is_gone(store: ContentStore) -> None:
    part = await store.open_part(PART)
    await part.append([DATA])
    await part.close()
    await store.discard(PART)
    assert (await store.part_ids(), await store.part_size(PART)) == ([], 0)


async def test_free_space_is_told(store: ContentStore) -> None:
    assert await store.free_bytes() > len(DATA)


async def test_a_full_store_says_so() -> None:
    store = MemoryContents(bytes_max=10)
    part = await store.open_part(PART)
    await part.append([b"12345"])
    with pytest.raises(StorageFullError):
        await part.append([b"123456"])
    assert part.offset == 5


async def test_one_at_a_time_removes_a_content(store: ContentStore, tmp_path: Path) -> None:
    other = LocalContents(tmp_path / "files") if isinstance(store, LocalContents) else store  # another process
    async with store.removing(HASH) as is_mine:
        assert is_mine
        async with other.removing(HASH) as is_theirs:
            assert not is_theirs
        async with store.removing(HASH) as is_mine_again:
            assert not is_mine_again
    async with other.removing(HASH) as is_theirs:
        assert is_theirs
    assert await store.hashes() == []
    if other is not store:
        await other.close()
