"""Two auth processes on one PostgreSQL and one Redis, an edge at each: what one is told, the other's edge does.

The edges are the real ones' dealings with auth: `GrpcAuth` and `Leases`, over mutual TLS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from services.common.clock import SystemClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.backends import GrpcAuth
from services.edge.leases import Leases
from tests.helpers import rpc
from tests.helpers.auth_world import until
from tests.integration.auth.test_process import PASSWORD, TIMEOUT_S, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from services.edge.ports import Login
    from tests.helpers.redis_server import RedisServer

AT_ONCE_S = 1.0
WITHOUT_REDIS_S = 5.0
"""What is promised: within a second, and within five while Redis is away."""

ADDRESS = "192.0.2.1"


class Edge:
    """An edge that has its sessions at one of the instances, and notes when one is ended by somebody else."""

    def __init__(self, name: str, channel: Any) -> None:
        self.auth = GrpcAuth(
            channel, edge_name=name, boot_id=f"boot of {name}", timeout_s=TIMEOUT_S, login_timeout_s=60
        )
        self.sessions: set[str] = set()
        self.ended: dict[str, tuple[str, float]] = {}
        self._changed = asyncio.Event()
        self.leases = Leases(
            self.auth, session_ids=lambda: list(self.sessions), on_ended=self._end, clock=SystemClock()
        )

    def _end(self, session_id: str, reason: str) -> None:
        if session_id in self.sessions:
            self.sessions.discard(session_id)
            self.ended[session_id] = (reason, time.monotonic())
            self._changed.set()

    async def log_in(self, name: str, *, takeover: bool = False, address: str = ADDRESS) -> Login:
        login = await self.auth.login(name, PASSWORD, address=address, device="test", takeover=takeover)
        self.sessions.add(login.session_id)
        return login

    async def end_of(self, login: Login) -> tuple[str, float]:
        """Why the session has ended, and when."""
        async with asyncio.timeout(TIMEOUT_S):
            while login.session_id not in self.ended:
                self._changed.clear()
                await self._changed.wait()
        return self.ended[login.session_id]


class World:
    """The two edges, an operator at the first instance, and the servers."""

    def __init__(self, one: Edge, two: Edge, operator: Any, redis: RedisServer) -> None:
        self.one = one
        self.two = two
        self.operator = operator
        self.redis = redis

    async def person(self, name: str) -> Login:
        """Somebody with an account, logged in at the second edge."""
        await self.two.auth.register(name, PASSWORD, address=ADDRESS)
        return await self.two.log_in(name)

    async def seconds_until_cut(self, login: Login, act: Callable[[], Awaitable[Any]], *reasons: str) -> float:
        began = time.monotonic()
        await act()
        told, at = await self.two.end_of(login)
        assert told in (reasons or ("revoked",))
        return at - began

    async def is_cut_within(self, limit_s: float, login: Login, name: str, act: str, *reasons: str) -> bool:
        """Whether a session is cut in that time. A machine that stalls may make one late; then the next two decide."""

        async def is_in_time(login: Login, name: str) -> bool:
            do, reason = acts(self, name)[act]
            return await self.seconds_until_cut(login, do, reason, *reasons) < limit_s

        if await is_in_time(login, name):
            return True
        return all([await is_in_time(await self.person(again), again) for again in (f"{name}2", f"{name}3")])


@pytest.fixture
async def world(tmp_path: Path, postgres_url: str, own_redis: RedisServer) -> AsyncIterator[World]:
    settings: dict[str, object] = {
        "database_url": postgres_url,
        "redis_url": own_redis.url,
        "pepper_file": tmp_path / "pepper",
    }
    async with AsyncExitStack() as exits:
        edges: list[Edge] = []
        addresses: list[str] = []
        for name in ("one", "two"):
            home = tmp_path / name
            home.mkdir()
            service = await exits.enter_async_context(running(home, name=f"auth-{name}", **settings))
            channel = await exits.enter_async_context(rpc.channel(service.address, deadline_s=TIMEOUT_S))
            addresses.append(service.address)
            edges.append(Edge(f"edge-{name}", channel))
        for edge in edges:
            await exits.enter_async_context(_working(edge))
        operators = await exits.enter_async_context(rpc.channel(addresses[0], identity="admin/alice"))
        yield World(*edges, auth_pb2_grpc.AuthAdminServiceStub(operators), own_redis)


@asynccontextmanager
async def _working(edge: Edge) -> AsyncIterator[None]:
    task = asyncio.create_task(edge.leases.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def acts(world: World, name: str) -> dict[str, tuple[Callable[[], Awaitable[Any]], str]]:
    """What ends a session from outside, done at the instance that its edge does not listen to."""
    operator = world.operator
    return {
        "revoke": (lambda: operator.RevokeSessions(auth_pb2.RevokeSessionsRequest(username=name)), "revoked"),
        "disable": (
            lambda: operator.SetAccountDisabled(auth_pb2.SetAccountDisabledRequest(username=name, disabled=True)),
            "revoked",
        ),
        "password": (
            lambda: operator.SetPassword(auth_pb2.SetPasswordRequest(username=name, password="another horse battery")),
            "revoked",
        ),
        "takeover": (lambda: world.one.log_in(name, takeover=True), "replaced"),
    }


@pytest.mark.parametrize("act", ["revoke", "disable", "password", "takeover"])
async def test_a_session_is_cut_at_the_other_instances_edge_within_a_second(world: World, act: str) -> None:
    login = await world.person("alice")
    # The hash of a takeover is cheap here, but not nothing.
    assert await world.is_cut_within(2 * AT_ONCE_S if act == "takeover" else AT_ONCE_S, login, "alice", act)


@pytest.mark.parametrize("fault", ["killed", "frozen", "emptied"])
async def test_without_redis_it_is_cut_within_five_seconds(world: World, fault: str) -> None:
    people = {act: await world.person(f"person{act}") for act in ("revoke", "disable", "takeover")}
    if fault == "killed":
        world.redis.kill()
    elif fault == "frozen":
        os.kill(world.redis.pid, signal.SIGSTOP)
    else:
        world.redis.flush()
    try:
        for act, login in people.items():  # the first at once, while nobody has noticed yet
            # Who asks which sessions are alive is not told why one is not. `revoked` is no lie, for it means "ended, by
            # you elsewhere or by an operator"; and by either reason a client does not come back by itself.
            assert await world.is_cut_within(WITHOUT_REDIS_S, login, f"person{act}", act, "revoked")
    finally:
        if fault == "frozen":
            os.kill(world.redis.pid, signal.SIGCONT)
    if fault == "killed":
        world.redis.start()
    # And at once again, as soon as the instances have found each other.
    deadline = time.monotonic() + TIMEOUT_S
    for number in range(100):
        login = await world.person(f"later{number}")
        do, reason = acts(world, f"later{number}")["revoke"]
        if await world.seconds_until_cut(login, do, reason) < AT_ONCE_S:
            return
        assert time.monotonic() < deadline
    raise AssertionError("the instances have not found each other again")


async def test_of_two_logins_that_race_at_two_instances_one_wins(world: World) -> None:
    for number in range(20):
        name = f"racer{number}"
        await world.one.auth.register(name, PASSWORD, address=ADDRESS)
        results = await asyncio.gather(
            *(edge.log_in(name) for edge in (world.one, world.two) for _ in range(2)), return_exceptions=True
        )
        refused = [result.code for result in results if isinstance(result, ParleyError)]
        assert refused == [ErrorCode.ALREADY_LOGGED_IN] * 3, results


async def test_of_takeovers_that_race_the_last_one_stands(world: World) -> None:
    await world.one.auth.register("alice", PASSWORD, address=ADDRESS)
    logins = await asyncio.gather(
        *(edge.log_in("alice", takeover=True) for edge in (world.one, world.two) for _ in range(3))
    )
    edges = {login.session_id: edge for edge in (world.one, world.two) for login in logins if login}
    assert len(edges) == 6
    await until(lambda: len(world.one.sessions) + len(world.two.sessions) == 1)
    (survivor,) = world.one.sessions | world.two.sessions
    lease_s, ended = await world.one.auth.renew_lease(list(world.one.sessions))
    assert ended == []
    assert survivor in edges
    assert lease_s > 0


async def refusals(edge: Edge, count: int) -> list[ErrorCode]:
    codes = []
    for _ in range(count):
        with pytest.raises(ParleyError) as caught:
            await edge.auth.login("alice", "wrong password", address=ADDRESS, device="", takeover=False)
        codes.append(caught.value.code)
    return codes


class Wait:
    """What six failed logins cost: a second, from the last one on, and twice as long with each that comes after it."""

    def __init__(self) -> None:
        self.length_s = 1.0
        self.began = time.monotonic()  # or later

    def assert_over(self) -> None:
        """A machine that stalls may let it be over before somebody is refused."""
        assert time.monotonic() - self.began >= self.length_s

    async def refuses_at(self, edge: Edge) -> None:
        """No guess gets through before it is over."""
        while True:
            began = time.monotonic()
            if await refusals(edge, 1) == [ErrorCode.RATE_LIMITED]:
                return
            self.assert_over()
            self.began, self.length_s = began, 2 * self.length_s


async def test_failed_logins_count_at_both_instances_together(world: World) -> None:
    await world.one.auth.register("alice", PASSWORD, address="198.51.100.1")
    assert await refusals(world.one, 3) + await refusals(world.two, 2) == [ErrorCode.INVALID_CREDENTIALS] * 5
    wait = Wait()
    assert await refusals(world.two, 1) == [ErrorCode.INVALID_CREDENTIALS]
    for edge in (world.one, world.two):
        await wait.refuses_at(edge)
    unlock = auth_pb2.UnlockAccountRequest(username="alice")
    while not (await world.operator.UnlockAccount(unlock)).was_locked:
        wait.assert_over()
        await refusals(world.one, 5)
        wait = Wait()
        await refusals(world.two, 1)
    assert await refusals(world.two, 1) == [ErrorCode.INVALID_CREDENTIALS]


async def test_without_redis_each_instance_limits_alone_and_people_get_in(world: World) -> None:
    await world.one.auth.register("alice", PASSWORD, address="198.51.100.1")
    assert await refusals(world.one, 5) == [ErrorCode.INVALID_CREDENTIALS] * 5
    wait = Wait()
    assert await refusals(world.one, 1) == [ErrorCode.INVALID_CREDENTIALS]
    world.redis.kill()
    await wait.refuses_at(world.one)
    assert await refusals(world.two, 5) == [ErrorCode.INVALID_CREDENTIALS] * 5
    wait = Wait()
    assert await refusals(world.two, 1) == [ErrorCode.INVALID_CREDENTIALS]
    await wait.refuses_at(world.two)
    login = await world.two.log_in("alice", address="198.51.100.1")  # the owner, at home
    assert login.username == "alice"
    with pytest.raises(ParleyError) as caught:  # one session for each account, whatever is down
        await world.one.log_in("alice", address="198.51.100.1")
    assert caught.value.code is ErrorCode.ALREADY_LOGGED_IN


async def test_a_session_goes_on_at_the_other_instance_when_its_own_is_gone(world: World) -> None:
    """Tokens and assertions are good at both: they share database and keys."""
    login = await world.person("alice")
    resumed = await world.one.auth.resume(login.token, address=ADDRESS)
    world.one.sessions.add(resumed.session_id)
    assert (await world.two.end_of(login))[0] == "replaced"
    (again,) = await world.one.auth.renew_assertions([resumed.assertion.data])
    assert again.data
