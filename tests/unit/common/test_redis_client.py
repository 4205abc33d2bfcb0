"""Redis by commands: what is refused, what is answered, and how fast it is known that nobody answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from services.common import redis_client
from services.common.clock import FakeClock, SystemClock
from services.common.errors import ParleyError
from services.common.redis_client import RETRY_MAX_S, TIMEOUT_S, Breaker, RedisAccess, RedisClient
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from tests.helpers import certificates
from tests.helpers.auth_world import until
from tests.helpers.redis_server import RedisServer, be_patient
from tests.helpers.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SECRET = "correct-horse"
COUNT = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


@pytest.fixture
async def client(own_redis: RedisServer) -> AsyncIterator[RedisClient]:
    made = RedisClient(RedisAccess(url=own_redis.url), clock=SystemClock())
    yield made
    await made.close()


@pytest.fixture
def secured() -> Iterator[tuple[RedisServer, int]]:
    """A server with a password, and the port on which it speaks TLS."""
    certificate, key = certificates.shared().server
    port = free_port()
    server = RedisServer(
        arguments=[
            *("--requirepass", SECRET, "--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        ]
    )
    server.start()
    yield server, port
    server.close()


async def fails(client: RedisClient, *command: str) -> float:
    """How long it takes to learn that Redis is away."""
    began = time.monotonic()
    with pytest.raises(ParleyError) as caught:
        await client.execute(*(command or ("PING",)))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    return time.monotonic() - began


async def comes_back(client: RedisClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.check()
            except ParleyError:
                await asyncio.sleep(0.02)


async def test_commands_are_answered_in_order(client: RedisClient) -> None:
    assert await client.execute("SET", "a", b"\x00\xff") == b"OK"
    assert await client.execute_all([("GET", "a"), ("INCR", "n"), ("INCR", "n"), ("GET", "none")]) == [
        *(b"\x00\xff", 1, 2, None)
    ]
    assert client.is_up


async def test_a_wrong_command_is_a_defect_and_not_an_outage(client: RedisClient) -> None:
    await client.execute("SET", "text", "x")
    with pytest.raises(ResponseError):
        await client.execute_all([("INCR", "text"), ("SET", "after", "1")])
    assert client.is_up
    assert await client.execute("GET", "after") == b"1"


async def test_scripts_survive_a_flush_and_a_restart(client: RedisClient, own_redis: RedisServer) -> None:
    assert await client.run_script(COUNT, keys=["n"], arguments=[5]) == 5
    assert await client.run_script(COUNT, keys=["n"], arguments=[5]) == 10
    await client.execute_all([("FLUSHALL",), ("SCRIPT FLUSH",)])
    assert await client.run_script(COUNT, keys=["n"], arguments=[5]) == 5
    own_redis.kill()
    own_redis.start()
    with capture_logs():
        await comes_back(client)
    assert await client.run_script(COUNT, keys=["n"], arguments=[7]) == 7


async def test_a_dead_server_is_refused_at_once_and_found_again(client: RedisClient, own_redis: RedisServer) -> None:
    await client.check()
    own_redis.kill()
    with capture_logs() as logs:
        for _ in range(50):
            await fails(client)
        assert not client.is_up
        own_redis.start()
        await comes_back(client)
    assert client.is_up
    assert [line["event"] for line in logs] == ["redis does not answer", "redis answers again"]


async def test_a_frozen_server_costs_one_caller_the_time_limit(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()  # while it stands still, nobody tries again
    client = RedisClient(RedisAccess(url=own_redis.url), clock=clock)
    await client.check()
    monkeypatch.setattr(redis_client, "TIMEOUT_S", TIMEOUT_S)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        with capture_logs():
            assert TIMEOUT_S * 0.9 < await fails(client) < TIMEOUT_S + 5
            refused = asyncio.ensure_future(client.execute("PING"))
            await asyncio.sleep(0)
            assert refused.done()  # at once
            with pytest.raises(ParleyError):
                await refused
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    clock.advance(RETRY_MAX_S)
    with capture_logs():
        be_patient(monkeypatch)
        await client.check()
    await client.close()


async def test_a_server_that_is_away_is_watched(own_redis: RedisServer) -> None:
    tasks = TaskSet()
    client = RedisClient(RedisAccess(url=own_redis.url), clock=SystemClock())
    client.start(tasks)
    with capture_logs():
        own_redis.kill()
        await until(lambda: not client.is_up)
        own_redis.start()
        await until(lambda: client.is_up)
    await tasks.close()
    await client.close()


async def test_who_is_cancelled_disturbs_nobody(client: RedisClient, own_redis: RedisServer) -> None:
    await client.check()
    for turns in range(15):  # wherever the call is by then
        os.kill(own_redis.pid, signal.SIGSTOP)
        call = asyncio.ensure_future(client.execute("SET", "a", "cancelled"))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        os.kill(own_redis.pid, signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await client.execute("ECHO", "mine") == b"mine"


async def test_many_calls_share_few_connections(client: RedisClient) -> None:
    assert sorted(await asyncio.gather(*(client.execute("INCR", "n") for _ in range(200)))) == list(range(1, 201))
    assert len((await client.execute("CLIENT", "LIST")).splitlines()) <= 17


async def test_a_server_out_of_memory_is_unavailable(client: RedisClient) -> None:
    await client.execute("CONFIG", "SET", "maxmemory", "1")
    with capture_logs() as logs:
        await fails(client, "SET", "a", "x")
    assert logs[0]["event"] == "redis refuses"
    await client.check()


async def test_a_password_comes_from_a_file_and_goes_nowhere_else(
    secured: tuple[RedisServer, int], tmp_path: Path
) -> None:
    server, _ = secured
    (tmp_path / "password").write_text(f"{SECRET}\n")
    (tmp_path / "wrong").write_text("wrong-horse\n")
    client = RedisClient(RedisAccess(url=server.url, password_file=tmp_path / "password"), clock=SystemClock())
    await client.check()
    await client.close()
    for access in (RedisAccess(url=server.url), RedisAccess(url=server.url, password_file=tmp_path / "wrong")):
        client = RedisClient(access, clock=SystemClock())
        with capture_logs() as logs:
            await fails(client)
        await client.close()
        assert "horse" not in repr((logs, access, client))
    client = RedisClient(RedisAccess(url=f"redis://:{SECRET}@127.0.0.1:{server.port}"), clock=SystemClock())
    await client.check()
    await client.close()


async def test_a_server_must_prove_itself_over_tls(
    secured: tuple[RedisServer, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = secured
    (tmp_path / "password").write_text(SECRET)
    settings: dict[str, Any] = {"password_file": tmp_path / "password"}
    material = certificates.shared()
    good = RedisAccess(url=f"rediss://localhost:{port}/0", ca_file=material.client_ca, **settings)
    client = RedisClient(good, clock=SystemClock())
    await client.check()
    await client.close()
    (tmp_path / "server.pem").write_bytes(certificates.foreign().client_ca.read_bytes())
    foreign = RedisAccess(url=f"rediss://localhost:{port}/0", ca_file=tmp_path / "server.pem", **settings)
    machine = RedisAccess(url=f"rediss://localhost:{port}/0", **settings)
    plain = RedisAccess(url=f"rediss://localhost:{server.port}/0", ca_file=material.client_ca, **settings)
    monkeypatch.setattr(redis_client, "TIMEOUT_S", TIMEOUT_S)  # nothing else ends the last of them
    for access in (foreign, machine, plain):
        client = RedisClient(access, clock=SystemClock())
        with capture_logs():
            await fails(client)
        await client.close()


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:6379", "http://localhost", "redis://", "redis://:6379", "redis://h:notaport", "redis://h:0"),
        *("redis://h/zero", "redis://h/-1", "redis://h?ssl_cert_reqs=none", "redis://[::1", "redis://u:hunter2@h:x"),
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"^redis_url: ") as caught:
        RedisAccess(url=url)
    assert "hunter2" not in str(caught.value)


def test_urls_are_taken_apart(tmp_path: Path) -> None:
    access = RedisAccess(url="redis://bob:p%40ss@[::1]/3", name="rooms-1")
    found = access.arguments()
    assert (found["host"], found["port"], found["db"]) == ("::1", 6379, 3)
    assert (found["username"], found["password"], found["client_name"]) == ("bob", "p@ss", "rooms-1")
    assert "p%40ss" not in repr(access)
    (tmp_path / "ca.pem").write_text("")
    with pytest.raises(ValueError, match="redis_ca_file"):
        RedisAccess(url="redis://h", ca_file=tmp_path / "ca.pem")
    with pytest.raises(ValueError, match="redis_ca_file"):
        RedisAccess(url="rediss://h", ca_file=tmp_path / "none.pem")


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5))))
def test_a_breaker_admits_one_at_a_time_while_the_server_is_away(steps: list[tuple[bool, float]]) -> None:
    clock, breaker = FakeClock(), Breaker()
    for is_answered, wait_s in steps:
        now = clock.monotonic()
        if breaker.admits(now):
            if not breaker.is_closed:
                assert not breaker.admits(now)
            if is_answered:
                breaker.succeed()
                assert breaker.admits(now)
            else:
                breaker.fail(now)
                assert not breaker.admits(now)
                assert not breaker.is_closed
        clock.advance(wait_s)
        if wait_s > RETRY_MAX_S:
            breaker_now = clock.monotonic()
            assert breaker.admits(breaker_now)  # nobody is refused for longer than that
            breaker.succeed() if is_answered else breaker.fail(breaker_now)
