"""The writer: one thread, one connection, and a transaction for whatever has queued up.

While a commit is under way, what else is to be written queues; all of it goes into the next transaction, and is
answered after that one is synced. So nothing waits when the system is idle, and under load a sync is shared by many.
There are two forms of work in the one queue, kept in order: single functions, each behind a savepoint of its own so
that one that raises spoils no other; and, for the hot path, items of a `Writer`, which are handed to its `handle_batch`
as whole lists. Results go back to the event loop with one call per transaction.

Where other instances write to the same database a transaction may lose against one of theirs, before its COMMIT and so
without a trace; then its pieces are run again, one by one. Nobody is told.

Items stay in order even through a failure: those of a transaction that fails take along what was queued behind them
before the event loop heard of it. So whoever submits in order, and asks again where it failed, is stored in order.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from services.common.db.engines import is_commit_refused, is_connection_lost, is_storage_failure, translate
from services.common.db.postgres import be_impatient, is_aborted, is_lock_timeout, is_retryable
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from services.common.db.watchdog import Watchdog

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")
HandleBatch = Callable[["Connection", list[Item]], Sequence[Result | BaseException]]
# Told after each transaction: how many pieces of work it held, and how long it took with its sync.
OnCommit = Callable[[int, float], None]

# About a second of work for one thread at the measured 20 µs a row: what waits longer is better refused.
QUEUE_MAX: Final = 20_000
# Bounds how long a transaction holds the write lock and how long its first item waits for its last: some 20 ms.
BATCH_MAX: Final = 1_024
# How long a transaction of several pieces waits for a row that another instance holds: a few times what a batch takes,
# and a tenth of the second after which PostgreSQL looks for a deadlock.
PATIENCE_MS: Final = 100
# A piece alone can lose against another instance, but not again and again.
ATTEMPTS_MAX: Final = 5
# Who has lost lets the other one finish first, or it would take the same row away from it again.
LOSER_WAIT_S: Final = 0.02
_RETRY_AFTER_S: Final = 1.0

_SWALLOWED: Final = "work has gone on after a failed statement, without a savepoint: PostgreSQL stores none of it"

# The last is the era in which it was queued, which ends when a failure of items has been told.
_Job = tuple["asyncio.Future[Any]", "HandleBatch[Any, Any] | None", Any, int]
_Outcome = tuple["asyncio.Future[Any]", Any]
_log = get_logger(__name__)


class Writer(Generic[Item, Result]):
    """A door to the writer thread for items that are handled a list at a time. Made by `Database.writer`.

    `handle_batch` runs on the writer thread, inside the transaction, and returns one result for each item, in order;
    an exception among them is raised to that item's caller alone. When it raises itself, all its items of this
    transaction fail and nothing of theirs is stored. It may be run again with the same items, when the transaction has
    left no trace: what it remembers must not depend on the transaction having been committed.
    """

    def __init__(self, thread: WriterThread, handle_batch: HandleBatch[Item, Result]) -> None:
        self._thread = thread
        self._handle_batch = handle_batch

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queues an item; the future has its result once that is committed and synced.

        Raises ParleyError `overloaded` when the queue is full and `unavailable` when the database is closed.
        """
        return self._thread.enqueue(self._handle_batch, item)


