"""A service's database: writes go through one thread with group commit, reads through a few threads of their own.

Stores give functions that take a SQLAlchemy `Connection`; they run on a thread, inside a transaction, and return plain
values. Failures of the storage come out as `ParleyError` (`unavailable`, or `unknown_outcome` when it was the commit
that failed); an IntegrityError is the store's to understand.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from services.common.db.engines import is_connection_lost, make_engine, translate
from services.common.db.watchdog import Watchdog
from services.common.db.writer import BATCH_MAX, QUEUE_MAX, HandleBatch, OnCommit, Writer, WriterThread
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from services.common.db.postgres import PostgresAccess

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

# Reads are short; more threads than this only fight over the interpreter.
READERS: Final = 4
# At under a millisecond a read, some 300 ms of waiting for four threads.
READS_WAITING_MAX: Final = 1_024
_RETRY_AFTER_S: Final = 1.0


class Database:
    """One database. Make it inside the event loop that uses it, and close it there.

    `url` is SQLAlchemy's, such as `sqlite:///data/rooms.db`; PostgreSQL needs `access` with it. `on_commit` is told on
    the event loop, after each transaction, how many pieces of work it held and how many seconds it took with its sync;
    `on_read` of each read.
    """

    def __init__(
        self,
        url: str,
        *,
        access: PostgresAccess | None = None,
        readers: int = READERS,
        queue_max: int = QUEUE_MAX,
        batch_max: int = BATCH_MAX,
        on_commit: OnCommit | None = None,
        on_read: Callable[[], object] = lambda: None,
    ) -> None:
        self._write_engine = make_engine(url, pool_size=1, is_reader=False, access=access)
        self._read_engine = make_engine(url, pool_size=readers, is_reader=True, access=access)
        self._watchdog = Watchdog()
        self._writer = WriterThread(
            self._write_engine,
            queue_max=queue_max,
            batch_max=batch_max,
            on_commit=on_commit,
            watchdog=self._watchdog,
        )
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="db-reader")
        self._places = threading.BoundedSemaphore(READS_WAITING_MAX)
        self._on_read = on_read
        self._closed = False
        self.is_postgres = self._write_engine.dialect.name == "postgresql"

    def submit(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Queues `work` for the writer; the future has its result once that is committed and synced.

        Work that raises leaves no trace and spoils no other. Raises ParleyError `overloaded` when the queue is full.
        """
        return cast("asyncio.Future[T]", self._writer.enqueue(None, work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on the writer and returns its result once that is committed and synced."""
        return await self.submit(work)

    def writer(self, handle_batch: HandleBatch[Item, Result]) -> Writer[Item, Result]:
        """A door to the same writer thread for items that `handle_batch` stores a list at a time."""
        return Writer(self._writer, handle_batch)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on a reader, in one snapshot that holds every write answered before, and returns its result.

        Raises ParleyError `overloaded` when too many reads wait, `unavailable` when the storage fails.
        """
        if self._closed:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the storage is closed")
        if not self._places.acquire(blocking=False):
            raise ParleyError(ErrorCode.OVERLOADED, "too much waits to be read", retry_after_s=_RETRY_AFTER_S)
        self._on_read()
        future = self._readers.submit(self._read, work)
        future.add_done_callback(self._free_place)
        return await asyncio.wrap_future(future)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            try:
                return self._read_once(work)
            except Exception as error:
                if not is_connection_lost(error):
                    raise
            # The server has been restarted since: the pool has thrown its old connections away, and reads do no harm.
            return self._read_once(work)
        except Exception as error:
            translated = translate(error)
            if translated is error:
                raise
            raise translated from error

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        with self._read_engine.connect() as connection, self._watchdog.watch(connection):
            return work(connection)

    def _free_place(self, _future: Any) -> None:
        self._places.release()

    async def close(self) -> None:
        """Stores what is queued, ends the threads and closes all connections. Idempotent."""
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown, wait=True, cancel_futures=True)
        self._read_engine.dispose()
        self._write_engine.dispose()
