"""FilesBackend in memory: keeps parts and contents, posts messages to the fake rooms, and breaks when it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from typing import TYPE_CHECKING

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.files.ports import FileInfo, FilePage, ListedFile, Offer, Offered, Progress

if TYPE_CHECKING:
    from services.edge.decisions import User
    from tests.helpers.edge_world import FakeRooms

BLOCK = 512 * 1024


class _File:
    def __init__(self, file_id: str, room_id: str, user: User, offer: Offer) -> None:
        self.file_id = file_id
        self.room_id = room_id
        self.user = user
        self.offer = offer
        self.data = bytearray()
        self.seq: int | None = None
        self.stream: FakeUpload | None = None

    @property
    def info(self) -> FileInfo:
        sha256 = hashlib.sha256(self.data).hexdigest()
        offer = self.offer
        return FileInfo(
            self.file_id, offer.name, len(self.data), sha256, offer.mime, offer.transfer_id, offer.piece_bytes
        )


class FakeFiles:
    """All that was offered, by file id. `gate` closed: nothing is stored; `failure`: every call fails with it."""

    def __init__(self, rooms: FakeRooms) -> None:
        self.files: dict[str, _File] = {}
        self.rooms = rooms
        self.failure: ParleyError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.describing = asyncio.Event()  # closed: no download is described
        self.describing.set()
        self.size_max = 1_000_000_000
        self.uploads: list[FakeUpload] = []
        self.downloads: list[FakeDownload] = []
        self.given_up: list[str] = []
        self._numbers = itertools.count(1)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def file_bytes_max(self) -> int:
        self._check()
        return self.size_max

    async def offer(self, user: User, room: str, offer: Offer) -> Offered:
        self._check()
        found = self.rooms.member(user, room)
        if offer.size > self.size_max:
            raise ParleyError(ErrorCode.TOO_LARGE, "too large")
        for file in self.files.values():
            if not offer.sha256 or (file.user.user_id, file.offer) != (user.user_id, offer):
                continue
            if file.seq is not None and offer.transfer_id:
                return Offered(file.file_id, len(file.data), file.room_id)
            if file.seq is None:
                if file.stream is not None:
                    file.stream.fail(ParleyError(ErrorCode.CONFLICT, "offered anew"))
                return Offered(file.file_id, len(file.data), file.room_id)
        file_id = f"{next(self._numbers):032x}"
        self.files[file_id] = _File(file_id, found.room_id, user, offer)
        return Offered(file_id, 0, found.room_id)

    def open_upload(self, user: User, offered: Offered) -> FakeUpload:
        stream = FakeUpload(self, self.files[offered.file_id], offered.offset)
        self.uploads.append(stream)
        return stream

    def open_download(self, user: User, file_id: str, offset: int) -> FakeDownload:
        stream = FakeDownload(self, user, file_id, offset)
        self.downloads.append(stream)
        return stream

    async def give_up(self, user: User, file_id: str) -> None:
        self._check()
        file = self.files.get(file_id)
        if file is None or file.user.user_id != user.user_id:
            raise ParleyError(ErrorCode.NO_SUCH_FILE, "no such file")
        if file.seq is not None:
            raise ParleyError(ErrorCode.CONFLICT, "it is posted")
        if file.stream is not None:
            file.stream.fail(ParleyError(ErrorCode.NO_SUCH_FILE, "cancelled"))
        del self.files[file_id]
        self.given_up.append(file_id)

    async def list_files(self, user: User, room: str, *, before: int, limit: int) -> FilePage:
        self._check()
        found = self.rooms.member(user, room)
        posted = [
            ListedFile(
                info.file_id, info.name, info.size, info.sha256, info.mime, file.user.username, file.seq, 1, True
            )
            for file in reversed(self.files.values())
            if (info := file.info) and file.room_id == found.room_id and file.seq is not None
            if not before or file.seq < before
        ]
        page = posted[:limit]
        return FilePage(found.room_id, page, page[-1].seq if len(posted) > limit else 0)


class FakeUpload:
    """One upload."""

    def __init__(self, files: FakeFiles, file: _File, offset: int) -> None:
        self.pieces: list[int] = []
        self.is_cancelled = False
        self.has_finished_writing = False
        self._files = files
        self._file = file
        self._progress: asyncio.Queue[Progress | ParleyError | None] = asyncio.Queue()
        self._offset = offset
        self._has_begun = False
        self._fault: ParleyError | None = None

    def fail(self, fault: ParleyError | None) -> None:
        """Ends, or with None just stops."""
        self._fault = fault or ParleyError(ErrorCode.UNAVAILABLE, "ended")
        self._file.stream = None
        self._progress.put_nowait(fault)

    async def write(self, offset: int, data: bytes, *, is_last: bool) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._file.stream = self
            self._progress.put_nowait(Progress(self._offset))
        await self._files.gate.wait()
        if self._fault is not None:
            raise self._fault
        file = self._file
        assert not data or offset == len(file.data)
        file.data += data
        self.pieces.append(len(data))
        self._progress.put_nowait(Progress(len(file.data)))
        if is_last or (file.offer.sha256 and len(file.data) == file.offer.size):
            self._finish()

    def _finish(self) -> None:
        file, rooms = self._file, self._files.rooms
        if file.offer.sha256 and file.info.sha256 != file.offer.sha256:
            del self._files.files[file.file_id]
            self.fail(ParleyError(ErrorCode.HASH_MISMATCH, "not what was offered"))
            return
        if file.seq is None:
            room = rooms.rooms[file.room_id]
            info = file.info
            described = {
                "file_id": info.file_id,
                "name": info.name,
                "size": info.size,
                "sha256": info.sha256,
                "mime": info.mime,
            }
            file.seq = rooms.post_file(room, file.user.username, described).seq
        file.stream = None
        self._progress.put_nowait(Progress(len(file.data), file.seq))

    async def finish_writing(self) -> None:
        self.has_finished_writing = True
        self.fail(ParleyError(ErrorCode.BAD_REQUEST, "ended before the file"))

    async def read(self) -> Progress | None:
        progress = await self._progress.get()
        if isinstance(progress, ParleyError):
            raise progress
        return progress

    def cancel(self) -> None:
        self.is_cancelled = True
        self.fail(ParleyError(ErrorCode.UNAVAILABLE, "cancelled"))


class FakeDownload:
    """One download."""

    def __init__(self, files: FakeFiles, user: User, file_id: str, offset: int) -> None:
        self.read_bytes = 0
        self.is_cancelled = False
        self.fault: ParleyError | None = None
        self._files = files
        self._user = user
        self._file_id = file_id
        self._offset = offset
        self._cancelled = asyncio.Event()

    async def describe(self) -> FileInfo:
        self._files._check()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._files.describing, self._cancelled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.is_cancelled:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the stream has ended", details={"status": "CANCELLED"})
        file = self._files.files.get(self._file_id)
        if file is None or file.seq is None:
            raise ParleyError(ErrorCode.NO_SUCH_FILE, "no such file")
        self._files.rooms.member(self._user, file.room_id)
        if self._offset > len(file.data):
            raise ParleyError(ErrorCode.BAD_REQUEST, "behind the end")
        return file.info

    async def read(self) -> bytes | None:
        if self.fault is not None:
            raise self.fault
        data = self._files.files[self._file_id].data
        block = bytes(data[self._offset : self._offset + BLOCK])
        self._offset += len(block)
        self.read_bytes += len(block)
        return block or None

    def cancel(self) -> None:
        self.is_cancelled = True
        self._cancelled.set()
