"""Bytes on the local disk: `parts/<file id>` while they come in, `contents/<two digits>/<sha256>` when they are whole.

What is acknowledged is synced; a name is durable because its directory is synced after it was made. A part becomes a
content by being renamed. Hashing and everything that touches the disk runs on a few threads of its own: hashing a part
goes along with writing it, and releases the interpreter lock.

Opened again after a restart a part is hashed from its beginning, and as long as its file is. Bytes that were written
and not acknowledged count if they are there: file systems that order data before sizes (ext4, XFS,
Btrfs) show no others, and the hash of the whole has the last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.rooms.files import rules
from services.rooms.files.contents import StorageFailedError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

T = TypeVar("T")

THREADS: Final = 4
"""Hashing is as fast as two or three disks; more threads than this only take turns."""

_HASH_BLOCK_BYTES: Final = 1024 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_log = get_logger(__name__)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.error("storage of files failed", errno=errno.errorcode.get(error.errno or 0), exc_info=error)
        raise (StorageFullError() if error.errno in _FULL else StorageFailedError()) from error


class _Threads:
    """Runs functions on threads. A call whose caller has gone runs to its end; `settle` waits for that."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._busy: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        self._busy = future
        return await asyncio.shield(future)

    async def settle(self) -> None:
        while self._busy is not None and not self._busy.done():
            await asyncio.wait([self._busy])
        if self._busy is not None and not self._busy.cancelled():
            self._busy.exception()  # whoever waited for it has been told, or has gone
        self._busy = None


class LocalPart:
    """A part in a file. The file is open only while it is written to, and then locked against other processes."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor) -> None:
        self._path = path
        self._threads = _Threads(pool)
        self._handle: int | None = None
        self._hash = hashlib.sha256()
        self.offset = 0

    async def open(self) -> None:
        """Finds out how far it has come."""
        await self._threads.run(self._open)

    async def append(self, pieces: Sequence[bytes]) -> int:
        """See Part."""
        return await self._threads.run(self._append, pieces)

    def sha256(self) -> str:
        """See Part."""
        return self._hash.hexdigest()

    async def close(self) -> None:
        """See Part."""
        await self._threads.settle()
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)  # nothing is left to be written: this does not wait

    def _open(self) -> None:
        with _translated():
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._lock(handle)
                size = os.fstat(handle).st_size
                if size != self.offset:
                    self._hash_again(handle, size)
                _sync_directory(self._path.parent)
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParleyError(
                ErrorCode.UNAVAILABLE, "this file is being written elsewhere", retry_after_s=1.0
            ) from None

    def _hash_again(self, handle: int, size: int) -> None:
        os.fdatasync(handle)
        fresh = hashlib.sha256()
        offset = 0
        while offset < size:
            block = os.pread(handle, _HASH_BLOCK_BYTES, offset)
            if not block:
                raise OSError(errno.EIO, "the file is shorter than it was")
            fresh.update(block)
            offset += len(block)
        self._hash, self.offset = fresh, size

    def _append(self, pieces: Sequence[bytes]) -> int:
        expected = self.offset
        if self._handle is None:
            self._open()
        assert self._handle is not None, "opened above"
        with _translated():
            if self.offset != expected:
                raise OSError(errno.EIO, "the file has changed while it was closed")
            total = 0
            for piece in pieces:  # each is hashed while the processor still has it from writing
                _write(self._handle, piece)
                self._hash.update(piece)
                total += len(piece)
            os.fdatasync(self._handle)
        # Here and not where it is waited for: whoever waits may have gone, and these bytes are there all the same.
        self.offset += total
        return self.offset


class LocalReader:
    """A content in a file that is being read."""

    def __init__(self, handle: int, size: int, pool: ThreadPoolExecutor) -> None:
        self._handle = handle
        self._threads = _Threads(pool)
        self.size = size

    async def read(self, offset: int, count: int) -> bytes:
        """See Reader."""
        return await self._threads.run(self._read, offset, count)

    async def close(self) -> None:
        """See Reader."""
        await self._threads.settle()
        os.close(self._handle)

    def _read(self, offset: int, count: int) -> bytes:
        with _translated():
            return os.pread(self._handle, count, offset)


class LocalContents:
    """The content store below one directory, which several instances on one machine may share."""

    def __init__(self, directory: Path) -> None:
        self._parts = directory / "parts"
        self._contents = directory / "contents"
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
        for path in (self._parts, self._contents):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def open_part(self, part_id: str) -> LocalPart:
        """See ContentStore."""
        part = LocalPart(self._part_path(part_id), self._pool)
        try:
            await part.open()
        except BaseException:
            await part.close()
            raise
        return part

    async def part_size(self, part_id: str) -> int:
        """See ContentStore."""
        return await self._run(_size, self._part_path(part_id))

    async def keep(self, part_id: str, sha256: str) -> bool:
        """See ContentStore."""
        return await self._run(_keep, self._part_path(part_id), self._content_path(sha256))

    async def discard(self, part_id: str) -> None:
        """See ContentStore."""
        await self._run(_unlink, self._part_path(part_id))

    async def open_content(self, sha256: str) -> LocalReader | None:
        """See ContentStore."""
        found = await self._run(_open_content, self._content_path(sha256))
        return None if found is None else LocalReader(*found, self._pool)

    @contextlib.asynccontextmanager
    async def removing(self, sha256: str) -> AsyncIterator[bool]:
        """See ContentStore. The lock is on the directory, so contents whose hashes begin alike share it."""
        handle = await self._run(_lock, self._content_path(sha256).parent)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                os.close(handle)

    async def remove(self, sha256: str) -> None:
        """See ContentStore."""
        await self._run(_unlink, self._content_path(sha256))

    async def part_ids(self) -> list[str]:
        """See ContentStore."""
        return await self._run(lambda: sorted(path.name for path in self._parts.iterdir()))

    async def hashes(self) -> list[str]:
        """See ContentStore."""
        return await self._run(lambda: sorted(path.name for path in self._contents.glob("??/*")))

    async def free_bytes(self) -> int:
        """See ContentStore."""
        return await self._run(self._free_bytes)

    async def close(self) -> None:
        """See ContentStore."""
        await asyncio.to_thread(self._pool.shutdown)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        def guarded() -> T:
            with _translated():
                return work(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)

    def _free_bytes(self) -> int:
        status = os.statvfs(self._parts)
        return status.f_bavail * status.f_frsize

    def _part_path(self, part_id: str) -> Path:
        # A defect elsewhere must not become a path: what is no id is no name here.
        assert rules.is_file_id(part_id), "ids are made by the service"
        return self._parts / part_id

    def _content_path(self, sha256: str) -> Path:
        assert rules.is_sha256(sha256), "hashes are made or checked by the service"
        return self._contents / sha256[:2] / sha256


def _write(handle: int, piece: bytes) -> None:
    """Writes all of it; a disk that fills up takes a part first and fails with the rest."""
    written = os.write(handle, piece)
    if written < len(piece):
        rest = memoryview(piece)[written:]
        while rest:
            rest = rest[os.write(handle, rest) :]


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """An open directory that is locked until it is closed; None where another one has locked it."""
    path.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _keep(part: Path, content: Path) -> bool:
    if content.exists():
        part.unlink(missing_ok=True)
        return True
    if not part.exists():
        return False
    if not content.parent.exists():
        content.parent.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(content.parent.parent)
    part.rename(content)
    _sync_directory(content.parent)
    return True


def _open_content(path: Path) -> tuple[int, int] | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    return handle, os.fstat(handle).st_size
