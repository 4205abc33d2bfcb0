"""Rooms as operators see and change them, on each kind of database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text, update

from services.common.db import Database, migrate
from services.common.wire.codes import ErrorCode
from services.rooms import store as people
from services.rooms.operators import store
from services.rooms.store import RoomRecord
from services.rooms.tables import endings, files, members, messages, rooms
from tests.contract.test_rooms_store import ACCESS, NOW_MS, Shop, url, version
from tests.helpers.rooms_world import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection, Table

__all__ = ["url"]


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    migrate(url, MIGRATIONS, access=ACCESS)
    database = Database(url, access=ACCESS)
    yield Shop(database)
    await database.close()


async def fill(shop: Shop, room: RoomRecord, *, texts: int, kept: int) -> None:
    """Messages and posted files for a room."""

    def work(connection: Connection) -> None:
        for seq in range(1, texts + 1):
            row = {"room_number": room.number, "seq": seq, "sender_id": "alice", "username": "a", "text": "t"}
            connection.execute(insert(messages).values(**row, sent_at_ms=NOW_MS + seq, key=f"k{seq}"))
        now = {"last_seq": texts, "last_sent_at_ms": NOW_MS + texts}
        connection.execute(update(rooms).where(rooms.c.number == room.number).values(now))
        for number in range(kept):
            row = {"file_id": f"f{room.number}-{number}", "room_number": room.number, "user_id": "alice"}
            row |= {"username": "a", "name": "n", "mime": "", "size": 10, "sha256": "", "state": "posted", "seq": 1}
            connection.execute(insert(files).values(**row, changed_at_ms=0, transfer_id="", piece_bytes=0))

    await shop.database.write(work)


async def count(shop: Shop, table: Table) -> int:
    return await shop.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())


async def test_a_room_is_described(shop: Shop) -> None:
    room = await shop.create("alice", "Lobby", is_private=True)
    await fill(shop, room, texts=3, kept=2)
    details = await shop.read(lambda c: store.describe(c, "lobby"))
    assert (details.room.room_id, details.room.last_seq, details.owner) == (room.room_id, 3, "alice name")
    assert (details.last_sent_at_ms, details.file_count, details.file_bytes) == (NOW_MS + 3, 2, 20)


async def test_members_come_in_pages(shop: Shop) -> None:
    await shop.create("cleo", "lobby")
    for user in ("bob", "dora", "adam"):
        await shop.join(user, "lobby")
    _, first = await shop.read(lambda c: store.members_behind(c, "lobby", "", limit=3))
    assert [member.username for member in first] == ["adam name", "bob name", "cleo name"]
    assert [member.role for member in first] == ["member", "member", "owner"]
    _, rest = await shop.read(lambda c: store.members_behind(c, "lobby", first[-1].username, limit=3))
    assert [member.user_id for member in rest] == ["dora"]


async def test_nobody_new_comes_into_a_closed_room(shop: Shop) -> None:
    await shop.create("alice", "lobby")
    closed = await shop.database.write(lambda c: store.set_closed(c, "lobby", is_closed=True))
    assert closed.is_closed
    assert await shop.refused(shop.join("bob", "lobby")) is ErrorCode.FORBIDDEN
    joined, is_new = await shop.join("alice", "lobby")  # who is in it is in it
    assert (joined.role, is_new) == ("owner", False)
    await shop.database.write(lambda c: store.set_closed(c, "lobby", is_closed=True))
    opened = await shop.database.write(lambda c: store.set_closed(c, "lobby", is_closed=False))
    assert not opened.is_closed
    await shop.join("bob", "lobby")


async def take_apart(shop: Shop, *, limit: int) -> list[store.Step]:
    steps = []
    while step := await shop.database.write(
        lambda c: store.take_apart(c, now_ms=NOW_MS, version=version(), limit=limit)
    ):
        steps.append(step)
    return steps


async def test_a_deleted_room_is_there_for_nobody_and_its_name_is_free(shop: Shop) -> None:
    room = await shop.create("alice", "Lobby")
    await fill(shop, room, texts=1, kept=0)
    details = await shop.database.write(lambda c: store.mark_deleted(c, "lobby"))
    assert (details.room.name, details.room.last_seq) == ("Lobby", 1)
    for call in (shop.join("bob", room.room_id), shop.leave("alice", "lobby"), shop.remove("alice name", "lobby")):
        assert await shop.refused(call) is ErrorCode.NO_SUCH_ROOM
    assert await shop.refused(shop.database.write(lambda c: store.mark_deleted(c, room.room_id))) is (
        ErrorCode.NO_SUCH_ROOM
    )
    assert await shop.read(lambda c: people.rooms_of(c, "alice")) == []
    assert await shop.read(lambda c: people.list_rooms(c, None, query="", after_room_id=None, limit=9)) == []
    again = await shop.create("bob", "Lobby")
    assert again.number != room.number
    await take_apart(shop, limit=10)
    assert (await shop.read(lambda c: store.describe(c, "lobby"))).room.room_id == again.room_id


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_a_deleted_room_is_taken_apart_in_steps(shop: Shop, limit: int) -> None:
    other = await shop.create("alice", "other")
    await fill(shop, other, texts=2, kept=1)
    room = await shop.create("alice", "lobby")
    for user in ("bob", "cleo"):
        await shop.join(user, "lobby")
    await fill(shop, room, texts=5, kept=3)
    await shop.database.write(lambda c: store.mark_deleted(c, "lobby"))
    steps = await take_apart(shop, limit=limit)
    ended = [one for step in steps for one in step.ended]
    assert sorted(one.user_id for one in ended) == ["alice", "bob", "cleo"]
    assert {(one.room_id, one.last_seq) for one in ended} == {(room.room_id, 5)}
    numbers = [one.number for one in ended]
    assert numbers == sorted(set(numbers))
    assert [step.is_gone for step in steps] == [False] * (len(steps) - 1) + [True]
    assert await count(shop, rooms) == 1
    assert await count(shop, messages) == 2
    assert await count(shop, members) == 1
    assert await count(shop, files) == 1
    assert await count(shop, endings) == 3


async def test_a_number_is_not_given_again_before_its_messages_are_gone(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")
    await fill(shop, room, texts=3, kept=0)
    await shop.database.write(lambda c: store.mark_deleted(c, "lobby"))
    fresh = await shop.create("bob", "lobby")
    assert fresh.number != room.number
    await take_apart(shop, limit=1)
    newest = await shop.create("bob", "third")
    assert (
        await shop.read(
            lambda c: c.execute(
                text("SELECT count(*) FROM messages WHERE room_number = :n").bindparams(n=newest.number)
            ).scalar_one()
        )
        == 0
    )
