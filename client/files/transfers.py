"""All files that one session is sending and fetching.

A transfer that was begun goes on until it is done, is refused for good, or is cancelled: a lost connection, a server
that has no time, and the end of the program only interrupt it. A few move at a time in each direction, the others wait.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from client.backoff import Backoff
from client.clock import Clock
from client.connection import Connection
from client.errors import ClientError, ConnectionLostError, NotReadyError, RequestError
from client.events import Event, FileEnded, FileMoved, FileResumed, FileWaits
from client.files.answers import FileInfo, FilePage, Progress
from client.files.attempt import Attempt, Lane, StalledError
from client.files.book import Book, NoBook, OpenBook
from client.files.download import Download
from client.files.errors import FileError, HashError, TooManyTransfersError
from client.files.names import safe_name
from client.files.saving import Part, discard_part, part_name
from client.files.source import Source
from client.files.threads import in_thread
from client.files.transfer import Direction, Entry, Phase, Transfer
from client.files.upload import Upload
from client.replies import ServerInfo, read, refused
from client.tasks import TaskSet
from services.common.wire.envelope import ServerEnvelope
from services.common.wire.frames import Chunk

AT_ONCE: Final = 4
"""In each direction; the server takes 8 of a connection."""

TRANSFERS_MAX: Final = 100
"""That may move or wait: whoever has more to send makes an archive of it."""

SHOWN_EVERY_S: Final = 0.2
"""How often a screen hears that a transfer has moved."""

PASSING: Final = frozenset({"unavailable", "overloaded", "rate_limited", "unknown_outcome", "internal", "conflict"})
"""Refusals after which the same transfer may succeed; `conflict`: the server still holds the old connection's."""

CONFLICTS_MAX: Final = 5


