from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("chat.example.org", "chat.example.org", 8888),
        ("Chat.Example.ORG:99", "chat.example.org", 99),
        ("127.0.0.1:8889", "127.0.0.1", 8889),
        ("[::1]:8889", "::1", 8889),
        ("[::1]", "::1", 8888),
        ("::1", "::1", 8888),
    ],
)
def test_addresses_as_people_write_them(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", ":8888", "a:0", "a:65536", "a:x", "a:٣", "[::1", "[::1]8888", "a b", "http://a", "a:-1"]
)
def test_what_is_not_an_address_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_address(text)


@given(st.text())
def test_anything_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


def test_loopback() -> None:
    assert all(Address(host, 1).is_loopback for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1"))
    assert not any(Address(host, 1).is_loopback for host in ("localhost.example.org", "10.0.0.1", "example.org"))
