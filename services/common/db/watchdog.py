"""Ends transactions of which nothing is heard: a server that is frozen, or cut off without a word, answers no time-out.

The server's own limits (statements, locks) do not run while it is frozen, and its kernel goes on to acknowledge what
it is sent, so that TCP finds nothing wrong either. A thread of ours waits for an answer without a limit then, and
everything behind it with it. So whoever begins a transaction says so here, and one that takes too long has its
connection shut down: the thread gets an error, as from a server that has died.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from services.common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

LIMIT_S: Final = 15.0
"""A transaction, with its commit. Longer than the server's own limit for a statement, which says more."""

CHECK_INTERVAL_S: Final = 0.5
_log = get_logger(__name__)


class Watchdog:
    """Watches the transactions of one database. Its thread lives as long as the process, and sleeps where nothing is
    under way."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._begun: dict[int, float] = {}  # a descriptor of our own for the connection -> when to cut it
        self._is_watching = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watch(self, connection: Connection) -> Iterator[None]:
        """While this is open, the connection lives for the limit at most. A file's needs no watching."""
        raw: Any = connection.connection.dbapi_connection
        if connection.dialect.name != "postgresql" or raw.closed:
            yield
            return
        # The driver may close its own at any time, and the number would be another's.
        descriptor = os.dup(raw.fileno())
        with self._lock:
            self._begun[descriptor] = time.monotonic() + self._limit_s
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._begun.pop(descriptor, None)
                os.close(descriptor)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="db-watchdog", daemon=True)
            self._thread.start()
        self._is_watching.set()

    def _run(self) -> None:
        while True:
            self._is_watching.wait()
            time.sleep(CHECK_INTERVAL_S)
            with self._lock:
                now = time.monotonic()
                for descriptor in [one for one, cut_at in self._begun.items() if cut_at <= now]:
                    del self._begun[descriptor]
                    _cut(descriptor)
                if not self._begun:
                    self._is_watching.clear()


def _cut(descriptor: int) -> None:
    _log.warning("a database connection is cut: nothing was heard on it for too long")
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
