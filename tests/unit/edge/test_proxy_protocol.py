from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.proxy_protocol import (
    FIXED_BYTES,
    REST_BYTES_MAX,
    SIGNATURE,
    ProxyHeaderError,
    looks_like_header,
    parse_fixed,
    parse_rest,
)

LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31
V4 = ip_address("192.0.2.7").packed + ip_address("198.51.100.1").packed + struct.pack("!2H", 40_000, 8_888)
V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + struct.pack("!2H", 40_000, 8_888)
# What HAProxy 2.6 has sent with send-proxy-v2 for a client at 127.0.0.9.
FROM_HAPROXY = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c 7f000009 7f000001 a285 1e77")


def header(command: int = PROXY, family: int = TCP4, rest: bytes = V4, *, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if size is None else size) + rest


def parse(data: bytes) -> str | None:
    """As the caller does it: the fixed part, then as much as it says."""
    fixed = parse_fixed(data[:FIXED_BYTES])
    rest = data[FIXED_BYTES : FIXED_BYTES + fixed.rest_bytes]
    if len(rest) < fixed.rest_bytes:
        raise ProxyHeaderError("the connection ended within the header")
    return parse_rest(fixed, rest)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (FROM_HAPROXY, "127.0.0.9"),
        (header(), "192.0.2.7"),
        (header(family=TCP6, rest=V6), "2001:db8::7"),
        (header(family=TCP6, rest=ip_address("::ffff:192.0.2.7").packed + V6[16:]), "192.0.2.7"),
        (header(rest=V4 + tlv(0x01, b"parley/2") + tlv(0x04, b"")), "192.0.2.7"),
        (header(rest=V4 + tlv(0x04, bytes(REST_BYTES_MAX - len(V4) - 3))), "192.0.2.7"),
        (header(LOCAL, 0x00, b""), None),
        (header(LOCAL, TCP4, V4), None),
        (header(LOCAL, 0xFF, b"anything"), None),
    ],
)
def test_a_header_names_the_client_or_is_about_the_balancer_itself(data: bytes, address: str | None) -> None:
    assert parse(data) == address


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 8888\r\n", "version 1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on", "there is no header"),
        (b"GET / HTTP/1.1\r\n\r\n", "there is no header"),
        (SIGNATURE[:-1] + b"!" + header()[12:], "there is no header"),
        (header(0x11), "unknown version or command"),
        (header(0x22), "unknown version or command"),
        (header(family=UNIX, rest=bytes(216)), "a Unix socket"),
        (header(family=0x12), "UDP"),
        (header(family=0x00, rest=b""), "unknown family"),
        (header(family=0x41), "unknown family"),
        (header(rest=V4[:-1]), "ends within its addresses"),
        (header(family=TCP6, rest=V4), "ends within its addresses"),
        (header(rest=V4 + b"\x01"), "within an addition"),
        (header(rest=V4 + tlv(0x01, b"parley/2")[:-1]), "within an addition"),
        (header(rest=V4 + b"\x01\xff\xff" + bytes(9)), "within an addition"),
        (header(size=REST_BYTES_MAX + 1), "too long"),
        (header(size=0xFFFF), "too long"),
        (header()[:-1], "ended within the header"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        parse(data)


@given(
    source=st.ip_addresses(),
    ports=st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)),
    additions=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6),
)
def test_every_address_comes_through(
    source: object, ports: tuple[int, int], additions: list[tuple[int, bytes]]
) -> None:
    address = ip_address(str(source))
    family = TCP4 if address.version == 4 else TCP6
    rest = address.packed * 2 + struct.pack("!2H", *ports) + b"".join(tlv(kind, value) for kind, value in additions)
    mapped = getattr(address, "ipv4_mapped", None)
    assert parse(header(family=family, rest=rest)) == str(mapped or address)


@given(
    data=st.one_of(
        st.binary(max_size=64),
        st.builds(lambda tail: SIGNATURE + tail, st.binary(max_size=80)),
        st.builds(header, st.sampled_from([LOCAL, PROXY]), st.integers(0, 255), st.binary(max_size=80)),
    )
)  # fmt: skip
def test_garbage_is_a_header_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        address = parse(data.ljust(FIXED_BYTES, b"\0"))
    except ProxyHeaderError:
        pass
    else:
        assert address is None or ip_address(address)


@given(cut=st.integers(0, len(header()) - 1), position=st.integers(0, 27), value=st.integers(0, 255))
def test_a_damaged_header_never_raises_anything_else(cut: int, position: int, value: int) -> None:
    damaged = bytearray(header(rest=V4 + tlv(1, b"parley/2")))
    damaged[position] = value
    for data in (bytes(damaged), bytes(damaged[:cut]).ljust(FIXED_BYTES, b"\0")):
        with contextlib.suppress(ProxyHeaderError):
            parse(data)


def test_headers_of_both_versions_are_known_by_their_first_bytes() -> None:
    assert looks_like_header(header())
    assert looks_like_header(SIGNATURE)
    assert looks_like_header(b"PROXY TCP4 ")
    assert not looks_like_header(b"")
    assert not looks_like_header(b"\x16\x03\x01")
    assert not looks_like_header(b"\r\n\r\n")
