"""What the store of rooms must do, on each kind of database."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from services.common.db import Database, PostgresAccess, migrate
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import log, store
from services.rooms.rooms import MEMBER, OWNER
from services.rooms.store import NewRoom, RoomRecord
from services.rooms.tables import members, metadata
from tests.helpers.rooms_world import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy import Connection

T = TypeVar("T")
ACCESS = PostgresAccess(schema="rooms")
NOW_MS = 1_800_000_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'rooms.db'}"


class Shop:
    """The store with the arguments that tests do not care about."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self.database.read(work)

    async def create(
        self, owner: str, name: str, *, room_id: str = "", is_private: bool = False, owned: int = 100, joined: int = 500
    ) -> RoomRecord:
        new = NewRoom(room_id or f"id{secrets.token_hex(5)}", name, "a topic", is_private, "epoch1", version())
        return await self.database.write(
            lambda c: store.create_room(
                c, new, owner_id=owner, username=f"{owner} name", now_ms=NOW_MS, owned_max=owned, joined_max=joined
            )
        )

    async def join(self, user: str, reference: str, *, joined: int = 500) -> tuple[RoomRecord, bool]:
        return await self.database.write(
            lambda c: store.join_room(
                c,
                reference,
                user_id=user,
                username=f"{user} name",
                now_ms=NOW_MS,
                version=version(),
                joined_max=joined,
            )
        )

    async def leave(self, user: str, reference: str) -> store.Ended:
        return await self.database.write(
            lambda c: store.leave_room(c, reference, user_id=user, version=version(), now_ms=NOW_MS, boot_id="boot")
        )

    async def remove(self, username: str, reference: str) -> store.Ended:
        return await self.database.write(
            lambda c: store.remove_member(c, reference, username=username, version=version(), now_ms=NOW_MS)
        )

    async def roles(self, room: RoomRecord) -> dict[str, str]:
        query = members.select().where(members.c.room_number == room.number)
        return {row.user_id: row.role for row in await self.read(lambda c: c.execute(query).all())}

    async def refused(self, call: Any) -> ErrorCode:
        with pytest.raises(ParleyError) as caught:
            await call
        return caught.value.code


def version() -> int:
    return secrets.randbits(62)


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    migrate(url, MIGRATIONS, access=ACCESS)
    database = Database(url, access=ACCESS)
    yield Shop(database)
    await database.close()


async def test_the_migrations_make_the_tables(shop: Shop) -> None:
    differences = await shop.read(lambda c: compare_metadata(MigrationContext.configure(c), metadata))
    assert differences == []


async def test_the_creator_owns_the_room(shop: Shop) -> None:
    room = await shop.create("alice", "Lobby")
    assert (room.name, room.name_key, room.topic, room.role) == ("Lobby", "lobby", "a topic", OWNER)
    assert (room.epoch, room.last_seq, room.member_count, room.created_at_ms) == ("epoch1", 0, 1, NOW_MS)
    assert await shop.roles(room) == {"alice": OWNER}
    assert await shop.read(store.count_rooms) == 1


@pytest.mark.parametrize("name", ["Lobby", "LOBBY", "ＬＯＢＢＹ", "lobby"])
async def test_a_name_is_there_once(shop: Shop, name: str) -> None:
    await shop.create("alice", "Lobby")
    assert await shop.refused(shop.create("bob", name)) is ErrorCode.ROOM_EXISTS
    assert await shop.read(store.count_rooms) == 1
    assert await shop.read(lambda c: store.rooms_of(c, "bob")) == []


async def test_the_name_of_a_private_room_is_taken_too(shop: Shop) -> None:
    await shop.create("alice", "secret", is_private=True)
    assert await shop.refused(shop.create("bob", "Secret")) is ErrorCode.ROOM_EXISTS


async def test_an_id_that_exists_is_refused_whole(shop: Shop) -> None:
    await shop.create("alice", "one", room_id="same00000000")
    assert await shop.refused(shop.create("bob", "two", room_id="same00000000")) is ErrorCode.ROOM_EXISTS
    assert await shop.read(store.count_rooms) == 1


