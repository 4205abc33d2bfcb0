"""Files as people see them: offer, upload, fetch, list, give up. Who may, how much, and when it ends."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.bus import MembershipEnded
from services.rooms.files import rules, store
from services.rooms.files.contents import StorageFullError
from services.rooms.files.download import Download
from services.rooms.files.store import OPEN, Sender
from services.rooms.files.sweeper import Sweeper
from services.rooms.files.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.common.clock import Clock
    from services.common.db import Database
    from services.common.tasks import TaskSet
    from services.rooms.bus import Bus, Event
    from services.rooms.counts import FileCounts
    from services.rooms.files.contents import ContentStore
    from services.rooms.files.rules import FileLimits, Offer
    from services.rooms.files.store import FileRecord
    from services.rooms.log import MessageLog


class Offered(NamedTuple):
    """What became of an offer: from `offset` on the bytes are wanted."""

    file_id: str
    offset: int
    room_id: str


class FilePage(NamedTuple):
    """Posted files of a room, the newest first, and the seq before which the next page begins; 0 on the last one."""

    room_id: str
    files: Sequence[FileRecord]
    next_before_seq: int


class Library:
    """The files of the installation. Used from one event loop. Raises ParleyError."""

    def __init__(
        self,
        database: Database,
        *,
        contents: ContentStore,
        log: MessageLog,
        bus: Bus,
        clock: Clock,
        limits: FileLimits,
        counts: FileCounts,
    ) -> None:
        self.limits = limits
        self.uploads = Uploads(
            database, contents=contents, log=log, clock=clock, counts=counts, transfers_max=limits.transfers_max
        )
        self.sweeper = Sweeper(database, contents=contents, uploads=self.uploads, clock=clock, limits=limits)
        self._database = database
        self._contents = contents
        self._clock = clock
        self._downloads: set[Download] = set()
        bus.subscribe(self._on_event)
        counts.watch(lambda: len(self.uploads), lambda: len(self._downloads))

    def start(self, tasks: TaskSet) -> None:
        """Begins to sweep."""
        tasks.spawn(self.sweeper.run(), name="file sweeper")

    async def offer(self, sender: Sender, reference: str, offer: Offer) -> Offered:
        """Takes an offer. One that was made before and is not finished goes on where it is safely stored.

        Of one that is posted, as the same transfer, everything is there.
        """
        limits, now_ms, new_id = (
            self.limits,
            int(self._clock.now() * 1_000),
            secrets.token_hex(rules.FILE_ID_CHARS // 2),
        )
        rules.check_offer(offer, limits)
        await self._database.read(lambda c: store.check_offer(c, sender, reference, offer, limits))
        if await self._contents.free_bytes() < offer.size + limits.free_bytes_min:
            raise StorageFullError
        record = await self._database.write(
            lambda c: store.offer_file(c, sender, reference, offer, file_id=new_id, limits=limits, now_ms=now_ms)
        )
        file_id = record.file.file_id
        if record.state != OPEN:
            return Offered(file_id, record.file.size, record.room_id)
        if file_id != new_id:
            await self.uploads.interrupt(file_id, ParleyError(ErrorCode.CONFLICT, "this file has been offered anew"))
        return Offered(file_id, await self.uploads.stored_offset(file_id), record.room_id)

    async def cancel(self, user_id: str, file_id: str) -> None:
        """Gives up a file that is not posted. Raises no_such_file, conflict."""
        await self._database.read(lambda c: store.find_file_of_sender(c, file_id, user_id))
        await self.uploads.interrupt(file_id, store.no_such_file("has been cancelled"))
        await self.uploads.give_up(file_id)

    async def begin_download(self, user_id: str, file_id: str, offset: int) -> Download:
        """A posted file for a member of its room, to be ended with `end_download`."""
        record = await self._database.read(lambda c: store.find_file_for(c, file_id, user_id))
        if not 0 <= offset <= record.file.size:
            raise ParleyError(ErrorCode.BAD_REQUEST, f"the file has {record.file.size} bytes")
        if len(self._downloads) >= self.limits.transfers_max:
            raise ParleyError(ErrorCode.OVERLOADED, "too many files are being fetched", retry_after_s=1.0)
        reader = await self._contents.open_content(record.file.sha256)
        if reader is None:
            await self.uploads.lose(record.file.sha256)
            raise store.no_such_file("is no longer kept")
        download = Download(record, reader, user_id)
        self._downloads.add(download)
        return download

    async def end_download(self, download: Download) -> None:
        """Nobody takes any more of it."""
        self._downloads.discard(download)
        await download.close()

    async def list_files(self, user_id: str, reference: str, *, before_seq: int | None, limit: int) -> FilePage:
        """A page of the posted files of a room."""
        room_id, found = await self._database.read(
            lambda c: store.list_files(c, user_id, reference, before_seq=before_seq, limit=limit + 1)
        )
        page = found[:limit]
        return FilePage(room_id, page, (page[-1].seq or 0) if len(found) > limit else 0)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, MembershipEnded):
            fault = ParleyError(ErrorCode.NOT_A_MEMBER, "no longer a member of this room")
            self.uploads.fail_of(event.room_id, event.user_id, fault)
            for download in self._downloads:
                if download.record.room_id == event.room_id and download.user_id == event.user_id:
                    download.fail(fault)
