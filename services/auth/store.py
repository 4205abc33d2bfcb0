"""The store: accounts, leases and sessions in SQL, each method one transaction.

A session is open while `ended_at_ms` is null. That its edge's lease is over is a reason to end it, which the sweep and
the next login do. Every decision that must not race (who gets an account's one session, which boot of an edge is the
current one) is made inside one writing transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from services.auth.accounts import Account, AccountStatus
from services.auth.openings import AccountClosed, AlreadyOpen, BootSuperseded, Opened, PasswordChanged, TokenRefused
from services.auth.revocations import EdgeBoot, EndedSession
from services.auth.sessions import SessionRecord
from services.auth.tables import accounts, edge_boots, sessions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Select, Table

    from services.auth.names import Username
    from services.auth.openings import Moment, NewSession, OpenResult, ResumedSession, ResumeResult
    from services.common.db import Database

# Variables in one IN list; SQLite takes 32,766, but a statement of that size is parsed anew for every length.
_IDS_PER_STATEMENT = 500
# How long a boot that is gone is remembered, so that a request of its that was held up somewhere is recognised.
_BOOT_MEMORY_MS = 24 * 3600 * 1000

_is_open = sessions.c.ended_at_ms.is_(None)
_its_boot = and_(edge_boots.c.edge_name == sessions.c.edge_name, edge_boots.c.boot_id == sessions.c.boot_id)
_ended_columns = (sessions.c.session_id, sessions.c.edge_name, sessions.c.boot_id)
_status_columns = (
    accounts.c.user_id,
    accounts.c.username,
    accounts.c.created_at_ms,
    accounts.c.disabled,
    exists().where(sessions.c.user_id == accounts.c.user_id, _is_open).label("online"),
)
_record_columns = (
    sessions.c.session_id,
    accounts.c.username,
    sessions.c.edge_name,
    sessions.c.device,
    sessions.c.opened_at_ms,
    sessions.c.ended_at_ms,
    sessions.c.token_expires_at_ms,
)
# The statements of a resume, built once: when an edge dies, thousands of clients
# resume together, and building them costs as much as running them.
_by_token = sessions.c.token_hash == bindparam("used_hash")
_by_owner = sessions.c.user_id == bindparam("owner")
_is_good = or_(_is_open, sessions.c.token_expires_at_ms > bindparam("at_ms"))  # open, or ended not too long ago
_SELECT_GOOD = select(exists().where(_by_token, _is_good))
_SELECT_OWNER = select(sessions.c.user_id).where(_by_token)
_LOCK_OWNER = (
    select(accounts.c.username, accounts.c.disabled).where(accounts.c.user_id == bindparam("owner")).with_for_update()
)
_SELECT_USED = select(sessions.c.device).where(_by_token, _is_good)
_SELECT_OPEN = select(*_ended_columns).where(_by_owner, _is_open)
_DELETE_OTHERS = delete(sessions).where(_by_owner, ~_by_token)
_END_USED = (
    update(sessions).where(_by_token).values(ended_at_ms=bindparam("at_ms"), token_expires_at_ms=bindparam("until_ms"))
)
_LOCK_BOOT = (
    select(edge_boots)
    .where(edge_boots.c.edge_name == bindparam("name"), edge_boots.c.boot_id == bindparam("boot"))
    .with_for_update()
)
_INSERT_SESSION = insert(sessions)


class SqlStore:
    """Implements `AccountStore` and `SessionStore` on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Accounts

    async def insert_account(self, account: Account) -> bool:
        """See `AccountStore`."""
        row = {column.name: getattr(account, column.name) for column in accounts.columns}
        try:
            await self._execute(insert(accounts).values(row))
        except IntegrityError:
            # Of the three unique columns the id is random; the name and its look are what can be taken.
            return False
        return True

    async def is_taken(self, name: Username) -> bool:
        """See `AccountStore`."""
        query = select(exists().where(or_(accounts.c.username == name.text, accounts.c.skeleton == name.skeleton)))
        return bool(await self._database.read(lambda connection: connection.scalar(query)))

    async def find_account(self, username: str) -> Account | None:
        """See `AccountStore`."""
        query = select(accounts).where(accounts.c.username == username)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return None if row is None else Account(**row)

    async def replace_password_hash(self, user_id: str, *, old: str, new: str) -> None:
        """See `AccountStore`."""
        change = update(accounts).where(accounts.c.user_id == user_id, accounts.c.password_hash == old)
        await self._execute(change.values(password_hash=new))

    async def set_password_hash(self, user_id: str, new: str) -> None:
        """See `AccountStore`."""
        await self._execute(update(accounts).where(accounts.c.user_id == user_id).values(password_hash=new))

    async def list_accounts(self, *, query: str, after: str, limit: int) -> Sequence[AccountStatus]:
        """See `AccountStore`."""
        page = select(*_status_columns).where(accounts.c.username > after).order_by(accounts.c.username).limit(limit)
        if query:
            page = page.where(accounts.c.username.contains(query, autoescape=True))
        return await self._database.read(lambda connection: _statuses(connection, page))

    async def account_status(self, username: str) -> AccountStatus | None:
        """See `AccountStore`."""
        one = select(*_status_columns).where(accounts.c.username == username)
        found = await self._database.read(lambda connection: _statuses(connection, one))
        return found[0] if found else None

    async def set_disabled(self, user_id: str, *, disabled: bool) -> None:
        """See `AccountStore`."""
        await self._execute(update(accounts).where(accounts.c.user_id == user_id).values(disabled=disabled))

    async def count_accounts(self) -> int:
        """See `AccountStore`."""
        return await self._count(select(func.count()).select_from(accounts))

    # Sessions

    async def open_session(self, session: NewSession, moment: Moment) -> OpenResult:
        """See `SessionStore`."""
        return await self._database.write(lambda connection: _open(connection, session, moment))

    async def is_token_good(self, token_hash: bytes, moment: Moment) -> bool:
        """See `SessionStore`."""
        values = {"used_hash": token_hash, "at_ms": moment.now_ms}
        return bool(await self._database.read(lambda connection: connection.scalar(_SELECT_GOOD, values)))

    async def resume_session(self, session: ResumedSession, moment: Moment) -> ResumeResult:
        """See `SessionStore`."""
        return await self._database.write(lambda connection: _resume(connection, session, moment))

    async def end_sessions(self, session_ids: Collection[str], moment: Moment) -> int:
        """See `SessionStore`."""
        return await self._database.write(lambda connection: _end(connection, session_ids, moment))

    async def delete_session(self, session_id: str) -> bool:
        """See `SessionStore`."""
        removal = delete(sessions).where(sessions.c.session_id == session_id).returning(sessions.c.ended_at_ms)

        def work(connection: Connection) -> bool:
            row = connection.execute(removal).one_or_none()
            return row is not None and row.ended_at_ms is None

        return await self._database.write(work)

    async def log_out(self, session_id: str) -> bool:
        """See `SessionStore`."""
        removal = delete(sessions).where(sessions.c.session_id == session_id)

        def work(connection: Connection) -> bool:
            row = connection.execute(removal.returning(sessions.c.user_id, sessions.c.ended_at_ms)).one_or_none()
            if row is None or row.ended_at_ms is not None:
                return False
            connection.execute(delete(sessions).where(sessions.c.user_id == row.user_id))
            return True

        return await self._database.write(work)

    async def delete_sessions_of(self, user_id: str) -> Sequence[EndedSession]:
        """See `SessionStore`."""
        theirs = sessions.c.user_id == user_id

        def work(connection: Connection) -> list[EndedSession]:
            ended = _ended(connection, select(*_ended_columns).where(theirs, _is_open))
            connection.execute(delete(sessions).where(theirs))
            return ended

        return await self._database.write(work)

    async def renew_lease(self, edge: EdgeBoot, moment: Moment) -> Sequence[EndedSession] | BootSuperseded:
        """See `SessionStore`."""
        return await self._database.write(lambda connection: _keep_lease(connection, edge, moment))

    async def open_sessions_of(self, edge: EdgeBoot) -> frozenset[str]:
        """See `SessionStore`."""
        belongs = and_(sessions.c.edge_name == edge.name, sessions.c.boot_id == edge.boot_id)
        query = select(sessions.c.session_id).where(_is_open, belongs)
        return await self._database.read(lambda connection: frozenset(connection.scalars(query)))

    async def end_leaseless(self, moment: Moment) -> Sequence[EndedSession]:
        """See `SessionStore`."""
        is_kept = and_(edge_boots.c.superseded_at_ms.is_(None), edge_boots.c.lease_until_ms > moment.now_ms)
        query = select(*_ended_columns).where(_is_open, ~exists().where(_its_boot, is_kept))
        if not await self._database.read(lambda connection: _ended(connection, query.limit(1))):
            return []  # the usual case costs no synced commit
        return await self._database.write(lambda connection: _end_all(connection, query, moment))

    async def extend_leases(self, moment: Moment) -> None:
        """See `SessionStore`."""
        is_short = and_(edge_boots.c.superseded_at_ms.is_(None), edge_boots.c.lease_until_ms < moment.lease_until_ms)
        await self._execute(update(edge_boots).where(is_short).values(lease_until_ms=moment.lease_until_ms))

    async def purge(self, moment: Moment) -> None:
        """See `SessionStore`."""
        is_over = and_(sessions.c.ended_at_ms.is_not(None), sessions.c.token_expires_at_ms <= moment.now_ms)
        is_forgotten = edge_boots.c.lease_until_ms < moment.now_ms - _BOOT_MEMORY_MS
        query = select(or_(exists().where(is_over), exists().where(is_forgotten)))
        if await self._database.read(lambda connection: connection.scalar(query)):
            await self._execute(delete(sessions).where(is_over), delete(edge_boots).where(is_forgotten))

    async def count_open_sessions(self) -> int:
        """See `SessionStore`."""
        return await self._count(select(func.count()).select_from(sessions).where(_is_open))

    async def list_sessions(
        self, user_id: str | None, moment: Moment, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[SessionRecord]:
        """See `SessionStore`."""
        order = (sessions.c.opened_at_ms, sessions.c.session_id)
        page = select(*_record_columns).join(accounts, accounts.c.user_id == sessions.c.user_id)
        if user_id is None:
            page = page.where(_is_open)
        else:
            page = page.where(sessions.c.user_id == user_id, _is_good).params(at_ms=moment.now_ms)
        if after is not None:
            page = page.where(tuple_(*order) < tuple_(*after))
        page = page.order_by(*(column.desc() for column in order)).limit(limit)
        return await self._database.read(
            lambda connection: [SessionRecord(**row) for row in connection.execute(page).mappings()]
        )

    async def _execute(self, *statements: Any) -> None:
        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self._database.write(work)

    async def _count(self, query: Select[int]) -> int:
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())


