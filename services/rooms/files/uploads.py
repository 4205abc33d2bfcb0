"""All uploads of this instance: how they begin, break, go on, and become a message.

An upload that breaks leaves its part and, in memory, the hash of what is there, so that going on costs nothing; after a
restart the part is hashed anew. When all bytes are there: compare the hash; say in the database that the file is whole;
put the content into its place; append the message, which makes the file posted in the same transaction. Whatever
breaks in between, the same upload again takes up where that stopped, and the message's key, made from the file's id,
is stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode
from services.rooms.files import store
from services.rooms.files.contents import StorageFailedError, StorageFullError
from services.rooms.files.store import OPEN, WHOLE
from services.rooms.files.upload import Upload
from services.rooms.messages import Outcome, Publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.common.clock import Clock
    from services.common.db import Database
    from services.rooms.counts import FileCounts
    from services.rooms.files.contents import ContentStore, Part
    from services.rooms.files.store import BeginRemoval, FileRecord
    from services.rooms.log import MessageLog
    from services.rooms.messages import File

KEY_PREFIX: Final = "f"
"""Keys of clients begin with `c`, those of edges with `e`."""

RESTING_PARTS_MAX: Final = 1_024
"""Broken uploads whose hash is kept in memory, at some 500 bytes each; others are hashed anew when they go on."""

INTERRUPT_S: Final = 5.0
"""An upload that was told to end does so when its batch is synced."""

_REMOVAL_ATTEMPTS: Final = 50
_REMOVAL_WAIT_S: Final = 0.1
# What a post is refused with when it never will be accepted.
_GONE: Final = frozenset({ErrorCode.NOT_A_MEMBER, ErrorCode.NO_SUCH_ROOM, ErrorCode.NO_SUCH_FILE})
_log = get_logger(__name__)


class Posted(NamedTuple):
    """The message that posts a file."""

    room_id: str
    outcome: Outcome
    file: File


class Uploads:
    """The uploads under way, and what is left of those that broke. Used from one event loop. Raises ParleyError."""

    def __init__(
        self,
        database: Database,
        *,
        contents: ContentStore,
        log: MessageLog,
        clock: Clock,
        counts: FileCounts,
        transfers_max: int,
    ) -> None:
        self._database = database
        self._contents = contents
        self._message_log = log
        self._clock = clock
        self._counts = counts
        self._transfers_max = transfers_max
        self._uploads: dict[str, Upload] = {}
        # Parts of uploads that have broken, the longest ago first.
        self._resting: OrderedDict[str, Part] = OrderedDict()

    def __len__(self) -> int:
        return len(self._uploads)

    def is_under_way(self, file_id: str) -> bool:
        """Whether bytes of this file may come in."""
        return file_id in self._uploads

    async def stored_offset(self, file_id: str) -> int:
        """How much of a file that is not being uploaded is safely stored."""
        part = self._resting.get(file_id)
        return part.offset if part is not None else await self._contents.part_size(file_id)

    async def interrupt(self, file_id: str, fault: ParleyError) -> None:
        """Ends the upload of that file, if one is under way here, and returns when it has."""
        upload = self._uploads.get(file_id)
        if upload is None:
            return
        upload.fail(fault)
        try:
            async with asyncio.timeout(INTERRUPT_S):
                await upload.closed.wait()
        except TimeoutError:
            message = "an upload of this file is still ending"
            raise ParleyError(ErrorCode.UNAVAILABLE, message, retry_after_s=1.0) from None

    def fail_of(self, room_id: str, user_id: str, fault: ParleyError) -> None:
        """Ends what this person uploads to this room."""
        for upload in self._uploads.values():
            if upload.record.room_id == room_id and upload.record.user_id == user_id:
                upload.fail(fault)

    async def begin(self, user_id: str, file_id: str, offset: int) -> Upload | Posted:
        """Goes on with an offered file at `offset`; an Upload is to be ended with `end`. What is posted is posted."""
        record = await self._database.read(lambda c: store.find_file_of_sender(c, file_id, user_id))
        if record.state == WHOLE:
            if offset != record.file.size:
                raise _elsewhere(record.file.size)
            return await self._post(record, record.file)
        if record.state != OPEN:
            assert record.seq is not None, "posted files have one"
            outcome = Outcome(record.epoch, record.seq, record.changed_at_ms, is_duplicate=True)
            return Posted(record.room_id, outcome, record.file)
        if file_id in self._uploads:
            raise ParleyError(ErrorCode.CONFLICT, "this file is being uploaded already")
        if len(self._uploads) >= self._transfers_max:
            raise ParleyError(ErrorCode.OVERLOADED, "too many files are being uploaded", retry_after_s=1.0)
        upload = self._uploads[file_id] = Upload(record)
        try:
            part = self._resting.pop(file_id, None) or await self._contents.open_part(file_id)
            upload.start(part)
            if part.offset != offset:
                raise _elsewhere(part.offset)
        except BaseException:
            await self.end(upload)
            raise
        return upload

    async def store(self, upload: Upload) -> int | None:
        """Stores what has come in; the offset up to which all is synced, None when everything is."""
        try:
            offset = await upload.store()
        except (StorageFullError, StorageFailedError):
            await self._discard(upload)
            raise
        if offset is not None:
            assert upload.part is not None, "stored to it"
        return offset

    async def finish(self, upload: Upload) -> Posted:
        """All bytes are stored: verifies them and posts the message."""
        assert upload.part is not None, "pieces were stored to it"
        await upload.part.close()
        file, digest = upload.record.file, upload.part.sha256()
        if upload.is_open_ended:
            file = msgspec.structs.replace(file, size=upload.part.offset, sha256=digest)
        elif digest != file.sha256:
            await self._discard(upload)
            _log.warning("hash of a file does not match", file_id=file.file_id, user_id=upload.record.user_id)
            raise ParleyError(ErrorCode.HASH_MISMATCH, "what has arrived is not what was offered")
        await self._claim(upload, file)
        return await self._post(upload.record, file)

    async def end(self, upload: Upload) -> None:
        """The stream of an upload has ended, whatever the reason."""
        try:
            await upload.close()
        finally:
            self._uploads.pop(upload.file_id, None)
        if upload.is_settled or upload.part is None:
            return
        has_left = upload.fault is not None and upload.fault.code is ErrorCode.NOT_A_MEMBER
        if upload.is_open_ended or has_left:  # nobody can go on with it
            await self._discard(upload)
            return
        self._resting[upload.file_id] = upload.part
        while len(self._resting) > RESTING_PARTS_MAX:
            self._resting.popitem(last=False)
        now_ms = self._now_ms()
        with contextlib.suppress(ParleyError):  # the file only waits a little shorter
            await self._database.write(lambda c: store.touch(c, upload.file_id, now_ms))

    async def give_up(self, file_id: str) -> None:
        """Takes back a file that is not posted; nothing is left of it. Raises no_such_file, conflict."""
        sha256 = await self._database.write(lambda c: store.give_up(c, file_id))
        self._resting.pop(file_id, None)
        await self._contents.discard(file_id)
        if sha256:
            await self.collect(sha256)

    async def collect(self, sha256: str) -> None:
        """Removes a content to which nothing refers any more."""
        await self._remove(sha256, store.begin_removal)

    async def collect_orphan(self, sha256: str) -> None:
        """Removes a content that the database does not know."""
        await self._remove(sha256, store.begin_orphan_removal)

    async def _remove(self, sha256: str, begin: BeginRemoval) -> None:
        # A second removal could hit what has come back behind the first. What is left out here the sweeper finds.
        async with self._contents.removing(sha256) as is_mine:
            if is_mine and await self._database.write(lambda c: begin(c, sha256)):
                await self._contents.remove(sha256)
                await self._database.write(lambda c: store.end_removal(c, sha256))
                self._counts.removed.add()

    async def lose(self, sha256: str) -> None:
        """A content that should be in the store is not."""
        _log.error("a content is gone", sha256=sha256)
        await self._database.write(lambda c: store.lose_content(c, sha256))

    async def _discard(self, upload: Upload) -> None:
        upload.is_settled = True
        assert upload.part is not None, "there is something to discard"
        await upload.part.close()
        with contextlib.suppress(ParleyError):  # given up already; what the storage fails to do, the sweeper does
            await self.give_up(upload.file_id)

    async def _claim(self, upload: Upload, file: File) -> None:
        """Says that the file is whole. An equal content that is being removed must be gone first."""
        now_ms = self._now_ms()
        upload.is_settled = True
        for _ in range(_REMOVAL_ATTEMPTS):
            if await self._database.write(
                lambda c: store.claim_content(c, file.file_id, sha256=file.sha256, size=file.size, now_ms=now_ms)
            ):
                return
            await self._clock.sleep(_REMOVAL_WAIT_S)
        raise ParleyError(ErrorCode.UNAVAILABLE, "the storage of files is being cleaned", retry_after_s=1.0)

    async def _post(self, record: FileRecord, file: File) -> Posted:
        if not await self._contents.keep(file.file_id, file.sha256):
            await self.give_up(file.file_id)
            await self.lose(file.sha256)
            raise store.no_such_file()
        outcome = await self._append(record, file)
        if outcome.code in _GONE:
            with contextlib.suppress(ParleyError):
                await self.give_up(file.file_id)
        if outcome.code is not None:
            retry_after_s = outcome.retry_after_s or None
            raise ParleyError(outcome.code, "the file cannot be posted", retry_after_s=retry_after_s)
        if not outcome.is_duplicate:
            self._counts.posted.add()
            _log.info("file posted", file_id=file.file_id, room_id=record.room_id, user_id=record.user_id)
        return Posted(record.room_id, outcome, file)

    async def _append(self, record: FileRecord, file: File) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def answer(_publishes: Sequence[Publish], outcomes: Sequence[Outcome] | None) -> None:
            if not answered.done():
                answered.set_result(Outcome(code=ErrorCode.UNKNOWN_OUTCOME) if outcomes is None else outcomes[0])

        key = KEY_PREFIX + file.file_id
        publish = Publish(0, record.room_id, record.user_id, record.username, "", key, file)
        self._message_log.append([publish], answer)
        return await answered

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1_000)


def _elsewhere(offset: int) -> ParleyError:
    return ParleyError(ErrorCode.CONFLICT, f"{offset} bytes are stored: go on there", details={"offset": str(offset)})
