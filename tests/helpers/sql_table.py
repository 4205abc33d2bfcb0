"""A small table, and ways to use it, for tests of the database."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, insert, select, text
from sqlalchemy.engine import make_url

from services.common.db import PostgresAccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from services.common.db import Database

ACCESS = PostgresAccess(schema="public")
_table = Table("t", MetaData(), Column("n", Integer, primary_key=True), Column("v", Text, unique=True))


def create(connection: Connection) -> None:
    _table.create(connection)


def sql(statement: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(text(statement))

    return work


def put(value: object) -> Callable[[Connection], object]:
    def work(connection: Connection) -> object:
        connection.execute(insert(_table).values(v=json.dumps(value)))
        return value

    return work


def rows(connection: Connection) -> list[Any]:
    return [json.loads(value) for value in connection.scalars(select(_table.c.v).order_by(_table.c.n))]


def rows_elsewhere(url: str) -> list[Any]:
    """What another process would see."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed)
    try:
        with engine.connect() as connection:
            return rows(connection)
    finally:
        engine.dispose()


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
