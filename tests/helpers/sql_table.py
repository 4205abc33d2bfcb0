"""A small table, and ways to use it, for tests of the database."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from services.common.db import Database

CREATE = "CREATE TABLE t (v UNIQUE)"


def sql(statement: str, *parameters: Any) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql(statement, parameters)

    return work


def put(value: object) -> Callable[[Connection], object]:
    def work(connection: Connection) -> object:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (value,))
        return value

    return work


def rows(connection: Connection) -> list[Any]:
    return list(connection.exec_driver_sql("SELECT v FROM t ORDER BY rowid").scalars())


def fail(connection: Connection) -> None:
    put("spoiled")(connection)
    raise KeyError("own mistake")


class Gate:
    """Work that holds the writer up, so that what is queued meanwhile makes one transaction."""

    def __init__(self, database: Database) -> None:
        self._open = threading.Event()
        self._held = threading.Event()
        self.done = database.submit(self._hold)

    def _hold(self, _connection: Connection) -> None:
        self._held.set()
        assert self._open.wait(30)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._held.wait, 30)

    def open(self) -> None:
        self._open.set()