def _open(connection: Connection, session: NewSession, moment: Moment) -> OpenResult:
    # The row lock makes logins to one account wait for each other where the dialect has one; SQLite writes alone.
    account = select(accounts.c.disabled, accounts.c.password_hash).where(accounts.c.user_id == session.user_id)
    person = connection.execute(account.with_for_update()).one_or_none()
    if person is None or person.disabled:
        return AccountClosed()
    if session.password_hash is not None and session.password_hash != person.password_hash:
        return PasswordChanged()
    ended = _keep_lease(connection, session.edge, moment)
    if isinstance(ended, BootSuperseded):
        return ended
    lease_until_ms = func.coalesce(edge_boots.c.lease_until_ms, 0)  # a boot that was purged has no lease
    is_kept = and_(edge_boots.c.superseded_at_ms.is_(None), lease_until_ms > moment.now_ms)
    present = connection.execute(
        select(sessions.c.session_id, sessions.c.opened_at_ms, is_kept.label("is_kept"))
        .select_from(sessions.outerjoin(edge_boots, _its_boot))
        .where(sessions.c.user_id == session.user_id, _is_open)
    ).one_or_none()
    replaced: list[EndedSession] = []
    if present is not None:
        if present.is_kept and not session.takeover:
            return AlreadyOpen(since_ms=present.opened_at_ms)
        its_row = select(*_ended_columns).where(sessions.c.session_id == present.session_id)
        (replaced if present.is_kept else ended).extend(_ended(connection, its_row))
    connection.execute(delete(sessions).where(sessions.c.user_id == session.user_id))  # and with them their tokens
    _insert(
        connection,
        session.edge,
        moment,
        session_id=session.session_id,
        user_id=session.user_id,
        token_hash=session.token_hash,
        device=session.device,
    )
    return Opened(ended=ended, replaced=replaced)


