"""One download: a posted file's bytes, a block at a time, for as long as somebody takes them and may have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.common.errors import ParleyError
    from services.rooms.files.contents import Reader
    from services.rooms.files.store import FileRecord

BLOCK_BYTES: Final = 512 * 1024
"""Read and sent at once: the cost is by the call, and this is what a download holds here, with as much in gRPC."""


class Download:
    """A posted file on its way to `user_id`."""

    def __init__(self, record: FileRecord, reader: Reader, user_id: str) -> None:
        self.record = record
        self.user_id = user_id
        self._reader = reader
        self._fault: ParleyError | None = None

    def fail(self, fault: ParleyError) -> None:
        """Ends it with this error before the next block."""
        self._fault = fault

    async def blocks(self, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """The bytes from there on, each block with where it begins. Raises ParleyError."""
        size = self.record.file.size
        while offset < size:
            data = await self._reader.read(offset, min(BLOCK_BYTES, size - offset))
            if self._fault is not None:
                raise self._fault
            assert data, "the content is as long as its file"
            yield offset, data
            offset += len(data)

    async def close(self) -> None:
        """Ends it."""
        await self._reader.close()
