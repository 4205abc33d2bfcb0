"""Which ports the stack listens on.

Free ports are chosen below the range that the kernel hands to outgoing connections (32768 and up on Linux), so
that a service that is restarted finds its port as it left it.
"""

from __future__ import annotations

import errno
import random
import socket
from contextlib import closing

from deploy.local.failures import StartError

CLIENT_PORT = 8888
GRPC_PORTS = {"edge-1": 50050, "auth-1": 50051, "rooms-1": 50052, "metrics-1": 50053}
PROMETHEUS_PORTS = {"metrics-1": 9464}
LOOPBACK = "127.0.0.1"

_FIRST, _LAST = 20_000, 32_000
_TRIES = 500  # of 12,000 candidates; a machine on which all of them are taken has other troubles


def join(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_free(host: str, port: int) -> bool:
    """Whether this process could listen there now. Raises StartError where the host is not one of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartError(f"--host {host}: not an address ({error})") from error
    with closing(socket.socket(family, kind, protocol)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError as error:
            raise StartError(f"port {port} may not be used by this user ({error.strerror})") from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise StartError(f"--host {host}: this machine has no such address") from error
            return False
    return True


class PortPicker:
    """Hands out ports, none twice."""

    def __init__(self, *, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 -- a port is not a secret
        self._given: set[int] = set()

    def take(self, host: str, port: int, *, purpose: str) -> int:
        """Claims a certain port. Raises StartError, naming `purpose`, when something listens there."""
        if port in self._given or not is_free(host, port):
            raise StartError(
                f"port {port} on {host} ({purpose}) is in use; end what uses it, or choose another with --port"
            )
        self._given.add(port)
        return port

    def free(self, host: str = LOOPBACK) -> int:
        """Claims a free port. Raises StartError when it finds none."""
        for _ in range(_TRIES):
            port = self._chance.randrange(_FIRST, _LAST)
            if port not in self._given and is_free(host, port):
                self._given.add(port)
                return port
        raise StartError(f"found no free port between {_FIRST} and {_LAST}")
