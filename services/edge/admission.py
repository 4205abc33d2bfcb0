"""Admission: which connection may come in, and who has to go for it. Pure: no sockets, no clock.

Connections that are not logged in cost little but are free to make, so there is a limit per network address and one
for all connections together. At a limit the oldest connection that is not logged in goes, not the newest: whoever
fills the edge with silent connections from one address only pushes out their own, and a person behind the same
address still gets in. A connection whose login is under way does not have to go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, TypeVar

C = TypeVar("C", bound=Hashable)

_HOST_BITS_V6: Final = 64
"""One customer has at least a /64: its addresses count as one."""


def address_group(host: str) -> str:
    """What limits per address count by: an IPv4 address, or the /64 of an IPv6 address."""
    address = ip_address(host.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _HOST_BITS_V6 << _HOST_BITS_V6))


class Admission(Generic[C]):
    """Everyone who is connected. A limit of 0 is none. `is_busy` says whose login is under way."""

    def __init__(self, *, connections_max: int, anonymous_per_address_max: int, is_busy: Callable[[C], bool]) -> None:
        self._connections_max = connections_max
        self._per_address_max = anonymous_per_address_max
        self._is_busy = is_busy
        self._groups: dict[C, str | None] = {}  # everyone
        self._anonymous: dict[C, None] = {}  # who is not logged in, oldest first
        self._by_group: dict[str, dict[C, None]] = {}  # the same by address, oldest first

    @property
    def count(self) -> int:
        """All connections, those in their handshake included."""
        return len(self._groups)

    @property
    def anonymous_count(self) -> int:
        """Connections that are not logged in."""
        return len(self._anonymous)

    def arrive(self, connection: C, group: str | None) -> list[C] | None:
        """A connection comes: who is to be closed for it (seldom anybody), or None where it cannot come in.

        Without a group, as a balancer's own connections are, it is under no limit per address.

        Those who are to be closed have left already, as far as this is concerned.
        """
        victims: list[C] = []
        same = {} if group is None else self._by_group.get(group, {})
        if self._per_address_max and len(same) >= self._per_address_max:
            victim = self._oldest(same)
            if victim is None:
                return None
            victims.append(victim)
        if self._connections_max and self.count - len(victims) >= self._connections_max:
            victim = self._oldest(self._anonymous)
            if victim is None:
                return None
            victims.append(victim)
        for victim in victims:
            self.leave(victim)
        self._groups[connection] = group
        self.log_out(connection)
        return victims

    def log_in(self, connection: C) -> None:
        """The connection is logged in."""
        self._anonymous.pop(connection, None)
        group = self._groups[connection]
        if group is not None and (same := self._by_group.get(group)) is not None:
            same.pop(connection, None)
            if not same:
                del self._by_group[group]

    def log_out(self, connection: C) -> None:
        """The connection is not logged in any more; from now on it is the youngest of these."""
        self._anonymous[connection] = None
        group = self._groups[connection]
        if group is not None:
            self._by_group.setdefault(group, {})[connection] = None

    def leave(self, connection: C) -> None:
        """The connection has ended. Idempotent."""
        if connection in self._groups:
            self.log_in(connection)
            del self._groups[connection]

    def _oldest(self, connections: dict[C, None]) -> C | None:
        return next((connection for connection in connections if not self._is_busy(connection)), None)
