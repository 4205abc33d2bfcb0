"""A balancer in front of the edge: real sockets and TLS, headers made by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.edge.proxy_protocol import SIGNATURE
from tests.helpers.edge_world import EdgeWorld, edge_world, until
from tests.helpers.raw_client import RawClient

LOCAL = SIGNATURE + bytes.fromhex("20 00 0000")


def header(address: str) -> bytes:
    packed = ip_address(address).packed
    rest = packed * 2 + struct.pack("!2H", 40_000, 8_888)
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x11 if len(packed) == 4 else 0x21, len(rest)) + rest


async def open_socket(world: EdgeWorld, *, source: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", world.port))
    return client


async def come(world: EdgeWorld, start: bytes) -> RawClient:
    """A client whose bytes begin with a balancer's."""
    client = await open_socket(world)
    await asyncio.get_running_loop().sock_sendall(client, start)
    raw = await RawClient.over(client, world.ca)
    world.clients.append(raw)
    return raw


async def is_refused(world: EdgeWorld, data: bytes, *, source: str = "127.0.0.1") -> bool:
    """Whether the edge hangs up on these first bytes without a word."""
    loop = asyncio.get_running_loop()
    with await open_socket(world, source=source) as client:
        try:
            await loop.sock_sendall(client, data)
            return await asyncio.wait_for(loop.sock_recv(client, 99), 10) == b""
        except ConnectionResetError:
            return True


async def test_the_edge_knows_the_client_by_the_header(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.0/8",)) as world:
        first, second = await come(world, header("192.0.2.7")), await come(world, header("2001:db8::7"))
        await first.login("amy")
        await second.login("bob")
        assert [connection.address for connection in world.edge._directory] == ["192.0.2.7", "2001:db8::7"]
        assert world.value("parley.edge.connections.accepted") == 2


async def test_the_limit_of_an_address_is_the_clients_and_not_the_balancers(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",), anonymous_per_address_max=2) as world:
        others = [await come(world, header(f"192.0.2.{number}")) for number in range(5)]
        same = [await come(world, header("198.51.100.1")) for _ in range(3)]
        assert await same[0].is_closed(10)
        for client in (*others, *same[1:]):
            assert (await client.request("heartbeat"))["type"] == "heartbeat"


async def test_the_balancers_own_connections_are_no_clients(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",), anonymous_per_address_max=1) as world:
        checks = [await come(world, LOCAL) for _ in range(5)]
        for check in checks:
            assert (await check.request("heartbeat"))["type"] == "heartbeat"
        with await open_socket(world):
            pass  # a check that only connects
        await asyncio.sleep(0)
        assert world.value("parley.edge.connections.accepted") == 0
        assert world.value("parley.edge.connections.refused") == 0


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00", "there is no header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 8888\r\n", "version 1"),
        (SIGNATURE + bytes.fromhex("21 31 00d8") + bytes(216), "Unix socket"),
        (SIGNATURE + bytes.fromhex("21 11 ffff"), "too long"),
        (SIGNATURE + bytes.fromhex("21 11 0004") + bytes(4), "ends within its addresses"),
    ],
)
async def test_what_a_balancer_must_not_send_is_refused_with_the_reason(
    tmp_path: Path, start: bytes, reason: str
) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",)) as world:
        with capture_logs() as logs:
            assert await is_refused(world, start)
        (said,) = [entry for entry in logs if entry["event"] == "connections refused"]
        ((why, count),) = said["reasons"].items()
        assert reason in why
        assert "127.0.0.1" in why
        assert count == 1
        assert world.value("parley.edge.connections.refused") == 1


async def test_a_header_that_does_not_come_has_its_time(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",), handshake_timeout_s=0.2) as world:
        assert await is_refused(world, b"")
        assert await is_refused(world, SIGNATURE)
        assert await is_refused(world, header("192.0.2.7"))  # and so has the handshake behind it


async def test_a_header_from_anybody_else_is_refused(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.5",)) as world:
        with capture_logs() as logs:
            assert await is_refused(world, header("192.0.2.7"))
        (said,) = [entry for entry in logs if entry["event"] == "connections refused"]
        assert list(said["reasons"]) == ["a PROXY header from 127.0.0.1, which is not in proxy_networks"]
        client = await world.connect()  # without one it is welcome
        assert (await client.request("heartbeat"))["type"] == "heartbeat"
        assert await is_refused(world, b"\x16\x03\x01" + bytes(20), source="127.0.0.5")


async def test_a_client_cannot_put_a_header_behind_the_balancers(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",)) as world:
        assert await is_refused(world, header("192.0.2.7") + header("192.0.2.8"))


async def test_headers_that_never_come_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.edge.listener._HEADERS_MAX", 3)
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",)) as world:
        waiting = [await open_socket(world) for _ in range(3)]
        await until(lambda: len(world.edge._listener._headers) == 3)
        assert await is_refused(world, b"")
        for client in waiting:
            client.close()
        await until(lambda: not world.edge._listener._headers)
        assert (await (await come(world, header("192.0.2.7"))).request("heartbeat"))["type"] == "heartbeat"


async def test_refusals_are_said_once_in_a_while_and_none_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.edge.listener._REPORT_EVERY_S", 0.3)
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",)) as world:
        with capture_logs() as logs:
            for _ in range(4):
                assert await is_refused(world, b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: sum(count for entry in logs for count in entry.get("reasons", {}).values()) == 4)
        assert len(logs) <= 4


async def test_the_end_of_the_edge_ends_what_waits_for_its_header(tmp_path: Path) -> None:
    async with edge_world(tmp_path, proxy_networks=("127.0.0.1",)) as world:
        client = await open_socket(world)
        await until(lambda: world.edge._listener._headers)
        world.edge._listener.close()
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 9), 10) == b""
        client.close()