def _resume(connection: Connection, session: ResumedSession, moment: Moment) -> ResumeResult:
    used = {"used_hash": session.used_hash}
    owner = connection.scalar(_SELECT_OWNER, used)
    # The account's row is locked before the session is looked at, so that racing resumes wait for each other.
    person = None if owner is None else connection.execute(_LOCK_OWNER, {"owner": owner}).one_or_none()
    predecessor = connection.execute(_SELECT_USED, {**used, "at_ms": moment.now_ms}).one_or_none()
    if person is None or person.disabled or predecessor is None:
        return TokenRefused()
    ended = _keep_lease(connection, session.edge, moment)
    if isinstance(ended, BootSuperseded):
        return ended
    replaced = _ended(connection, _SELECT_OPEN, {"owner": owner})
    connection.execute(_DELETE_OTHERS, {**used, "owner": owner})
    connection.execute(_END_USED, {**used, "at_ms": moment.now_ms, "until_ms": moment.token_until_ms})
    _insert(
        connection,
        session.edge,
        moment,
        session_id=session.session_id,
        user_id=owner,
        token_hash=session.token_hash,
        device=predecessor.device,
    )
    return Opened(ended=ended, replaced=replaced, user_id=str(owner), username=person.username)


def _insert(connection: Connection, edge: EdgeBoot, moment: Moment, **columns: Any) -> None:
    row = {
        "token_expires_at_ms": moment.token_until_ms,
        "edge_name": edge.name,
        "boot_id": edge.boot_id,
        "opened_at_ms": moment.now_ms,
        **columns,
    }
    connection.execute(_INSERT_SESSION, row)


