from __future__ import annotations

import asyncio
import socket

import pytest

from services.edge.balancers import Balancers, LeftError, brings_header, parse_network, read_header
from services.edge.proxy_protocol import SIGNATURE, ProxyHeaderError
from tests.unit.edge.test_proxy_protocol import FROM_HAPROXY, LOCAL, header


def test_balancers_are_known_by_their_network() -> None:
    balancers = Balancers(["10.1.0.0/16", "192.0.2.1", "fd00::/8"])
    assert all(balancers.has(host) for host in ("10.1.2.3", "192.0.2.1", "fd00::1", "::ffff:10.1.2.3", "fd00::1%eth0"))
    assert not any(balancers.has(host) for host in ("10.2.0.1", "192.0.2.2", "fe80::1", "::ffff:10.2.0.1"))
    assert not Balancers([]).has("127.0.0.1")


@pytest.mark.parametrize("text", ["", "10.1.0.1/16", "balancer", "10.0.0.0/33", "10.0.0.0 /8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_network(text)


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def test_no_byte_behind_the_header_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        theirs.sendall(FROM_HAPROXY + b"\x16\x03\x01")
        assert await read_header(ours) == "127.0.0.9"
        assert ours.recv(99) == b"\x16\x03\x01"


async def test_a_header_may_come_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        reading = asyncio.create_task(read_header(ours))
        for byte in header(LOCAL, 0, b"xyz"):
            theirs.sendall(bytes([byte]))
            await asyncio.sleep(0)
        assert await asyncio.wait_for(reading, 10) is None


async def test_an_end_within_the_header_is_not_one_before_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours:
        with theirs:
            theirs.sendall(SIGNATURE)
        with pytest.raises(ProxyHeaderError, match="ended within"):
            await read_header(ours)
        with pytest.raises(LeftError):
            await read_header(ours)


def test_whether_a_header_comes_is_seen_without_taking_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        assert not brings_header(ours)
        theirs.sendall(FROM_HAPROXY)
        assert brings_header(ours)
        assert ours.recv(99) == FROM_HAPROXY