class Transfers:
    """The transfers; `emit` gets what becomes of them. `new_token` gives 32 random hex digits."""

    def __init__(
        self,
        *,
        clock: Clock,
        emit: Callable[[Event], None],
        uniform: Callable[[float, float], float],
        new_token: Callable[[], str],
        open_book: OpenBook | None = None,
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._uniform = uniform
        self._new_token = new_token
        self._open_book = open_book
        self._book: Book | None = None
        self._keeping = asyncio.Lock()
        self._connection: Connection | None = None
        self._server: ServerInfo | None = None
        self._transfers: dict[int, Transfer] = {}
        self._parts: dict[int, Part] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._attempts: dict[str, Attempt] = {}
        self._tasks = TaskSet()
        self._closing = TaskSet()
        self._turns = {direction: asyncio.Semaphore(AT_ONCE) for direction in Direction}
        self._shown_at: dict[int, float] = {}
        self._last_number = 0
        self._ended = asyncio.Event()

    def __iter__(self) -> Iterator[Transfer]:
        """Those that are not ended, the oldest first."""
        return iter([one for one in self._transfers.values() if not one.entry.is_cancelled])

    # What people ask for.

    async def send(self, room_id: str, path: Path) -> Transfer:
        """Begins to send a file. Raises FileError where it cannot be read, NotReadyError, TooManyTransfersError."""
        self._check_may_begin()
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise FileError(f"{str(path)!r} cannot be sent: its name is not UTF-8.") from None
        source = await in_thread(Source, path)
        source.close()
        name = safe_name(path.name)
        entry = Entry(
            direction=Direction.UP,
            name=name,
            path=str(path),
            room_id=room_id,
            size=source.size,
            transfer_id=self._new_token(),
            mime=mimetypes.guess_type(name)[0] or "",
        )
        return await self._add(entry)

    async def fetch(self, file: FileInfo, folder: Path, wanted: str = "") -> Transfer:
        """Begins to fetch a file into a folder, as `wanted` or under its own name as far as that is safe.

        Of the file only the id has to be right; an empty hash means that the rest is not known. Raises FileError,
        NotReadyError, TooManyTransfersError.
        """
        self._check_may_begin()
        for one in self:
            if not one.is_upload and one.entry.file_id == file.file_id:
                raise FileError(f"{file.name or 'This file'} is being fetched already: it is number {one.number}.")
        if not await in_thread(folder.is_dir):
            raise FileError(f"There is no folder {folder}.")
        entry = Entry(
            direction=Direction.DOWN,
            name=file.name,
            path=str(folder),
            file_id=file.file_id,
            size=file.size,
            sha256=file.sha256,
            part=part_name(self._new_token()),
            wanted=wanted,
        )
        return await self._add(entry)

    async def cancel(self, transfer: Transfer) -> None:
        """Gives a transfer up; nothing is left of it, neither here nor at the server."""
        if transfer.is_ended or transfer.number not in self._transfers:
            return
        transfer.entry.is_cancelled = True
        task = self._running.get(transfer.number)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if not transfer.is_ended:
            transfer.enter(Phase.CANCELLED)
            await self._withdraw(transfer)
            self._ended.set()
            self._emit(FileEnded(transfer))

    async def list_files(self, room_id: str, *, before: int | None = None, limit: int = 50) -> FilePage:
        """A page of the files of a room. Raises RequestError, NotReadyError."""
        data: dict[str, Any] = {"limit": limit} if before is None else {"limit": limit, "before": before}
        connection = self._connection
        if connection is None:
            raise NotReadyError("There is no connection to the server at the moment.")
        return await connection.call(
            "file_list", data, room_id=room_id, then=lambda answer: read(answer.data, FilePage)
        )

    async def wait_until_ended(self) -> None:
        """Waits until nothing moves or waits any more."""
        while any(True for _ in self):
            self._ended.clear()
            await self._ended.wait()

    def _check_may_begin(self) -> None:
        if self._book is None:
            raise NotReadyError("You are not logged in.")
        if len(self._transfers) >= TRANSFERS_MAX:
            raise TooManyTransfersError(f"{TRANSFERS_MAX} files are under way already: wait for one, or /cancel it.")

    async def _add(self, entry: Entry) -> Transfer:
        self._last_number += 1
        transfer = self._transfers[self._last_number] = Transfer(self._last_number, entry)
        try:
            await self._keep()
        except FileError:
            del self._transfers[transfer.number]
            raise
        self._start(transfer)
        return transfer

    # What happens to the session.

    def start(self, connection: Connection, server: ServerInfo, username: str) -> None:
        """The user is logged in on `connection`: everything goes on, also what an earlier run left."""
        self._connection, self._server = connection, server
        if self._book is None:
            self._book = (self._open_book(username) if self._open_book else None) or NoBook()
            for entry in self._book.entries()[:TRANSFERS_MAX]:
                self._last_number += 1
                transfer = self._transfers[self._last_number] = Transfer(self._last_number, entry, is_new=False)
                if not entry.is_cancelled:
                    self._emit(FileResumed(transfer))
        for transfer in list(self._transfers.values()):
            self._start(transfer)

    async def stop(self) -> None:
        """The connection is gone; what was under way waits for the next one."""
        self._connection = None
        await self._tasks.close()
        self._running.clear()
        self._attempts.clear()
        for transfer in self:
            transfer.enter(Phase.WAITING, transfer.reason)
            self._emit(FileMoved(transfer))

    def put_away(self) -> None:
        """The user has logged out, or the session ends: what is unfinished stays on the disk for the next login."""
        tasks, parts, book = self._tasks, self._parts, self._book
        is_idle = not self._running
        self._connection = self._book = None
        self._tasks, self._parts = TaskSet(), {}
        self._transfers.clear()
        self._running.clear()
        self._attempts.clear()
        self._ended.set()

        def close() -> None:
            for part in parts.values():
                part.close()
            if book is not None:
                book.close()

        async def close_behind_the_last_write() -> None:
            await tasks.close()
            close()

        if is_idle:
            close()
        else:
            self._closing.spawn(close_behind_the_last_write(), name="files-close")

    def receive(self, chunk: Chunk) -> None:
        """A piece of a file has come; one that nobody waits for was on its way to a transfer that has ended."""
        if (attempt := self._attempts.get(chunk.file_id.hex())) is not None:
            attempt.receive(chunk.offset, chunk.data)

    def handle(self, envelope: ServerEnvelope) -> bool:
        """What the server says of a transfer; returns whether it was that."""
        file_id = envelope.data.get("file_id")
        if not isinstance(file_id, str) or envelope.type not in ("file_ack", "file_done", "file_cancel", "error"):
            return False
        attempt = self._attempts.get(file_id)
        if attempt is None:
            return True  # late
        if envelope.type == "file_ack":
            attempt.acknowledged(read(envelope.data, Progress).offset)
        elif envelope.type == "file_done":
            attempt.finished()
        else:
            refusal = refused(envelope) or RequestError(
                str(envelope.data.get("code") or "unavailable"),
                str(envelope.data.get("error") or "the server has cancelled it"),
            )
            attempt.fail(refusal)
        return True

    # How a transfer goes on.

    def _start(self, transfer: Transfer) -> None:
        if self._connection is not None and transfer.number not in self._running:
            task = self._tasks.spawn(self._drive(transfer, self._connection), name=f"file {transfer.number}")
            self._running[transfer.number] = task
            task.add_done_callback(lambda _: self._running.pop(transfer.number, None))

    async def _drive(self, transfer: Transfer, connection: Connection) -> None:
        if transfer.entry.is_cancelled:
            await self._withdraw(transfer)
            return
        backoff, conflicts = Backoff(self._uniform), 0
        while True:
            done_before = transfer.done_bytes
            try:
                async with self._turns[transfer.entry.direction]:
                    await self._attempt(transfer, connection)
                await self._end(transfer, Phase.DONE)
                return
            except RequestError as error:
                conflicts += error.code == "conflict"
                if error.code not in PASSING or conflicts > CONFLICTS_MAX:
                    await self._end(transfer, Phase.FAILED, error)
                    return
                reason, retry_after_s = error.message, error.retry_after_s or 0.0
            except (StalledError, ConnectionLostError) as error:
                reason, retry_after_s = str(error), 0.0
            except HashError as error:
                if not await self._may_restart(transfer):
                    await self._end(transfer, Phase.FAILED, error)
                    return
                reason, retry_after_s = str(error), 0.0
            except ClientError as error:
                await self._end(transfer, Phase.FAILED, error)
                return
            if connection.is_ended:
                return  # it goes on over the next one
            if transfer.done_bytes > done_before:
                backoff = Backoff(self._uniform)
            wait_s = max(retry_after_s, backoff.next_delay_s())
            transfer.enter(Phase.WAITING, reason)
            self._emit(FileWaits(transfer, reason))
            await self._clock.sleep(wait_s)

    async def _attempt(self, transfer: Transfer, connection: Connection) -> None:
        assert self._server is not None, "there is a connection"
        lane = Lane(
            connection,
            self._server,
            self._clock,
            attach=self._attempts.__setitem__,
            keep=self._keep,
            changed=self._changed,
        )
        attempt: Attempt
        if transfer.is_upload:
            attempt = Upload(transfer, lane)
        else:
            attempt = Download(transfer, lane, self._parts.get(transfer.number))
        try:
            await attempt.run()
        finally:
            if isinstance(attempt, Download) and attempt.part is not None:
                self._parts[transfer.number] = attempt.part
            file_id = transfer.entry.file_id
            if self._attempts.get(file_id) is attempt:
                del self._attempts[file_id]
                if isinstance(attempt, Download) and attempt.is_coming:
                    _stop_at_server(connection, file_id)

    async def _may_restart(self, transfer: Transfer) -> bool:
        """A part of an earlier run may have been damaged; what came in this run has no such excuse."""
        part = self._parts.get(transfer.number)
        if part is None or not part.is_older:
            return False
        await in_thread(part.restart)
        transfer.moved(self._clock.monotonic(), 0)
        return True

    async def _withdraw(self, transfer: Transfer) -> None:
        """Removes what is left of a transfer, here and at the server; where that is away, at the next login."""
        self._discard(transfer)
        connection, file_id = self._connection, transfer.entry.file_id
        if transfer.is_upload and file_id and connection is not None:
            try:
                await connection.call("file_cancel", {"file_id": file_id}, then=lambda _: None)
            except RequestError as error:
                if error.code in PASSING and error.code != "conflict":
                    await self._keep()
                    return  # the next login does it
            except ClientError:
                await self._keep()
                return
        elif transfer.is_upload and file_id:
            await self._keep()
            return
        await self._remove(transfer)

    async def _end(self, transfer: Transfer, phase: Phase, error: ClientError | None = None) -> None:
        if phase is Phase.FAILED:
            self._discard(transfer)
            if transfer.is_upload and transfer.entry.file_id and self._connection is not None:
                _stop_at_server(self._connection, transfer.entry.file_id)
        elif (part := self._parts.pop(transfer.number, None)) is not None:
            part.close()
        transfer.error = error
        transfer.enter(phase, str(error or ""))
        self._transfers.pop(transfer.number, None)
        self._emit(FileEnded(transfer))
        await self._remove(transfer)

    def _discard(self, transfer: Transfer) -> None:
        part = self._parts.pop(transfer.number, None)
        if part is not None:
            part.discard()
        elif transfer.entry.part:
            discard_part(Path(transfer.entry.path), transfer.entry.part)

    async def _remove(self, transfer: Transfer) -> None:
        self._transfers.pop(transfer.number, None)
        self._shown_at.pop(transfer.number, None)
        self._ended.set()
        await self._keep()

    async def _keep(self) -> None:
        async with self._keeping:
            if self._book is not None:
                await in_thread(self._book.keep, [one.entry for one in self._transfers.values()])

    def _changed(self, transfer: Transfer) -> None:
        now = self._clock.monotonic()
        if now - self._shown_at.get(transfer.number, -SHOWN_EVERY_S) >= SHOWN_EVERY_S:
            self._shown_at[transfer.number] = now
            self._emit(FileMoved(transfer))


def _stop_at_server(connection: Connection, file_id: str) -> None:
    """The server need not send, or keep, any more of it; whatever it answers changes nothing here."""
    connection.send("file_cancel", {"file_id": file_id}, on_answer=lambda _: None)
