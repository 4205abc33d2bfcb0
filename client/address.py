"""Where a server is: host and port, as people type them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_PORT = 8888
DEFAULT_HOST = "localhost"


@dataclass(frozen=True)
class Address:
    """A host name or IP address, and a port."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True for this machine under a name that cannot lead elsewhere."""
        if self.host.lower().rstrip(".") == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, default_port: int = DEFAULT_PORT) -> Address:
    """Reads HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. Raises ValueError that says what is wrong."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address: an IPv6 address is written [::1]:8888")
        port = rest[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not host or any(character.isspace() or character == "/" for character in host):
        raise ValueError(f"{text!r} is not an address: write HOST or HOST:PORT")
    if not port:
        return Address(host.lower(), default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise ValueError(f"{port!r} is not a port: a number from 1 to 65535")
    return Address(host.lower(), int(port))
