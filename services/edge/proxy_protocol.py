"""The PROXY protocol, version 2: what a balancer puts in front of a client's bytes to say whose they are. Pure.

Its source is HAProxy's specification, "The PROXY protocol, versions 1 & 2" (2020/03/05). Only TCP over IPv4 and IPv6
and the balancer's own connections (LOCAL) are taken. A family without network addresses is refused: limits and logs
would have nothing to go by, and the balancer must not stand in for its clients.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES: Final = 16
"""The part of a header that says how long the rest is."""

REST_BYTES_MAX: Final = 1_024
"""Addresses and additions. HAProxy's take 12 to some 300 bytes, the names of a certificate included."""

_VERSION_1: Final = b"PROXY "
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_ADDRESSES: Final = {0x11: ("!4s4s2H", IPv4Address), 0x21: ("!16s16s2H", IPv6Address)}
_WITHOUT_ADDRESS: Final = {
    0x12: "UDP",
    0x22: "UDP",
    0x31: "a Unix socket",
    0x32: "a Unix socket",
}
_ADDITION_BYTES: Final = 3


class ProxyHeaderError(Exception):
    """What came is not a header that can be taken; the text says why."""


class Fixed(NamedTuple):
    """The fixed part of a header."""

    command: int
    family: int
    rest_bytes: int


def looks_like_header(data: bytes) -> bool:
    """Whether the first bytes of a connection are those of a header, of either version."""
    return data.startswith((SIGNATURE, _VERSION_1))


def parse_fixed(data: bytes) -> Fixed:
    """Read the first `FIXED_BYTES`. Raises ProxyHeaderError."""
    if data.startswith(_VERSION_1):
        raise ProxyHeaderError("the header is of version 1; version 2 is needed (send-proxy-v2)")
    if not data.startswith(SIGNATURE):
        raise ProxyHeaderError("there is no header")
    command, family, rest_bytes = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"the header has an unknown version or command ({command:#04x})")
    if rest_bytes > REST_BYTES_MAX:
        raise ProxyHeaderError(f"the header is too long ({rest_bytes} bytes and more than {REST_BYTES_MAX})")
    return Fixed(command, family, rest_bytes)


def parse_rest(fixed: Fixed, rest: bytes) -> str | None:
    """Read the rest, all `rest_bytes` of it: the client's address, or None for the balancer's own connection.

    Raises ProxyHeaderError.
    """
    assert len(rest) == fixed.rest_bytes, "the caller has read as much as the fixed part says"
    if fixed.command == _LOCAL:
        return None  # whatever follows is to be passed over
    if fixed.family not in _ADDRESSES:
        what = _WITHOUT_ADDRESS.get(fixed.family, f"an unknown family ({fixed.family:#04x})")
        raise ProxyHeaderError(f"the header is about {what}, and names no client's address")
    layout, make = _ADDRESSES[fixed.family]
    size = struct.calcsize(layout)
    if len(rest) < size:
        raise ProxyHeaderError("the header ends within its addresses")
    source, _, _, _ = struct.unpack_from(layout, rest)
    _check_additions(rest[size:])
    address = make(source)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address if mapped is None else mapped)


def _check_additions(data: bytes) -> None:
    """Each addition (TLV) is a type, a length and so many bytes; none of them matters here."""
    position = 0
    while position < len(data):
        end = position + _ADDITION_BYTES
        if end <= len(data):
            end += int.from_bytes(data[position + 1 : end], "big")
        if end > len(data):
            raise ProxyHeaderError("the header ends within an addition")
        position = end
