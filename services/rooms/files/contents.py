"""Where bytes are kept: the port, and its twin in memory.

A part is a file that is still coming in, named by its file id. When it is whole it becomes a content, named by its
SHA-256, and there once however many files have it. Nothing here knows people, rooms or names of files.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Protocol

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager


class StorageFullError(ParleyError):
    """The storage takes no more bytes. What was being written is of no more use."""

    def __init__(self) -> None:
        # Not `unavailable`: programs try that again by themselves, and this takes an operator.
        super().__init__(ErrorCode.QUOTA_EXCEEDED, "the server's storage is full")


class StorageFailedError(ParleyError):
    """The storage failed. What was being written is of no more use."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "the storage of files does not answer", retry_after_s=1.0)


class Part(Protocol):
    """A file that is coming in. One call at a time."""

    @property
    def offset(self) -> int:
        """So many bytes are safely stored."""
        ...

    async def append(self, pieces: Sequence[bytes]) -> int:
        """Stores the bytes behind `offset`; returns the new offset once they are synced.

        Raises StorageFullError, StorageFailedError; the part must then be discarded.
        """
        ...

    def sha256(self) -> str:
        """The hash of what is stored, in hex."""
        ...

    async def close(self) -> None:
        """Lets go of what an open file costs, when a call that was abandoned has ended. The part can be used again."""
        ...


class Reader(Protocol):
    """A content that is being read. One call at a time."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    async def read(self, offset: int, count: int) -> bytes:
        """The bytes from there on, fewer only at the end. Raises StorageFailedError."""
        ...

    async def close(self) -> None:
        """Ends it, when a call that was abandoned has ended."""
        ...


class ContentStore(Protocol):
    """Parts and contents. Ids are 32, hashes 64 lower-case hex digits. Everything raises StorageFailedError."""

    async def open_part(self, part_id: str) -> Part:
        """The part, as far as it has come; a new one where there is none.

        Raises StorageFullError, and ParleyError unavailable while another process writes it.
        """
        ...

    async def part_size(self, part_id: str) -> int:
        """How many bytes of the part are stored; 0 where there is none."""
        ...

    async def keep(self, part_id: str, sha256: str) -> bool:
        """Makes a whole, closed part a content. True when that is in place, now or since before; otherwise False."""
        ...

    async def discard(self, part_id: str) -> None:
        """Removes a part, if there is one."""
        ...

    async def open_content(self, sha256: str) -> Reader | None:
        """The content for reading; None where it is not kept."""
        ...

    def removing(self, sha256: str) -> AbstractAsyncContextManager[bool]:
        """What is done inside, nobody else does to this content meanwhile, in whatever process that has the store.

        Gives False, at once, where somebody does already; then nothing is to be done. Ends with the process.
        """
        ...

    async def remove(self, sha256: str) -> None:
        """Removes a content, if it is there. Readers that are open go on."""
        ...

    async def part_ids(self) -> list[str]:
        """All parts."""
        ...

    async def hashes(self) -> list[str]:
        """All contents."""
        ...

    async def free_bytes(self) -> int:
        """How many bytes more can be stored."""
        ...

    async def close(self) -> None:
        """Ends everything that runs."""
        ...


class MemoryPart:
    """A part in memory."""

    def __init__(self, store: MemoryContents) -> None:
        self._store = store
        self.data = bytearray()

    @property
    def offset(self) -> int:
        """See Part."""
        return len(self.data)

    async def append(self, pieces: Sequence[bytes]) -> int:
        """See Part."""
        if self._store.used_bytes + sum(map(len, pieces)) > self._store.bytes_max:
            raise StorageFullError
        for piece in pieces:
            self.data += piece
        return self.offset

    def sha256(self) -> str:
        """See Part."""
        return hashlib.sha256(self.data).hexdigest()

    async def close(self) -> None:
        """See Part."""


class MemoryReader:
    """A content in memory that is being read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def read(self, offset: int, count: int) -> bytes:
        """See Reader."""
        return self._data[offset : offset + count]

    async def close(self) -> None:
        """See Reader."""


class MemoryContents:
    """A content store that holds at most `bytes_max`, and forgets everything with the process."""

    def __init__(self, bytes_max: int = 1 << 30) -> None:
        self.bytes_max = bytes_max
        self._parts: dict[str, MemoryPart] = {}
        self._contents: dict[str, bytes] = {}
        self._removing: set[str] = set()

    @property
    def used_bytes(self) -> int:
        """How much is stored."""
        return sum(part.offset for part in self._parts.values()) + sum(map(len, self._contents.values()))

    async def open_part(self, part_id: str) -> MemoryPart:
        """See ContentStore."""
        return self._parts.setdefault(part_id, MemoryPart(self))

    async def part_size(self, part_id: str) -> int:
        """See ContentStore."""
        part = self._parts.get(part_id)
        return part.offset if part else 0

    async def keep(self, part_id: str, sha256: str) -> bool:
        """See ContentStore."""
        part = self._parts.pop(part_id, None)
        if part is not None and sha256 not in self._contents:
            self._contents[sha256] = bytes(part.data)
        return sha256 in self._contents

    async def discard(self, part_id: str) -> None:
        """See ContentStore."""
        self._parts.pop(part_id, None)

    async def open_content(self, sha256: str) -> MemoryReader | None:
        """See ContentStore."""
        data = self._contents.get(sha256)
        return None if data is None else MemoryReader(data)

    @contextlib.asynccontextmanager
    async def removing(self, sha256: str) -> AsyncIterator[bool]:
        """See ContentStore."""
        if sha256 in self._removing:
            yield False
            return
        self._removing.add(sha256)
        try:
            yield True
        finally:
            self._removing.discard(sha256)

    async def remove(self, sha256: str) -> None:
        """See ContentStore."""
        self._contents.pop(sha256, None)

    async def part_ids(self) -> list[str]:
        """See ContentStore."""
        return sorted(self._parts)

    async def hashes(self) -> list[str]:
        """See ContentStore."""
        return sorted(self._contents)

    async def free_bytes(self) -> int:
        """See ContentStore."""
        return self.bytes_max - self.used_bytes

    async def close(self) -> None:
        """See ContentStore."""