class WriterThread:
    """The thread, its queue and its connection. Used from one event loop."""

    def __init__(
        self, engine: Engine, *, queue_max: int, batch_max: int, on_commit: OnCommit | None, watchdog: Watchdog
    ) -> None:
        self._engine = engine
        self._watchdog = watchdog
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._closed = False
        self._era = 0
        # Of the writer thread: the era in which items failed, and why; and whether the loop is still to hear of it.
        self._failed: tuple[int, BaseException] | None = None
        self._is_failure_untold = False

    def enqueue(self, handle_batch: HandleBatch[Any, Any] | None, payload: Any) -> asyncio.Future[Any]:
        """Queues an item for `handle_batch`, or, with None, a function that takes the connection."""
        if self._loop is None:
            self._start()
        if self._closed:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the storage is closed")
        if self._queue.qsize() >= self._queue_max:
            raise ParleyError(ErrorCode.OVERLOADED, "too much waits to be stored", retry_after_s=_RETRY_AFTER_S)
        assert self._loop is not None
        future = self._loop.create_future()
        self._queue.put((future, handle_batch, payload, self._era))
        return future

    async def close(self) -> None:
        """Stores and answers what is queued, then ends the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            # The thread's last results may still be on their way to this loop.
            await asyncio.sleep(0)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="db-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        is_open = True
        while is_open:
            job = self._queue.get()
            # This thread is the only reader, so at least as many as are counted here can be taken.
            more = [self._queue.get_nowait() for _ in range(min(self._queue.qsize(), self._batch_max - 1))]
            batch = [job for job in (job, *more) if job is not None]
            is_open = len(batch) == len(more) + 1
            if batch:
                started = time.perf_counter()
                outcomes = self._store_in_order(batch)
                self._post(outcomes, time.perf_counter() - started)
        self._drop_connection()

    def _store_in_order(self, batch: list[_Job]) -> list[_Outcome]:
        """Runs the batch but for the items that are behind others that have failed."""
        if self._failed is None:
            return self._store(batch)
        era, failure = self._failed
        if all(job[3] > era for job in batch):
            self._failed = None
            return self._store(batch)
        behind = [job for job in batch if job[1] is not None and job[3] <= era]
        rest = [job for job in batch if job[1] is None or job[3] > era]
        outcomes: list[_Outcome] = [(job[0], failure) for job in behind]
        return outcomes + self._store(rest) if rest else outcomes

    def _fail(self, batch: list[_Job], failure: BaseException) -> list[_Outcome]:
        """What the callers of the batch are told, and those of the items behind it."""
        if any(job[1] is not None for job in batch):
            self._failed = (self._era, failure)
            self._is_failure_untold = True
        return [(job[0], failure) for job in batch]

    def _store(self, batch: list[_Job]) -> list[_Outcome]:
        """Stores the batch; each job's future with its result or its exception."""
        outcomes, error = self._transact(batch)
        if error is not None and is_connection_lost(error):  # the server may have been restarted since the last time
            outcomes, error = self._transact(batch)
        if error is not None and (is_retryable(error) or is_lock_timeout(error)):
            return self._store_apart(batch)
        return outcomes if error is None else self._fail(batch, translate(error))

    def _store_apart(self, batch: list[_Job]) -> list[_Outcome]:
        """Stores each piece of a batch in a transaction of its own.

        The batch as a whole has lost against another instance: its pieces lock rows in the order in which they were
        asked for, and two such batches can wait for each other. A piece alone locks in an order that all keep.
        """
        time.sleep(LOSER_WAIT_S)
        outcomes: list[_Outcome] = []
        gone: BaseException | None = None  # why nothing more can be stored
        for _, piece in itertools.groupby(enumerate(batch), _piece):
            jobs = [job for _, job in piece]
            known = gone
            if self._failed is not None and jobs[0][1] is not None and jobs[0][3] <= self._failed[0]:
                known = self._failed[1]  # behind items that have failed
            if known is not None:
                outcomes += self._fail(jobs, known)
                continue
            stored, error = self._transact_patiently(jobs)
            if error is None:
                outcomes += stored
                continue
            failure = translate(error)
            outcomes += self._fail(jobs, failure)
            if not is_lock_timeout(error) and failure is not error:
                gone = failure
        return outcomes

    def _transact_patiently(self, jobs: list[_Job]) -> tuple[list[_Outcome], Exception | None]:
        """As `_transact`, again where it loses against others."""
        for attempt in range(ATTEMPTS_MAX):
            stored, error = self._transact(jobs)
            if error is None or not is_retryable(error) or attempt + 1 == ATTEMPTS_MAX:
                break
            time.sleep(LOSER_WAIT_S)
        return stored, error

    def _transact(self, batch: list[_Job]) -> tuple[list[_Outcome], Exception | None]:
        """Runs the batch in one transaction: what became of it, or an error before its COMMIT, with which nothing of
        it is stored and it may be run again."""
        try:
            connection = self._connect()
            with self._watchdog.watch(connection):
                outcomes = self._execute(connection, batch)
                return self._commit(connection, batch) or outcomes, None
        except Exception as error:  # noqa: BLE001 - every caller of the batch is told
            self._roll_back()
            return [], error

    def _commit(self, connection: Connection, batch: list[_Job]) -> list[_Outcome]:
        """Commits; what to tell all jobs where that failed."""
        try:
            connection.commit()
        except Exception as error:  # noqa: BLE001 - every caller of the batch is told
            self._drop_connection()
            if is_commit_refused(error):
                failure = translate(error)
            else:
                _log.error("commit failed", exc_info=error)
                # Some of it may have reached the disk, so `unavailable`, which says "not stored", would be a lie.
                failure = ParleyError(ErrorCode.UNKNOWN_OUTCOME, "the storage failed while it was committing")
                failure.__cause__ = error
            return self._fail(batch, failure)
        return []

    def _execute(self, connection: Connection, batch: list[_Job]) -> list[_Outcome]:
        """Runs the jobs in order, neighbours of one `handle_batch` together."""
        connection.begin()
        if any(job[1] is None or job[1] is not batch[0][1] for job in batch[1:]):
            be_impatient(connection, PATIENCE_MS)
        outcomes: list[_Outcome] = []
        # Alone in its transaction a piece of work needs no savepoint: the rollback of the whole is its own.
        for handle_batch, jobs in itertools.groupby(batch, operator.itemgetter(1)):
            run = list(jobs)
            is_alone = len(run) == len(batch)
            if handle_batch is not None:
                items = [job[2] for job in run]
                results = self._attempt(connection, handle_batch, items, is_alone=is_alone)
                if isinstance(results, BaseException):
                    results = [results] * len(run)
                elif len(results) != len(run):
                    raise AssertionError(f"{len(results)} results for {len(run)} items")
                outcomes += zip((job[0] for job in run), results, strict=True)
            else:
                for future, _, work, _ in run:
                    outcomes.append((future, self._attempt(connection, work, is_alone=len(batch) == 1)))
        return outcomes

    @staticmethod
    def _attempt(connection: Connection, work: Callable[..., Any], *arguments: Any, is_alone: bool) -> Any:
        """What the work returns or the exception that it raised, without a trace in the database in that case."""
        if is_alone:
            result = work(connection, *arguments)
            if is_aborted(connection):
                raise AssertionError(_SWALLOWED)
            return result
        connection.exec_driver_sql("SAVEPOINT piece")
        try:
            result = work(connection, *arguments)
            if is_aborted(connection):
                raise AssertionError(_SWALLOWED)
        except Exception as error:
            if is_storage_failure(error):
                raise  # the transaction may be gone, and the savepoint with it
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT piece")
            result = error
        connection.exec_driver_sql("RELEASE SAVEPOINT piece")
        return result

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                if self._connection.invalidated:
                    self._drop_connection()
                else:
                    self._connection.rollback()
        except Exception:  # noqa: BLE001 - the connection is of no more use, whatever the reason
            self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception as error:  # noqa: BLE001 - it is being thrown away
                _log.warning("could not close a database connection", exc_info=error)

    def _post(self, outcomes: list[_Outcome], seconds: float) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._answer, outcomes, seconds, self._is_failure_untold)
            self._is_failure_untold = False
        except RuntimeError:  # the loop was closed without closing the database: nobody waits any more
            _log.warning("results of a commit came after the end of the event loop", count=len(outcomes))

    def _answer(self, outcomes: list[_Outcome], seconds: float, has_failed: bool) -> None:
        for future, value in outcomes:
            if future.done():
                continue  # its caller has gone; what it asked for is stored nevertheless
            if isinstance(value, BaseException):
                future.set_exception(value)
            else:
                future.set_result(value)
        if has_failed:
            assert self._loop is not None
            self._loop.call_soon(self._begin_era)  # behind the callbacks of these futures
        if self._on_commit is not None:
            self._on_commit(len(outcomes), seconds)

    def _begin_era(self) -> None:
        """Whoever had something in a failed transaction has been told: what they queue now comes behind nothing."""
        self._era += 1


def _piece(numbered: tuple[int, _Job]) -> Any:
    """What neighbours have in common that lock their rows together: the handler; functions are alone."""
    number, job = numbered
    return number if job[1] is None else job[1]
