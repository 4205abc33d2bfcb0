"""Balancers: who may say whose bytes follow, and what they say.

A header is believed from the networks of `proxy_networks` only, and there it is required: a balancer that is set up
without it would make all of its clients one, and a client that could write one would be whoever it likes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from services.edge.proxy_protocol import FIXED_BYTES, ProxyHeaderError, looks_like_header, parse_fixed, parse_rest


class LeftError(Exception):
    """The connection ended before it said anything: a check whether somebody listens."""


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A network ("10.1.0.0/16") or an address. Raises ValueError."""
    return ip_network(text)


class Balancers:
    """The networks that balancers connect from."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(parse_network, networks))

    def has(self, host: str) -> bool:
        """Whether connections from this address begin with a header."""
        if not self._networks:
            return False
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


async def read_header(accepted: socket.socket) -> str | None:
    """Read the header, and no byte behind it: the client's address, or None for the balancer's own connection.

    Raises ProxyHeaderError, LeftError, OSError. The caller sets the time.
    """
    fixed = parse_fixed(await _read(accepted, FIXED_BYTES))
    return parse_rest(fixed, await _read(accepted, fixed.rest_bytes))


async def _read(accepted: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(accepted, size - len(data))
        if not more:
            if data:
                raise ProxyHeaderError("the connection ended within the header")
            raise LeftError
        data += more
    return data


def brings_header(accepted: socket.socket) -> bool:
    """Whether somebody who is no balancer begins with a header. The bytes stay where they are."""
    try:
        return looks_like_header(accepted.recv(FIXED_BYTES, socket.MSG_PEEK))
    except OSError:  # reset, or nothing there: the handshake will find out
        return False
