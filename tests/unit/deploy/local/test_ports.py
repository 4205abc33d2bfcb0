from __future__ import annotations

import random
import socket
from contextlib import closing

import pytest

from deploy.local import ports
from deploy.local.failures import StartError


def test_join_puts_brackets_around_ipv6() -> None:
    assert ports.join("127.0.0.1", 1) == "127.0.0.1:1"
    assert ports.join("::1", 1) == "[::1]:1"


def test_a_port_in_use_is_named_with_its_purpose() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        with pytest.raises(StartError, match=rf"port {port} on 127.0.0.1 \(clients\) is in use"):
            ports.PortPicker().take("127.0.0.1", port, purpose="clients")


def test_no_port_is_given_twice() -> None:
    picker = ports.PortPicker(chance=random.Random(1))
    given = [picker.free() for _ in range(50)]
    assert len(set(given)) == 50
    with pytest.raises(StartError, match="in use"):
        picker.take(ports.LOOPBACK, given[0], purpose="clients")


def test_free_ports_are_below_the_ephemeral_range() -> None:
    picker = ports.PortPicker()
    assert all(20_000 <= picker.free() < 32_000 for _ in range(20))


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "x" * 300])
def test_a_host_that_is_not_here_is_explained(host: str) -> None:
    with pytest.raises(StartError, match="--host"):
        ports.is_free(host, 0)