async def test_quotas(shop: Shop) -> None:
    await shop.create("alice", "one", owned=2)
    await shop.create("alice", "two", owned=2)
    assert await shop.refused(shop.create("alice", "three", owned=2)) is ErrorCode.QUOTA_EXCEEDED
    assert await shop.refused(shop.create("alice", "three", joined=2)) is ErrorCode.QUOTA_EXCEEDED
    third = await shop.create("bob", "three")
    assert await shop.refused(shop.join("alice", third.room_id, joined=2)) is ErrorCode.QUOTA_EXCEEDED
    await shop.leave("alice", "one")
    await shop.join("alice", third.room_id, joined=2)
    await shop.create("alice", "four", owned=2)


async def test_joining_is_idempotent_and_keeps_the_role(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")
    joined, is_new = await shop.join("bob", "LOBBY")
    assert (joined.role, is_new, joined.member_count) == (MEMBER, True, 2)
    again, is_new = await shop.join("bob", room.room_id[:6], joined=1)
    assert (again, is_new) == (joined, False)
    owner, is_new = await shop.join("alice", "lobby")
    assert (owner.role, is_new, owner.member_count) == (OWNER, False, 2)


async def test_leaving(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")
    await shop.join("bob", "lobby")
    ended = await shop.leave("bob", "lobby")
    assert ended == store.Ended(room.room_id, "bob", "bob name", 0, "boot", 1)
    assert await shop.refused(shop.leave("bob", "lobby")) is ErrorCode.NOT_A_MEMBER
    assert await shop.refused(shop.leave("bob", "nowhere")) is ErrorCode.NO_SUCH_ROOM
    assert await shop.roles(room) == {"alice": OWNER}


async def test_the_owner_is_followed_by_the_longest_standing_member(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")
    for user in ("zoe", "bob", "adam"):
        await shop.join(user, "lobby")
    await shop.leave("zoe", "lobby")
    await shop.join("zoe", "lobby")  # who comes back stands in the line anew
    await shop.leave("alice", "lobby")
    assert await shop.roles(room) == {"bob": OWNER, "adam": MEMBER, "zoe": MEMBER}
    await shop.remove("bob name", "lobby")
    assert await shop.roles(room) == {"adam": OWNER, "zoe": MEMBER}
    await shop.leave("zoe", "lobby")
    assert await shop.roles(room) == {"adam": OWNER}


async def test_an_abandoned_room_belongs_to_who_comes_next(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")
    await shop.leave("alice", "lobby")
    assert await shop.roles(room) == {}
    joined, _ = await shop.join("bob", "lobby")
    assert joined.role == OWNER
    await shop.join("alice", "lobby")
    assert await shop.roles(room) == {"bob": OWNER, "alice": MEMBER}


@pytest.mark.parametrize("username", ["bob name", "BOB NAME"])
async def test_an_operator_removes_by_name(shop: Shop, username: str) -> None:
    room = await shop.create("alice", "secret", is_private=True)
    await shop.database.write(lambda c: store._add_member(c, room, "bob", "bob name", role=MEMBER, now_ms=1, version=1))
    assert (await shop.remove(username, "secret")).user_id == "bob"
    assert await shop.refused(shop.remove(username, "secret")) is ErrorCode.NOT_A_MEMBER
    assert await shop.refused(shop.remove(username, "nowhere")) is ErrorCode.NO_SUCH_ROOM


async def test_each_change_of_the_members_has_a_version_of_its_own(shop: Shop) -> None:
    room = await shop.create("alice", "lobby")

    async def current() -> int:
        query = "SELECT members_version FROM rooms"
        return await shop.read(lambda c: c.exec_driver_sql(query).scalar_one())  # type: ignore[no-any-return]

    versions = [await current()]
    await shop.join("bob", room.room_id)
    versions.append(await current())
    await shop.join("bob", room.room_id)
    assert await current() == versions[-1]
    await shop.leave("bob", room.room_id)
    versions.append(await current())
    assert len(set(versions)) == 3


async def test_a_private_room_does_not_exist_for_others(shop: Shop) -> None:
    room = await shop.create("alice", "secret", room_id="abcd0000wxyz", is_private=True)
    for reference in ("secret", "abcd0000wxyz", "abcd00"):
        assert await shop.refused(shop.join("bob", reference)) is ErrorCode.NO_SUCH_ROOM
        assert await shop.refused(shop.leave("bob", reference)) is ErrorCode.NO_SUCH_ROOM
        for work in (store.find_room, store.find_room_of_member):
            lookup = shop.read(lambda c, w=work, r=reference: w(c, r, "bob"))  # type: ignore[misc]
            assert await shop.refused(lookup) is ErrorCode.NO_SUCH_ROOM
        found = await shop.read(lambda c, r=reference: store.find_room(c, r, "alice"))  # type: ignore[misc]
        assert found == room
        assert (await shop.read(lambda c, r=reference: store.find_room(c, r, None))).room_id == room.room_id  # type: ignore[misc]
    assert await shop.read(lambda c: store.list_rooms(c, "bob", query="", after_room_id=None, limit=9)) == []
    assert len(await shop.read(lambda c: store.list_rooms(c, None, query="", after_room_id=None, limit=9))) == 1


async def test_a_private_room_does_not_spoil_a_prefix(shop: Shop) -> None:
    await shop.create("alice", "secret", room_id="abcd0000wxyz", is_private=True)
    await shop.create("alice", "lobby", room_id="abcd1111wxyz")
    assert (await shop.join("bob", "abcd"))[0].name == "lobby"
    assert await shop.refused(shop.join("alice", "abcd")) is ErrorCode.NO_SUCH_ROOM  # she sees both


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("abcz", "first"),
        ("abcz0000000", "first"),
        ("abd0", "second"),
        ("abcz0000000z", None),
        ("%", None),
        ("abc_", None),
    ],
)
async def test_prefixes(shop: Shop, reference: str, meant: str | None) -> None:
    await shop.create("alice", "first", room_id="abcz00000001")
    await shop.create("alice", "second", room_id="abd000000001")
    if meant is None:
        assert await shop.refused(shop.join("bob", reference)) is ErrorCode.NO_SUCH_ROOM
    else:
        assert (await shop.join("bob", reference))[0].name == meant


async def names(
    shop: Shop, user: str | None, *, query: str = "", after: str | None = None, limit: int = 100
) -> list[str]:
    found = await shop.read(lambda c: store.list_rooms(c, user, query=query, after_room_id=after, limit=limit))
    return [room.name for room in found]


async def test_rooms_are_listed_by_name_page_by_page(shop: Shop) -> None:
    made = {name: await shop.create("alice", name) for name in ("Delta", "alpha", "Éclair", "bravo", "Charlie")}
    assert await names(shop, "bob") == ["alpha", "bravo", "Charlie", "Delta", "Éclair"]
    assert await names(shop, "bob", limit=2) == ["alpha", "bravo"]
    assert await names(shop, "bob", after=made["bravo"].room_id, limit=2) == ["Charlie", "Delta"]
    assert await names(shop, "bob", after=made["Éclair"].room_id) == []
    with pytest.raises(ParleyError) as caught:
        await names(shop, "bob", after="nosuchroom00")
    assert caught.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("query", "found"),
    [("ALPH", ["Alpha"]), ("100%", ["100% tea"]), ("%", ["100% tea"]), ("_", ["a_b"]), ("zzz", []), ("é", ["café"])],
)
async def test_a_query_is_a_part_of_the_name(shop: Shop, query: str, found: list[str]) -> None:
    for name in ("Alpha", "100% tea", "a_b", "café"):
        await shop.create("alice", name)
    assert await names(shop, "bob", query=query) == found


async def test_lists_say_who_is_in(shop: Shop) -> None:
    await shop.create("alice", "one")
    await shop.create("bob", "two")
    found = await shop.read(lambda c: store.list_rooms(c, "bob", query="", after_room_id=None, limit=9))
    assert [(room.name, room.role) for room in found] == [("one", None), ("two", OWNER)]
    everything = await shop.read(lambda c: store.list_rooms(c, None, query="", after_room_id=None, limit=9))
    assert [(room.name, room.role) for room in everything] == [("one", None), ("two", None)]
    assert [room.name for room in await shop.read(lambda c: store.rooms_of(c, "bob"))] == ["two"]


async def test_members_by_name(shop: Shop) -> None:
    room = await shop.create("zoe", "lobby")
    for user in ("bob", "adam"):
        await shop.join(user, "lobby")
    found, listed = await shop.read(lambda c: store.read_members(c, "bob", "lobby", limit=10))
    assert found.room_id == room.room_id
    assert listed is not None
    assert [(member.username, member.role) for member in listed] == [
        ("adam name", MEMBER),
        ("bob name", MEMBER),
        ("zoe name", OWNER),
    ]
    with pytest.raises(ParleyError) as caught:
        await shop.read(lambda c: store.read_members(c, "eve", "lobby", limit=10))
    assert caught.value.code is ErrorCode.NOT_A_MEMBER


async def test_of_a_crowd_the_online_ones_go_first(shop: Shop) -> None:
    room = await shop.create("m0", "lobby")
    for n in range(1, 8):
        room, _ = await shop.join(f"m{n}", "lobby")
    assert (await shop.read(lambda c: store.read_members(c, "m0", "lobby", limit=5)))[1] is None

    async def crowd(*online: str) -> list[str]:
        found = await shop.read(lambda c: store.read_crowd(c, room, online_ids=set(online), limit=5))
        return [member.user_id for member in found]

    assert await crowd("m7", "m5", "stranger") == ["m5", "m7", "m0", "m1", "m2"]
    assert await crowd() == ["m0", "m1", "m2", "m3", "m4"]
    assert await crowd("m1", "m0") == ["m0", "m1", "m2", "m3", "m4"]
    assert await crowd(*(f"m{n}" for n in range(8))) == ["m0", "m1", "m2", "m3", "m4"]


async def test_memberships_of_many(shop: Shop) -> None:
    one, two = await shop.create("alice", "one"), await shop.create("bob", "two")
    await shop.join("alice", "two")
    users = [f"nobody{n}" for n in range(1_200)] + ["alice", "bob"]
    assert await shop.read(lambda c: store.memberships(c, users)) == {
        (one.room_id, "alice"),
        (two.room_id, "alice"),
        (two.room_id, "bob"),
    }
    wanted = [one.room_id, "nosuchroom00"]
    assert await shop.read(lambda c: store.last_seqs(c, wanted)) == {one.room_id: 0}
    assert await shop.read(lambda c: store.memberships(c, [])) == set()


@pytest.mark.parametrize(
    ("after", "before", "limit", "expected", "more"),
    [
        (None, None, 3, [8, 9, 10], True),
        (None, None, 10, list(range(1, 11)), False),
        (None, None, 50, list(range(1, 11)), False),
        (None, 4, 2, [2, 3], True),
        (None, 3, 2, [1, 2], False),
        (None, 1, 2, [], False),
        (None, 0, 2, [], False),
        (None, 999, 2, [9, 10], True),
        (0, None, 3, [1, 2, 3], True),
        (7, None, 3, [8, 9, 10], False),
        (10, None, 3, [], False),
        (999, None, 3, [], False),
    ],
)
async def test_pages_of_history(
    shop: Shop, after: int | None, before: int | None, limit: int, expected: list[int], more: bool
) -> None:
    room = await shop.create("alice", "lobby")

    def fill(c: Connection) -> None:
        for seq in range(1, 11):
            c.execute(
                text("INSERT INTO messages VALUES (:room, :seq, 'alice', 'alice', 'x', 1, :text)"),
                {"room": room.number, "seq": seq, "text": str(seq)},
            )
        c.exec_driver_sql("UPDATE rooms SET last_seq = 10")

    await shop.database.write(fill)
    history = await shop.read(
        lambda c: log.read_history(c, "alice", "lobby", after_seq=after, before_seq=before, limit=limit)
    )
    assert [message.seq for message in history.messages] == expected
    assert history.more is more
    assert history.room.last_seq == 10
