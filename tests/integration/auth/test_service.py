"""Every RPC of the auth service over real mutual TLS: right, malformed, oversized, twice, in the wrong state."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import pytest
from parley.auth.v1 import auth_pb2, auth_pb2_grpc
from structlog.testing import capture_logs

from services.auth.admin_servicer import AuthAdminServicer
from services.auth.servicer import AuthServicer
from services.common.counters import Counters
from services.common.errors import ParleyError, from_rpc_error
from services.common.wire.codes import ErrorCode
from tests.helpers import auth_world, rpc
from tests.helpers.auth_world import PASSWORD, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from services.common.rpc_server import RpcServer

SERVICE = "parley.auth.v1.AuthService"
ADMIN = "parley.auth.v1.AuthAdminService"
EDGE = auth_pb2.EdgeBoot(name="edge-1", boot_id="boot-a")
REBORN = auth_pb2.EdgeBoot(name="edge-1", boot_id="boot-b")
HOME = "192.0.2.1"
TIMEOUT_S = 20.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with auth_world.make(tmp_path) as world:
        yield world


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def server(world: World, counters: Counters) -> AsyncIterator[RpcServer]:
    edge_side = AuthServicer(
        accounts=world.accounts,
        sessions=world.sessions,
        assertions=world.assertions,
        clock=world.clock,
        counters=counters,
    )
    admin_side = AuthAdminServicer(
        store=world.store, accounts=world.accounts, sessions=world.sessions, clock=world.clock
    )

    def add(server: grpc.aio.Server) -> None:
        auth_pb2_grpc.add_AuthServiceServicer_to_server(edge_side, server)
        auth_pb2_grpc.add_AuthAdminServiceServicer_to_server(admin_side, server)

    async with rpc.serve({SERVICE: {"edge"}, ADMIN: {"admin"}}, add) as server:
        yield server


@pytest.fixture
async def edge(server: RpcServer) -> AsyncIterator[auth_pb2_grpc.AuthServiceAsyncStub]:
    async with rpc.channel(server, identity="edge", deadline_s=TIMEOUT_S) as channel:
        yield auth_pb2_grpc.AuthServiceStub(channel)  # type: ignore[misc]


@pytest.fixture
async def admin(server: RpcServer) -> AsyncIterator[auth_pb2_grpc.AuthAdminServiceAsyncStub]:
    async with rpc.channel(server, identity="admin/alice", deadline_s=TIMEOUT_S) as channel:
        yield auth_pb2_grpc.AuthAdminServiceStub(channel)  # type: ignore[misc]


def registration(name: str, password: str = PASSWORD) -> auth_pb2.RegisterRequest:
    return auth_pb2.RegisterRequest(username=name, password=password, address=HOME)


def login(name: str, password: str = PASSWORD, edge: auth_pb2.EdgeBoot = EDGE) -> auth_pb2.LoginRequest:
    return auth_pb2.LoginRequest(username=name, password=password, address=HOME, device="phone", edge=edge)


def resume(token: str, edge: auth_pb2.EdgeBoot = EDGE) -> auth_pb2.ResumeRequest:
    return auth_pb2.ResumeRequest(token=token, address=HOME, edge=edge)


async def refusal(call: Awaitable[object]) -> ParleyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


# Register


async def test_register_gives_an_id_and_the_stored_name(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    response = await edge.Register(registration("ALICE"))
    assert response.username == "alice"
    assert 8 <= len(response.user_id) <= 16
    assert response.user_id.isascii()
    assert response.user_id.isalnum()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (registration("al"), ErrorCode.BAD_USERNAME),
        (registration("еvan"), ErrorCode.BAD_USERNAME),
        (registration("root"), ErrorCode.BAD_USERNAME),
        (registration(""), ErrorCode.BAD_USERNAME),
        (registration("a" * 1024), ErrorCode.BAD_USERNAME),
        (registration("a" * 1025), ErrorCode.BAD_REQUEST),
        (registration("bob", ""), ErrorCode.WEAK_PASSWORD),
        (registration("bob", "x1" * 65), ErrorCode.WEAK_PASSWORD),
        (registration("bob", "x" * 1025), ErrorCode.BAD_REQUEST),
        (auth_pb2.RegisterRequest(username="bob", password=PASSWORD, address="x" * 65), ErrorCode.BAD_REQUEST),
        (registration("alice"), ErrorCode.USERNAME_TAKEN),
        (registration("a1ice"), ErrorCode.USERNAME_TAKEN),
    ],
)
async def test_register_refuses_with_a_code(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, request_: auth_pb2.RegisterRequest, code: ErrorCode
) -> None:
    await edge.Register(registration("alice"))
    assert (await refusal(edge.Register(request_))).code is code


async def test_passwords_of_all_kinds_travel_unchanged(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    passwords = ["nul\x00in the middle", "گذرواژه‌ی من", "🔑🗝" * 4, "x1" * 64, " leading and trailing "]
    for number, password in enumerate(passwords):
        await edge.Register(registration(f"user{number}", password))
        assert (await edge.Login(login(f"user{number}", password))).session_id
        stripped = password.replace("\x00", "").strip()
        if stripped != password:
            error = await refusal(edge.Login(login(f"user{number}", stripped)))
            assert error.code is ErrorCode.INVALID_CREDENTIALS


# Login


async def test_login_opens_the_one_session(edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World) -> None:
    account = await edge.Register(registration("alice"))
    response = await edge.Login(login("Alice"))
    assert (response.user_id, response.username) == (account.user_id, "alice")
    assert len(response.token) == 43
    now_ms = round(world.clock.now() * 1000)
    assert response.token_expires_at_ms == now_ms + 600_000
    again = await refusal(edge.Login(login("alice")))
    assert (again.code, again.details) == (ErrorCode.ALREADY_LOGGED_IN, {"since-ms": str(now_ms)})
    wrong = await refusal(edge.Login(login("alice", "wrong password")))
    assert wrong.code is ErrorCode.INVALID_CREDENTIALS  # not told to whoever has no password


async def test_a_resume_opens_the_session_anew_and_replaces_the_old(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, counters: Counters
) -> None:
    await edge.Register(registration("alice"))
    first = await edge.Login(login("alice"))
    watch = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    await watch.read()
    second = await edge.Resume(resume(first.token))
    assert (second.user_id, second.username) == (first.user_id, "alice")
    assert second.session_id != first.session_id
    assert len(second.token) == 43
    told = await watch.read()
    assert [(one.session_id, one.reason) for one in told.revocations] == [(first.session_id, "replaced")]  # type: ignore[union-attr]
    watch.cancel()
    assert (await refusal(edge.Resume(resume("garbage")))).code is ErrorCode.BAD_TOKEN
    assert (await refusal(edge.Resume(resume("x" * 1025)))).code is ErrorCode.BAD_REQUEST
    values = {family.name: family.members[()] for family in counters.families()}
    assert values["parley.auth.resumes"].value == 1  # type: ignore[union-attr]
    assert values["parley.auth.resumes.failed"].value == 1  # type: ignore[union-attr]


async def test_a_takeover_needs_the_password_and_replaces(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    await edge.Register(registration("alice"))
    first = await edge.Login(login("alice"))
    wrong = login("alice", "wrong password")
    wrong.takeover = True
    assert (await refusal(edge.Login(wrong))).code is ErrorCode.INVALID_CREDENTIALS
    right = login("alice")
    right.takeover = True
    second = await edge.Login(right)
    assert second.session_id != first.session_id
    assert (await refusal(edge.Resume(resume(first.token)))).code is ErrorCode.BAD_TOKEN


async def test_unknown_and_wrong_look_alike_on_the_wire(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    await edge.Register(registration("alice"))
    answers = set()
    for request in (login("alice", "wrong password"), login("nobody"), login("no such\x00name"), login("")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.Login(request)
        error = caught.value
        answers.add((error.code(), error.details(), tuple(error.trailing_metadata() or ())))
    assert len(answers) == 1


async def test_too_many_guesses_are_told_when_to_come_back(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    errors = [await refusal(edge.Login(login("nobody"))) for _ in range(7)]
    assert (errors[-1].code, errors[-1].retry_after_s) == (ErrorCode.RATE_LIMITED, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"edge": auth_pb2.EdgeBoot()},
        {"edge": auth_pb2.EdgeBoot(name="edge-1")},
        {"edge": auth_pb2.EdgeBoot(boot_id="boot-a")},
        {"edge": auth_pb2.EdgeBoot(name="e" * 65, boot_id="boot-a")},
        {"edge": auth_pb2.EdgeBoot(name="edge-1", boot_id="b" * 65)},
        {"device": "d" * 65},
        {"username": "u" * 1025},
        {"password": "p" * 1025},
        {"address": "a" * 65},
    ],
)
async def test_malformed_logins_are_bad_requests(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, changes: dict[str, object]
) -> None:
    request = login("alice")
    for field, value in changes.items():
        if isinstance(value, str):
            setattr(request, field, value)
        else:
            request.ClearField("edge")
            request.edge.MergeFrom(value)  # type: ignore[arg-type]
    assert (await refusal(edge.Login(request))).code is ErrorCode.BAD_REQUEST


async def test_of_racing_logins_one_wins(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    await edge.Register(registration("alice"))
    results = await asyncio.gather(*(edge.Login(login("alice")) for _ in range(5)), return_exceptions=True)
    losers = [from_rpc_error(one) for one in results if isinstance(one, grpc.aio.AioRpcError)]
    assert [error.code for error in losers] == [ErrorCode.ALREADY_LOGGED_IN] * 4


async def test_fifty_people_register_and_log_in_at_once(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, counters: Counters
) -> None:
    async def arrive(name: str) -> str:
        await edge.Register(registration(name), timeout=TIMEOUT_S)
        return (await edge.Login(login(name), timeout=TIMEOUT_S)).session_id

    sessions = await asyncio.gather(*(arrive(f"user{n}") for n in range(50)))
    assert len(set(sessions)) == 50
    values = {family.name: family.members[()] for family in counters.families()}
    assert {name: member.value for name, member in values.items()} == {  # type: ignore[union-attr]
        "parley.auth.logins": 50,
        "parley.auth.logins.failed": 0,
        "parley.auth.resumes": 0,
        "parley.auth.resumes.failed": 0,
        "parley.auth.registrations": 50,
        "parley.auth.sessions": 50,
        "parley.auth.accounts": 50,
    }


async def renew_without_naming(edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World, *, seconds: int) -> None:
    """An edge that holds no connection renews its lease every 5 s, for so long."""
    for _ in range(seconds // 5):
        await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE))
        world.clock.advance(5)
    await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE))


async def test_a_session_whose_edge_never_heard_of_it_makes_room(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World
) -> None:
    await edge.Register(registration("alice"))
    await edge.Login(login("alice"))  # the answer got lost on its way
    await renew_without_naming(edge, world, seconds=55)
    assert (await refusal(edge.Login(login("alice")))).code is ErrorCode.ALREADY_LOGGED_IN
    await renew_without_naming(edge, world, seconds=5)
    assert (await edge.Login(login("alice"))).session_id


async def test_a_login_past_its_deadline_leaves_no_session(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World
) -> None:
    await edge.Register(registration("alice"))
    for _ in range(5):
        with contextlib.suppress(grpc.aio.AioRpcError):
            response = await edge.Login(login("alice"), timeout=0.004)
            await edge.Logout(auth_pb2.LogoutRequest(session_id=response.session_id))
    await auth_world.until(lambda: not world.tasks._tasks and world.pool.pending == 0)
    # An answer that was under way when the deadline passed has left a session, of which the edge never heard.
    await renew_without_naming(edge, world, seconds=70)
    assert (await edge.Login(login("alice"))).session_id


# Logout, EndSessions, RenewLease


async def test_sessions_end_once_however_often_it_is_said(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    await edge.Register(registration("alice"))
    for _ in range(3):
        session = (await edge.Login(login("alice"))).session_id
        await edge.Logout(auth_pb2.LogoutRequest(session_id=session))
        await edge.Logout(auth_pb2.LogoutRequest(session_id=session))
        await edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=[session]))
        session = (await edge.Login(login("alice"))).session_id
        await edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=[session, session, "unknown"]))
        await edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=[session]))
    await edge.Logout(auth_pb2.LogoutRequest())
    await edge.EndSessions(auth_pb2.EndSessionsRequest())


async def test_oversized_lists_are_refused(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    many = ["s"] * 100_001
    for call in (
        edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=many)),
        edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=["s" * 33])),
        edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=many)),
        edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=["s" * 33])),
        edge.RenewLease(auth_pb2.RenewLeaseRequest()),
        edge.Logout(auth_pb2.LogoutRequest(session_id="s" * 33)),
    ):
        assert (await refusal(call)).code is ErrorCode.BAD_REQUEST


async def test_a_lease_tells_its_length_and_the_dead(edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World) -> None:
    await edge.Register(registration("alice"))
    session = (await edge.Login(login("alice"))).session_id
    response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=[session, "unknown"]))
    assert response.lease_s == 15
    assert list(response.ended_session_ids) == ["unknown"]
    world.clock.advance(15)
    await world.sessions.sweep()
    response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=[session]))
    assert list(response.ended_session_ids) == [session]


# WatchRevocations


async def test_a_watch_says_first_that_it_is_in_place_and_then_who_was_revoked(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    await edge.Register(registration("alice"))
    session = (await edge.Login(login("alice"))).session_id
    call = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    assert await call.read() == auth_pb2.WatchRevocationsResponse()
    await admin.RevokeSessions(auth_pb2.RevokeSessionsRequest(username="alice"))
    (revocation,) = (await call.read()).revocations  # type: ignore[union-attr]
    assert (revocation.session_id, revocation.reason) == (session, "revoked")
    call.cancel()


async def test_a_watch_that_was_cut_off_misses_nothing(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, world: World
) -> None:
    await edge.Register(registration("alice"))
    session = (await edge.Login(login("alice"))).session_id
    first = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    await first.read()
    first.cancel()
    await auth_world.until(lambda: not world.revocations._subscriptions)
    await admin.RevokeSessions(auth_pb2.RevokeSessionsRequest(username="alice"))  # while nobody watches
    second = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    assert await second.read() == auth_pb2.WatchRevocationsResponse()
    response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=[session]))
    assert list(response.ended_session_ids) == [session]
    session = (await edge.Login(login("alice"))).session_id
    await admin.RevokeSessions(auth_pb2.RevokeSessionsRequest(username="alice"))
    assert [one.session_id for one in (await second.read()).revocations] == [session]  # type: ignore[union-attr]
    second.cancel()


async def test_a_watch_ends_when_the_service_stops_and_for_a_superseded_boot(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, world: World
) -> None:
    old = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    await old.read()
    new = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=REBORN))
    await new.read()
    late = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    assert (await refusal(late.read())).code is ErrorCode.UNAVAILABLE
    world.revocations.close()
    for call in (old, new):
        assert (await refusal(call.read())).code is ErrorCode.UNAVAILABLE
    nameless = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest())
    assert (await refusal(nameless.read())).code is ErrorCode.BAD_REQUEST


async def test_a_new_boot_takes_the_sessions_of_the_old(edge: auth_pb2_grpc.AuthServiceAsyncStub) -> None:
    await edge.Register(registration("alice"))
    old = (await edge.Login(login("alice"))).session_id
    new = (await edge.Login(login("alice", edge=REBORN))).session_id
    response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=REBORN, session_ids=[old, new]))
    assert list(response.ended_session_ids) == [old]
    assert (await refusal(edge.Login(login("alice", edge=EDGE)))).code is ErrorCode.UNAVAILABLE


# AuthAdminService


async def test_accounts_are_listed_in_pages(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    names = [f"user{n}" for n in range(7)] + ["علی"]
    for name in names:
        await edge.Register(registration(name))
    await edge.Login(login("user3"))
    seen = []
    token = ""
    for _ in range(4):
        page = await admin.ListAccounts(auth_pb2.ListAccountsRequest(page_size=2, page_token=token))
        seen += list(page.accounts)
        token = page.next_page_token
    assert token == ""
    assert [account.username for account in seen] == sorted(names)
    assert [account.username for account in seen if account.online] == ["user3"]
    assert all(account.created_at_ms > 0 and account.user_id for account in seen)
    some = await admin.ListAccounts(auth_pb2.ListAccountsRequest(query="SER1"))
    assert [account.username for account in some.accounts] == ["user1"]
    assert not (await admin.ListAccounts(auth_pb2.ListAccountsRequest(query="%"))).accounts


@pytest.mark.parametrize(
    "request_",
    [
        auth_pb2.ListAccountsRequest(page_size=-1),
        auth_pb2.ListAccountsRequest(page_size=1001),
        auth_pb2.ListAccountsRequest(page_token="!"),
        auth_pb2.ListAccountsRequest(page_token="ü"),
        auth_pb2.ListAccountsRequest(page_token="_w=="),
        auth_pb2.ListAccountsRequest(page_token="a" * 2000),
        auth_pb2.ListAccountsRequest(query="q" * 2000),
    ],
)
async def test_bad_pages_are_bad_requests(
    admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, request_: auth_pb2.ListAccountsRequest
) -> None:
    assert (await refusal(admin.ListAccounts(request_))).code is ErrorCode.BAD_REQUEST


async def test_disabling_ends_sessions_and_looks_like_a_wrong_password(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    await edge.Register(registration("alice"))
    session = (await edge.Login(login("alice"))).session_id
    watch = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    await watch.read()
    for _ in range(2):
        response = await admin.SetAccountDisabled(auth_pb2.SetAccountDisabledRequest(username="ALICE", disabled=True))
        assert (response.account.disabled, response.account.online) == (True, False)
    assert [one.session_id for one in (await watch.read()).revocations] == [session]  # type: ignore[union-attr]
    watch.cancel()
    error = await refusal(edge.Login(login("alice")))
    unknown = await refusal(edge.Login(login("nobody")))
    assert (error.code, error.message) == (unknown.code, unknown.message)
    response = await admin.SetAccountDisabled(auth_pb2.SetAccountDisabledRequest(username="alice", disabled=False))
    assert not response.account.disabled
    assert (await edge.Login(login("alice"))).session_id


async def test_revoking_counts_what_it_ended(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    await edge.Register(registration("alice"))
    await edge.Login(login("alice"))
    counts = [
        (await admin.RevokeSessions(auth_pb2.RevokeSessionsRequest(username="alice"))).revoked_count for _ in range(2)
    ]
    assert counts == [1, 0]


@pytest.mark.parametrize("name", ["nobody", "", "not a name", "a" * 2000])
async def test_unknown_accounts_are_bad_requests(admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, name: str) -> None:
    disable = auth_pb2.SetAccountDisabledRequest(username=name, disabled=True)
    assert (await refusal(admin.SetAccountDisabled(disable))).code is ErrorCode.BAD_REQUEST
    revoke = auth_pb2.RevokeSessionsRequest(username=name)
    assert (await refusal(admin.RevokeSessions(revoke))).code is ErrorCode.BAD_REQUEST
    for call in (
        admin.GetAccount(auth_pb2.GetAccountRequest(username=name)),
        admin.SetPassword(auth_pb2.SetPasswordRequest(username=name, password="another password")),
        admin.UnlockAccount(auth_pb2.UnlockAccountRequest(username=name)),
    ):
        assert (await refusal(call)).code is ErrorCode.BAD_REQUEST
    if name:
        assert (
            await refusal(admin.ListSessions(auth_pb2.ListSessionsRequest(username=name)))
        ).code is ErrorCode.BAD_REQUEST


async def test_another_password_ends_what_the_old_one_opened(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    await edge.Register(registration("alice"))
    session = await edge.Login(login("alice"))
    watch = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
    await watch.read()
    set_password = auth_pb2.SetPasswordRequest(username="Alice", password="another password")
    assert (await admin.SetPassword(set_password)).revoked_count == 1
    assert [one.session_id for one in (await watch.read()).revocations] == [session.session_id]
    watch.cancel()
    assert (await refusal(edge.Resume(resume(session.token)))).code is ErrorCode.BAD_TOKEN
    assert (await refusal(edge.Login(login("alice")))).code is ErrorCode.INVALID_CREDENTIALS
    assert (await edge.Login(login("alice", "another password"))).username == "alice"
    assert (await admin.SetPassword(set_password)).revoked_count == 1  # twice is no error


@pytest.mark.parametrize("password", ["", "short", "alicealice1" * 20, "x" * 5000, "alice"])
async def test_a_password_that_nobody_could_register_with_is_not_set(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, password: str
) -> None:
    await edge.Register(registration("alice"))
    await edge.Login(login("alice"))
    error = await refusal(admin.SetPassword(auth_pb2.SetPasswordRequest(username="alice", password=password)))
    assert error.code in {ErrorCode.WEAK_PASSWORD, ErrorCode.BAD_REQUEST}
    assert (await admin.GetAccount(auth_pb2.GetAccountRequest(username="alice"))).account.online


async def test_a_login_that_was_verified_before_the_password_changed_opens_nothing(
    admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, world: World
) -> None:
    await world.register("alice")
    account = await world.authenticate("alice")
    await admin.SetPassword(auth_pb2.SetPasswordRequest(username="alice", password="another password"))
    with pytest.raises(ParleyError) as caught:
        await world.sessions.open(
            user_id=account.user_id,
            username="alice",
            edge=auth_world.EDGE,
            device="",
            takeover=True,
            password_hash=account.password_hash,
        )
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert not (await admin.GetAccount(auth_pb2.GetAccountRequest(username="alice"))).account.online


async def test_sessions_are_listed_newest_first_in_pages(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, world: World
) -> None:
    opened = []
    for name in ("alice", "bob", "carol"):
        await edge.Register(registration(name))
        opened.append((await edge.Login(login(name))).session_id)
        await world.clock.advance(1.0)
    found: list[auth_pb2.Session] = []
    token = ""
    while True:
        page = await admin.ListSessions(auth_pb2.ListSessionsRequest(page_size=2, page_token=token))
        found += page.sessions
        token = page.next_page_token
        if not token:
            break
    assert [one.session_id for one in found] == opened[::-1]
    assert (found[0].username, found[0].edge_name, found[0].device, found[0].ended_at_ms) == (
        "carol", "edge-1", "phone", 0,
    )  # fmt: skip
    await edge.EndSessions(auth_pb2.EndSessionsRequest(session_ids=[opened[0]]))
    assert len((await admin.ListSessions(auth_pb2.ListSessionsRequest())).sessions) == 2
    [ended] = (await admin.ListSessions(auth_pb2.ListSessionsRequest(username="alice"))).sessions
    assert 0 < ended.ended_at_ms < ended.resumable_until_ms


@pytest.mark.parametrize(
    "request_",
    [
        auth_pb2.ListSessionsRequest(page_size=-1),
        auth_pb2.ListSessionsRequest(page_size=1001),
        auth_pb2.ListSessionsRequest(page_token="!"),
        auth_pb2.ListSessionsRequest(page_token="YQ=="),
        auth_pb2.ListSessionsRequest(page_token="OTk5OTk5OTk5OTk5OTk5OTk5OTk5OmE="),
    ],
)
async def test_pages_of_sessions_that_cannot_be(
    admin: auth_pb2_grpc.AuthAdminServiceAsyncStub, request_: auth_pb2.ListSessionsRequest
) -> None:
    assert (await refusal(admin.ListSessions(request_))).code is ErrorCode.BAD_REQUEST


async def test_unlocking_lets_the_next_login_through(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    await edge.Register(registration("alice"))
    for _ in range(7):
        last = await refusal(edge.Login(login("alice", "a wrong guess")))
    assert last.code is ErrorCode.RATE_LIMITED
    shown = await admin.GetAccount(auth_pb2.GetAccountRequest(username="alice"))
    assert shown.locked
    assert 0 < shown.locked_for_s <= 60
    unlock = auth_pb2.UnlockAccountRequest(username="alice")
    assert [(await admin.UnlockAccount(unlock)).was_locked for _ in range(2)] == [True, False]
    assert (await edge.Login(login("alice"))).username == "alice"


# What must not be said


async def test_no_name_password_or_token_is_logged(
    edge: auth_pb2_grpc.AuthServiceAsyncStub, admin: auth_pb2_grpc.AuthAdminServiceAsyncStub
) -> None:
    with capture_logs() as logs:
        await edge.Register(registration("alice"))
        response = await edge.Login(login("alice"))
        await refusal(edge.Login(login("alice")))
        resumed = await edge.Resume(resume(response.token))
        await refusal(edge.Resume(resume("a guessed token")))
        await refusal(edge.Login(login("mallory", "some other guess")))
        await refusal(edge.Register(registration("alice", "another password")))
        await admin.SetAccountDisabled(auth_pb2.SetAccountDisabledRequest(username="alice", disabled=True))
        await admin.RevokeSessions(auth_pb2.RevokeSessionsRequest(username="alice"))
        await admin.SetPassword(auth_pb2.SetPasswordRequest(username="alice", password="another password"))
    said = repr([{key: value for key, value in log.items() if key != "operator"} for log in logs])
    for secret in ("alice", "mallory", PASSWORD, "some other guess", "another password", response.token, resumed.token):
        assert secret not in said
    assert response.user_id in said
    assert response.session_id in said
