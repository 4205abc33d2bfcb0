"""The auth service as a process of its own: killed, stopped, started again, started wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from parley.auth.v1 import auth_pb2, auth_pb2_grpc

from services.common.errors import from_rpc_error
from services.common.wire.codes import ErrorCode
from tests.helpers import certificates, rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[3]
EDGE = auth_pb2.EdgeBoot(name="edge-1", boot_id="boot-a")
OTHER = auth_pb2.EdgeBoot(name="edge-2", boot_id="boot-b")
PASSWORD = "correct horse"
TIMEOUT_S = 60.0  # a process imports for seconds where the machine is busy


class Service:
    """One run of `python -m services.auth`."""

    def __init__(self, home: Path, process: asyncio.subprocess.Process, address: str) -> None:
        self.home = home
        self.process = process
        self.address = address

    @contextlib.asynccontextmanager
    async def edge(self) -> AsyncIterator[auth_pb2_grpc.AuthServiceAsyncStub]:
        async with rpc.channel(self.address, deadline_s=TIMEOUT_S) as channel:
            yield auth_pb2_grpc.AuthServiceStub(channel)  # type: ignore[misc]

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            return await self.process.wait()


async def start(home: Path, **settings: object) -> tuple[asyncio.subprocess.Process, Path]:
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    material = certificates.shared()
    chosen = {
        "ready_file": ready,
        "bcrypt_rounds": 4,
        "assertion_key_file": material.assertion_keys.private,
        "assertion_keys_file": material.assertion_keys.public,
        **material.settings("auth", home),
        **settings,
    }
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PARLEY_")}
    with (home / "stderr").open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.auth"),
            cwd=ROOT,
            env={**environ, **{f"PARLEY_AUTH_{key.upper()}": str(value) for key, value in chosen.items()}},
            stderr=stderr,
        )
    return process, ready


@contextlib.asynccontextmanager
async def running(home: Path, **settings: object) -> AsyncIterator[Service]:
    process, ready = await start(home, **settings)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not ready.exists():
                assert process.returncode is None, (home / "stderr").read_text()
                await asyncio.sleep(0.02)
        yield Service(home, process, json.loads(ready.read_text())["grpc"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def registration(name: str) -> auth_pb2.RegisterRequest:
    return auth_pb2.RegisterRequest(username=name, password=PASSWORD, address="192.0.2.1")


def login(name: str, edge: auth_pb2.EdgeBoot = EDGE) -> auth_pb2.LoginRequest:
    return auth_pb2.LoginRequest(username=name, password=PASSWORD, address="192.0.2.1", edge=edge)


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    async with running(tmp_path) as service, service.edge() as edge:

        async def register(name: str) -> None:
            await edge.Register(registration(name))
            acknowledged.append(name)
            if len(acknowledged) == 20:  # in the middle of the others
                service.process.kill()

        await asyncio.gather(*(register(f"user{n}") for n in range(200)), return_exceptions=True)
        assert await service.process.wait() == -signal.SIGKILL
    assert len(acknowledged) >= 20
    async with running(tmp_path) as service, service.edge() as edge:
        for name in acknowledged:
            assert (await edge.Login(login(name))).username == name


async def test_sessions_survive_a_restart_and_their_edge_keeps_them(tmp_path: Path) -> None:
    async with running(tmp_path) as service, service.edge() as edge:
        await edge.Register(registration("alice"))
        session = (await edge.Login(login("alice"))).session_id
        assert await service.end(signal.SIGKILL) == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "auth.db")) as database, database:
        # As if auth had been down for longer than the lease, in which the edge could not renew.
        assert database.execute("UPDATE edge_boots SET lease_until_ms = 0").rowcount == 1
    async with running(tmp_path) as service, service.edge() as edge:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.Login(login("alice", OTHER))
        assert from_rpc_error(caught.value).code is ErrorCode.ALREADY_LOGGED_IN
        response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=[session]))
        assert list(response.ended_session_ids) == []


async def test_accounts_and_sessions_in_postgresql_outlive_auth_and_the_server(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    settings = {"database_url": own_postgres.make_database()}
    async with running(tmp_path, **settings) as service, service.edge() as edge:
        await edge.Register(registration("alice"))
        session = (await edge.Login(login("alice"))).session_id
        own_postgres.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.Login(login("alice", OTHER))
        assert from_rpc_error(caught.value).code is ErrorCode.UNAVAILABLE
        own_postgres.start()
        response = await edge.RenewLease(auth_pb2.RenewLeaseRequest(edge=EDGE, session_ids=[session]))
        assert list(response.ended_session_ids) == []
        await service.end(signal.SIGKILL)
    assert not list((tmp_path / "data").glob("*.db"))
    async with running(tmp_path, **settings) as service, service.edge() as edge:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await edge.Login(login("alice", OTHER))
        assert from_rpc_error(caught.value).code is ErrorCode.ALREADY_LOGGED_IN
        takeover = login("alice", OTHER)
        takeover.takeover = True
        assert (await edge.Login(takeover)).session_id != session


async def test_sigterm_ends_watches_and_the_process_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as service, service.edge() as edge:
        watch = edge.WatchRevocations(auth_pb2.WatchRevocationsRequest(edge=EDGE))
        assert await watch.read() == auth_pb2.WatchRevocationsResponse()
        assert await service.end(signal.SIGTERM) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await watch.read()
    log = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
    assert [entry["event"] for entry in log] == ["ready", "stopping"]


async def test_the_pepper_is_made_once_and_its_loss_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as service, service.edge() as edge:
        await edge.Register(registration("alice"))
        await service.end(signal.SIGTERM)
    pepper = tmp_path / "data" / "auth-pepper"
    assert pepper.stat().st_mode & 0o777 == 0o600
    secret = pepper.read_bytes()
    pepper.unlink()
    process, ready = await start(tmp_path)
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == 2
    assert not ready.exists()
    assert not pepper.exists()
    assert "pepper_file" in (tmp_path / "stderr").read_text()
    pepper.write_bytes(secret)
    async with running(tmp_path) as service, service.edge() as edge:
        assert (await edge.Login(login("alice"))).session_id


async def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    process, _ = await start(tmp_path, bcrypt_rounds=99)
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == 2
    assert "PARLEY_AUTH_BCRYPT_ROUNDS" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (None, 2, "(?i)database_password_file: .* cannot be read: No such file"),
        ("", 2, "(?i)database_password_file: .* is empty"),
        ("the wrong one\n", 1, "the database cannot be used: .*password authentication failed"),
    ],
)
async def test_a_wrong_database_password_is_one_clear_line(
    tmp_path: Path, own_postgres: PostgresServer, content: str | None, status: int, told: str
) -> None:
    url = own_postgres.make_database()
    own_postgres.execute("ALTER ROLE parley PASSWORD 'the right one'")
    (own_postgres.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    own_postgres.execute("SELECT pg_reload_conf()")
    secret = tmp_path / "password"
    if content is not None:
        secret.write_text(content)
    process, _ = await start(tmp_path, database_url=url, database_password_file=secret)
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == status
    output = (tmp_path / "stderr").read_text()
    assert re.search(told, output), output
    assert "Traceback" not in output
    assert "the wrong one" not in output