def _keep_lease(connection: Connection, edge: EdgeBoot, moment: Moment) -> list[EndedSession] | BootSuperseded:
    """Keeps the lease of the edge's current boot, or makes this new boot the current one and ends what is left of its
    predecessors."""
    boot = connection.execute(_LOCK_BOOT, {"name": edge.name, "boot": edge.boot_id}).one_or_none()
    if boot is not None:
        if boot.superseded_at_ms is not None:
            return BootSuperseded()
        if boot.lease_until_ms < moment.lease_until_ms:
            is_this = and_(edge_boots.c.edge_name == edge.name, edge_boots.c.boot_id == edge.boot_id)
            connection.execute(update(edge_boots).where(is_this).values(lease_until_ms=moment.lease_until_ms))
        return []
    row = {
        "edge_name": edge.name,
        "boot_id": edge.boot_id,
        "lease_until_ms": moment.lease_until_ms,
        "superseded_at_ms": None,
    }
    new = _insert_into(connection, edge_boots).values(row).on_conflict_do_nothing()
    if not connection.execute(new).rowcount:
        return []  # by another instance, just now, which has seen to what follows
    is_older = and_(
        edge_boots.c.edge_name == edge.name,
        edge_boots.c.boot_id != edge.boot_id,
        edge_boots.c.superseded_at_ms.is_(None),
    )
    connection.execute(update(edge_boots).where(is_older).values(superseded_at_ms=moment.now_ms))
    left_over = and_(sessions.c.edge_name == edge.name, sessions.c.boot_id != edge.boot_id)
    return _end_all(connection, select(*_ended_columns).where(left_over, _is_open), moment)


def _insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, which both dialects have, each in its own module."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _end_all(connection: Connection, query: Select[Any], moment: Moment) -> list[EndedSession]:
    ended = _ended(connection, query)
    _end(connection, [one.session_id for one in ended], moment)
    return ended


def _end(connection: Connection, session_ids: Collection[str], moment: Moment) -> int:
    every = list(session_ids)
    change = update(sessions).where(_is_open)
    change = change.values(ended_at_ms=moment.now_ms, token_expires_at_ms=moment.token_until_ms)
    count = 0
    for start in range(0, len(every), _IDS_PER_STATEMENT):
        some = every[start : start + _IDS_PER_STATEMENT]
        count += connection.execute(change.where(sessions.c.session_id.in_(some))).rowcount
    return count


def _statuses(connection: Connection, query: Select[Any]) -> list[AccountStatus]:
    return [AccountStatus(**row) for row in connection.execute(query).mappings()]


def _ended(connection: Connection, query: Select[Any], values: Mapping[str, Any] | None = None) -> list[EndedSession]:
    return [EndedSession(row[0], EdgeBoot(row[1], row[2])) for row in connection.execute(query, values)]
