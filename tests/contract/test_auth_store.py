"""What every store of the auth service must do: accounts, leases, sessions; on each kind of database."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from services.auth import tables
from services.auth.accounts import Account
from services.auth.names import Username
from services.auth.openings import (
    AccountClosed,
    AlreadyOpen,
    BootSuperseded,
    Moment,
    NewSession,
    Opened,
    ResumedSession,
    TokenRefused,
)
from services.auth.revocations import EdgeBoot, EndedSession
from services.auth.store import SqlStore
from services.common.db import Database, PostgresAccess, migrate
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from tests.helpers.auth_world import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

EDGE = EdgeBoot("edge-1", "boot-a")
REBORN = EdgeBoot("edge-1", "boot-b")
OTHER = EdgeBoot("edge-2", "boot-c")
ACCESS = PostgresAccess(schema="auth")
LEASE_MS = 15_000
TOKEN_MS = 600_000
DAY_MS = 24 * 3600 * 1000


def at(now_ms: int) -> Moment:
    return Moment(now_ms=now_ms, lease_until_ms=now_ms + LEASE_MS, token_until_ms=now_ms + TOKEN_MS)


def account(name: str, **changes: object) -> Account:
    made = Account(
        user_id=f"id-{name}"[:16],
        username=name,
        skeleton=f"look of {name}",
        password_hash=f"hash of {name}",
        created_at_ms=1_700_000_000_000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def session(session_id: str, user_id: str, edge: EdgeBoot = EDGE) -> NewSession:
    return NewSession(
        session_id=session_id, user_id=user_id, token_hash=session_id.encode() * 2, edge=edge, device="phone"
    )


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'auth.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    migrate(url, MIGRATIONS, access=ACCESS)
    database = Database(url, access=ACCESS)
    yield SqlStore(database)
    await database.close()


@pytest.fixture
async def alice(store: SqlStore) -> Account:
    alice = account("alice")
    assert await store.insert_account(alice)
    return alice


# Accounts


async def test_an_account_is_found_as_it_was_stored(store: SqlStore, alice: Account) -> None:
    assert await store.find_account("alice") == alice
    assert await store.find_account("Alice") is None
    assert await store.find_account("nobody") is None
    assert await store.count_accounts() == 1


async def test_a_name_and_a_look_are_taken_once(store: SqlStore, alice: Account) -> None:
    assert not await store.insert_account(account("alice", user_id="x", skeleton="y"))
    assert not await store.insert_account(account("other", skeleton=alice.skeleton))
    assert await store.is_taken(Username(text="alice", skeleton="new"))
    assert await store.is_taken(Username(text="new", skeleton=alice.skeleton))
    assert not await store.is_taken(Username(text="new", skeleton="new"))
    assert await store.count_accounts() == 1


async def test_of_racing_registrations_one_wins_and_spoils_no_other(store: SqlStore) -> None:
    racers = [account("alice", user_id=f"a{n}") for n in range(20)] + [account(f"user{n}") for n in range(20)]
    results = await asyncio.gather(*(store.insert_account(one) for one in racers))
    assert sum(results[:20]) == 1
    assert all(results[20:])


async def test_a_hash_is_replaced_unless_it_has_changed(store: SqlStore, alice: Account) -> None:
    await store.replace_password_hash(alice.user_id, old="another", new="new")
    assert await store.find_account("alice") == alice
    await store.replace_password_hash(alice.user_id, old=alice.password_hash, new="new")
    assert await store.find_account("alice") == replace(alice, password_hash="new")


async def test_accounts_are_listed_by_name_in_pages(store: SqlStore) -> None:
    for name in ("cyd", "bob", "bo%b", "bo_b", "علی", "alice"):
        await store.insert_account(account(name))
    names = [status.username for status in await store.list_accounts(query="", after="", limit=10)]
    assert names == sorted(["cyd", "bob", "bo%b", "bo_b", "علی", "alice"])
    assert [s.username for s in await store.list_accounts(query="", after=names[1], limit=2)] == names[2:4]
    assert [s.username for s in await store.list_accounts(query="b", after="", limit=10)] == ["bo%b", "bo_b", "bob"]
    assert [s.username for s in await store.list_accounts(query="%", after="", limit=10)] == ["bo%b"]
    assert [s.username for s in await store.list_accounts(query="_", after="", limit=10)] == ["bo_b"]
    assert await store.list_accounts(query="' OR 1=1 --", after="", limit=10) == []


async def test_a_status_tells_disabled_and_online(store: SqlStore, alice: Account) -> None:
    status = await store.account_status("alice")
    assert status is not None
    assert (status.user_id, status.disabled, status.online) == (alice.user_id, False, False)
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.set_disabled(alice.user_id, disabled=True)
    status = await store.account_status("alice")
    assert status is not None
    assert (status.disabled, status.online) == (True, True)
    await store.end_sessions(["s1"], at(1))
    await store.set_disabled(alice.user_id, disabled=False)
    (status,) = await store.list_accounts(query="", after="", limit=1)
    assert (status.disabled, status.online) == (False, False)
    assert status.disabled is False
    assert status.online is False
    assert await store.account_status("nobody") is None


# Sessions


async def test_an_account_has_one_session(store: SqlStore, alice: Account) -> None:
    assert await store.open_session(session("s1", alice.user_id), at(1000)) == Opened(ended=[])
    for edge in (EDGE, OTHER):
        again = await store.open_session(session("s2", alice.user_id, edge), at(2000))
        assert again == AlreadyOpen(since_ms=1000)
    assert await store.count_open_sessions() == 1


async def test_of_racing_logins_one_wins(store: SqlStore, alice: Account) -> None:
    results = await asyncio.gather(
        *(store.open_session(session(f"s{n}", alice.user_id, EDGE if n % 2 else OTHER), at(n)) for n in range(30))
    )
    assert sum(isinstance(result, Opened) for result in results) == 1
    assert sum(isinstance(result, AlreadyOpen) for result in results) == 29
    assert await store.count_open_sessions() == 1


async def test_a_disabled_or_unknown_account_gets_no_session(store: SqlStore, alice: Account) -> None:
    await store.set_disabled(alice.user_id, disabled=True)
    assert isinstance(await store.open_session(session("s1", alice.user_id), at(0)), AccountClosed)
    assert isinstance(await store.open_session(session("s1", "nobody"), at(0)), AccountClosed)
    assert await store.count_open_sessions() == 0


async def test_an_ended_session_makes_room_for_the_next(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    assert await store.end_sessions(["s1", "unknown"], at(5)) == 1
    assert await store.end_sessions(["s1"], at(6)) == 0
    assert await store.open_session(session("s2", alice.user_id), at(7)) == Opened(ended=[])


def resumed(session_id: str, used: str, edge: EdgeBoot = EDGE) -> ResumedSession:
    return ResumedSession(
        session_id=session_id, used_hash=used.encode() * 2, token_hash=session_id.encode() * 2, edge=edge
    )


async def good_tokens(store: SqlStore, now_ms: int, *session_ids: str) -> list[str]:
    return [one for one in session_ids if await store.is_token_good(one.encode() * 2, at(now_ms))]


async def test_a_takeover_replaces_and_kills_the_old_token(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    taken = await store.open_session(replace(session("s2", alice.user_id, OTHER), takeover=True), at(1))
    assert taken == Opened(ended=[], replaced=[EndedSession("s1", EDGE)])
    assert await good_tokens(store, 2, "s1", "s2") == ["s2"]
    assert await store.count_open_sessions() == 1


async def test_a_takeover_without_anybody_is_a_login(store: SqlStore, alice: Account) -> None:
    assert await store.open_session(replace(session("s1", alice.user_id), takeover=True), at(0)) == Opened(ended=[])


async def test_a_login_kills_the_tokens_of_sessions_before_it(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.end_sessions(["s1"], at(1))
    await store.open_session(session("s2", alice.user_id), at(2))
    assert await good_tokens(store, 3, "s1", "s2") == ["s2"]


async def test_a_token_serves_for_its_time_after_the_end_and_not_longer(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    long_after = 100 * DAY_MS  # while it is open a token does not age
    assert await good_tokens(store, long_after, "s1") == ["s1"]
    await store.end_sessions(["s1"], at(long_after))
    assert await good_tokens(store, long_after + TOKEN_MS - 1, "s1") == ["s1"]
    assert await good_tokens(store, long_after + TOKEN_MS, "s1") == []
    late = await store.resume_session(resumed("s2", "s1"), at(long_after + TOKEN_MS))
    assert isinstance(late, TokenRefused)
    result = await store.resume_session(resumed("s2", "s1"), at(long_after + TOKEN_MS - 1))
    assert result == Opened(ended=[], user_id=alice.user_id, username="alice", replaced=[])


async def test_the_used_token_stays_good_until_its_successor_is_used(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.resume_session(resumed("s2", "s1", OTHER), at(1))
    assert await good_tokens(store, 2, "s1", "s2") == ["s1", "s2"]
    again = await store.resume_session(resumed("s3", "s1"), at(2))  # the answer with s2 was lost
    assert isinstance(again, Opened)
    assert again.replaced == [EndedSession("s2", OTHER)]
    assert await good_tokens(store, 3, "s1", "s2", "s3") == ["s1", "s3"]
    await store.resume_session(resumed("s4", "s3"), at(3))
    assert await good_tokens(store, 4, "s1", "s2", "s3", "s4") == ["s3", "s4"]
    assert await store.count_open_sessions() == 1


async def test_of_racing_resumes_one_session_stays(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s0", alice.user_id), at(0))
    results = await asyncio.gather(
        *(store.resume_session(resumed(f"r{n}", "s0", EDGE if n % 2 else OTHER), at(n)) for n in range(20))
    )
    opened = [result for result in results if isinstance(result, Opened)]
    assert len(opened) == 20
    replaced = [one.session_id for result in opened for one in result.replaced]
    assert len(set(replaced)) == len(replaced) == 20  # the first and 19 of the racers
    assert await store.count_open_sessions() == 1
    assert len(await good_tokens(store, 30, *(f"r{n}" for n in range(20)))) == 1


async def test_no_token_of_a_disabled_account_serves(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.set_disabled(alice.user_id, disabled=True)
    assert isinstance(await store.resume_session(resumed("s2", "s1"), at(1)), TokenRefused)
    assert isinstance(await store.resume_session(resumed("s2", "unknown"), at(1)), TokenRefused)


async def test_a_superseded_boot_resumes_nobody(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.renew_lease(REBORN, at(1))
    assert isinstance(await store.resume_session(resumed("s2", "s1", EDGE), at(2)), BootSuperseded)
    assert isinstance(await store.resume_session(resumed("s2", "s1", REBORN), at(2)), Opened)


async def test_a_logout_kills_all_tokens_of_the_account(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.resume_session(resumed("s2", "s1"), at(1))
    assert await store.log_out("s1") is False  # it had ended: its own token goes, the live session stays
    assert await good_tokens(store, 2, "s1", "s2") == ["s2"]
    await store.resume_session(resumed("s3", "s2"), at(2))
    assert await store.log_out("s3") is True
    assert await store.log_out("s3") is False
    assert await good_tokens(store, 3, "s1", "s2", "s3") == []


async def test_thousands_of_sessions_end_in_one_call(store: SqlStore) -> None:
    people = [account(f"user{n}") for n in range(1200)]
    await asyncio.gather(*(store.insert_account(one) for one in people))
    await asyncio.gather(*(store.open_session(session(f"s{n}", one.user_id), at(0)) for n, one in enumerate(people)))
    assert await store.end_sessions([f"s{n}" for n in range(50_000)], at(1)) == 1200
    assert await store.count_open_sessions() == 0


async def test_a_deleted_session_leaves_no_token(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    assert await store.delete_session("s1") is True
    assert await store.delete_session("s1") is False
    await store.open_session(session("s1", alice.user_id), at(0))  # the same token: nothing of it was left
    await store.end_sessions(["s1"], at(1))
    assert await store.delete_session("s1") is False  # it was not open any more


async def test_all_sessions_of_an_account_are_deleted(store: SqlStore, alice: Account) -> None:
    bob = account("bob")
    await store.insert_account(bob)
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.end_sessions(["s1"], at(1))
    await store.open_session(session("s2", alice.user_id), at(2))
    await store.open_session(session("s3", bob.user_id), at(2))
    assert await store.delete_sessions_of(alice.user_id) == [EndedSession("s2", EDGE)]
    assert await store.delete_sessions_of(alice.user_id) == []
    assert await store.open_sessions_of(EDGE) == {"s3"}


# Leases


async def test_a_session_without_a_lease_gives_way_to_a_login(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    late = session("s2", alice.user_id, OTHER)
    assert await store.open_session(late, at(LEASE_MS - 1)) == AlreadyOpen(since_ms=0)
    assert await store.open_session(late, at(LEASE_MS)) == Opened(ended=[EndedSession("s1", EDGE)])
    assert await store.open_sessions_of(EDGE) == frozenset()
    assert await store.open_sessions_of(OTHER) == {"s2"}


async def test_a_renewed_lease_keeps_the_session(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    assert await store.renew_lease(EDGE, at(10_000)) == []
    assert await store.renew_lease(EDGE, at(5_000)) == []  # late and out of order: takes nothing back
    other = session("s2", alice.user_id, OTHER)
    assert await store.open_session(other, at(24_999)) == AlreadyOpen(since_ms=0)
    assert await store.end_leaseless(at(24_999)) == []
    assert await store.end_leaseless(at(25_000)) == [EndedSession("s1", EDGE)]
    assert await store.end_leaseless(at(25_000)) == []


async def test_a_login_keeps_the_lease_of_its_edge(store: SqlStore, alice: Account) -> None:
    bob = account("bob")
    await store.insert_account(bob)
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.open_session(session("s2", bob.user_id), at(10_000))
    assert await store.end_leaseless(at(20_000)) == []
    assert {one.session_id for one in await store.end_leaseless(at(25_000))} == {"s1", "s2"}


async def test_a_new_boot_ends_what_the_old_one_left(store: SqlStore, alice: Account) -> None:
    bob = account("bob")
    await store.insert_account(bob)
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.open_session(session("s2", bob.user_id, OTHER), at(0))
    assert await store.renew_lease(REBORN, at(10)) == [EndedSession("s1", EDGE)]
    assert await store.renew_lease(REBORN, at(11)) == []
    assert await store.count_open_sessions() == 1


async def test_a_login_through_a_new_boot_replaces_the_own_old_session(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    result = await store.open_session(session("s2", alice.user_id, REBORN), at(10))
    assert result == Opened(ended=[EndedSession("s1", EDGE)])


async def test_a_superseded_boot_never_comes_back(store: SqlStore, alice: Account) -> None:
    await store.renew_lease(EDGE, at(0))
    await store.renew_lease(REBORN, at(1))
    assert isinstance(await store.renew_lease(EDGE, at(2)), BootSuperseded)
    assert isinstance(await store.open_session(session("s1", alice.user_id, EDGE), at(3)), BootSuperseded)
    assert await store.open_session(session("s2", alice.user_id, REBORN), at(4)) == Opened(ended=[])
    await store.extend_leases(at(5))
    assert isinstance(await store.renew_lease(EDGE, at(6)), BootSuperseded)


async def test_all_leases_can_be_extended(store: SqlStore, alice: Account) -> None:
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.extend_leases(at(100_000))
    assert await store.end_leaseless(at(114_999)) == []
    assert await store.end_leaseless(at(115_000)) == [EndedSession("s1", EDGE)]


async def test_purge_removes_only_what_nobody_can_use(store: SqlStore, alice: Account) -> None:
    bob = account("bob")
    await store.insert_account(bob)
    await store.open_session(session("s1", alice.user_id), at(0))
    await store.end_sessions(["s1"], at(100))
    again = session("s1", bob.user_id)  # with the same token, which is unique as long as it is kept
    await store.purge(at(100 + TOKEN_MS - 1))
    with pytest.raises(IntegrityError):
        await store.open_session(again, at(300))
    await store.purge(at(100 + TOKEN_MS))
    assert await store.open_session(again, at(300)) == Opened(ended=[])
    await store.purge(at(100 + 2 * TOKEN_MS))
    assert await store.count_open_sessions() == 1  # an open session's token does not expire


async def test_purge_forgets_boots_that_are_long_gone(store: SqlStore) -> None:
    await store.renew_lease(EDGE, at(0))
    await store.renew_lease(REBORN, at(1))
    await store.purge(at(LEASE_MS + DAY_MS))
    assert isinstance(await store.renew_lease(EDGE, at(LEASE_MS + DAY_MS)), BootSuperseded)
    await store.purge(at(LEASE_MS + DAY_MS + 2))
    assert await store.renew_lease(EDGE, at(LEASE_MS + DAY_MS + 3)) == []


# Several instances on one database


@pytest.fixture
async def twins(postgres_url: str) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    migrate(postgres_url, MIGRATIONS, access=ACCESS)
    databases = [Database(postgres_url, access=ACCESS) for _ in range(2)]
    yield SqlStore(databases[0]), SqlStore(databases[1])
    for database in databases:
        await database.close()


async def test_of_logins_racing_through_two_instances_one_wins(twins: tuple[SqlStore, SqlStore]) -> None:
    people = [account(f"user{n}") for n in range(20)]
    for person in people:
        assert await twins[0].insert_account(person)
    logins = [
        store.open_session(session(f"{person.user_id}-{n}-{attempt}", person.user_id, edge), at(0))
        for person in people
        for attempt in range(3)
        for n, (store, edge) in enumerate(zip(twins, (EDGE, OTHER), strict=True))
    ]
    results = await asyncio.gather(*logins)
    assert sum(isinstance(result, Opened) for result in results) == len(people)
    assert sum(isinstance(result, AlreadyOpen) for result in results) == len(people) * 5
    assert await twins[0].count_open_sessions() == await twins[1].count_open_sessions() == len(people)


async def test_of_takeovers_racing_through_two_instances_the_last_one_stays(
    twins: tuple[SqlStore, SqlStore],
) -> None:
    alice = account("alice")
    await twins[0].insert_account(alice)
    logins = [
        twins[n % 2].open_session(replace(session(f"s{n}", alice.user_id, (EDGE, OTHER)[n % 2]), takeover=True), at(0))
        for n in range(20)
    ]
    results = await asyncio.gather(*logins)
    assert all(isinstance(result, Opened) for result in results)
    replaced = {one.session_id for result in results if isinstance(result, Opened) for one in result.replaced}
    assert len(replaced) == 19  # each but the last was told to go
    open_now = await twins[0].open_sessions_of(EDGE) | await twins[0].open_sessions_of(OTHER)
    assert open_now == {f"s{n}" for n in range(20)} - replaced


async def test_of_racing_registrations_through_two_instances_one_wins(twins: tuple[SqlStore, SqlStore]) -> None:
    racers = [account("alice", user_id=f"a{n}") for n in range(20)]
    results = await asyncio.gather(*(twins[n % 2].insert_account(one) for n, one in enumerate(racers)))
    assert sum(results) == 1


async def test_a_new_boot_may_announce_itself_to_two_instances_at_once(twins: tuple[SqlStore, SqlStore]) -> None:
    await twins[0].insert_account(account("alice"))
    for n in range(20):
        boot = EdgeBoot("edge-1", f"boot-{n}")
        results = await asyncio.gather(*(store.renew_lease(boot, at(n)) for store in twins))
        assert not any(isinstance(result, BootSuperseded) for result in results)
        ended = [one for result in results if not isinstance(result, BootSuperseded) for one in result]
        assert [one.session_id for one in ended] == ([f"s{n - 1}"] if n else [])
        assert isinstance(await twins[n % 2].open_session(session(f"s{n}", "id-alice", boot), at(n)), Opened)


# Failures


async def test_a_full_disk_is_unavailable_and_its_log_holds_no_secret(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'auth.db'}"
    migrate(url, MIGRATIONS, access=ACCESS)
    database = Database(url, access=ACCESS)
    store = SqlStore(database)
    await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1").close())
    with capture_logs() as logs:
        for n in range(200):
            try:
                await store.insert_account(account(f"mallory{n}", password_hash="secret " * 300))
            except ParleyError as error:
                full = error
                break
    assert full.code is ErrorCode.UNAVAILABLE
    assert logs
    said = "".join("".join(traceback.format_exception(log["exc_info"])) for log in logs) + repr(logs)
    assert "secret" not in said
    assert "mallory" not in said
    assert await store.count_accounts() == n
    await database.close()


# The schema


async def test_everything_is_there_after_opening_the_database_again(url: str) -> None:
    for attempt in range(2):
        migrate(url, MIGRATIONS, access=ACCESS)
        database = Database(url, access=ACCESS)
        store = SqlStore(database)
        if attempt == 0:
            await store.insert_account(account("alice"))
            await store.open_session(session("s1", "id-alice"), at(0))
        assert await store.find_account("alice") == account("alice")
        assert await store.open_sessions_of(EDGE) == {"s1"}
        await database.close()


async def test_the_migrations_make_the_tables_that_the_code_expects(url: str) -> None:
    migrate(url, MIGRATIONS, access=ACCESS)
    database = Database(url, access=ACCESS)

    def compare(connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
        inspector, dialect = inspect(connection), connection.dialect
        there = {
            table: (
                {
                    (column["name"], column["type"].compile(dialect), column["nullable"])
                    for column in inspector.get_columns(table)
                },
                {
                    (index["name"], tuple(index["column_names"]), bool(index["unique"]))
                    for index in inspector.get_indexes(table)
                    if "duplicates_constraint" not in index  # PostgreSQL keeps UNIQUE by an index
                },
            )
            for table in inspector.get_table_names()
            if table != "alembic_version"
        }
        wanted = {
            table.name: (
                {(column.name, column.type.compile(dialect), column.nullable) for column in table.columns},
                {(index.name, tuple(index.columns.keys()), index.unique) for index in table.indexes},
            )
            for table in tables.metadata.sorted_tables
        }
        return there, wanted

    there, wanted = await database.read(compare)
    await database.close()
    assert there == wanted
