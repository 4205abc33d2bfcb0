"""Several addresses of one service: whoever loses the connection to one of them comes back by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from client.errors import ConnectError, TrustError

if TYPE_CHECKING:
    from client.address import Address
    from client.transport import Connector, Transport


class AnyOf:
    """A Connector over the connectors of several addresses.

    Each connection begins behind the address of the one before: where it ended, the server is gone or overloaded, or
    drains. `address` is the one that was tried last.
    """

    def __init__(self, connectors: Sequence[tuple[Address, Connector]]) -> None:
        if not connectors:
            raise ValueError("at least one address is needed")
        self.address = connectors[0][0]
        self._connectors = connectors
        self._next = 0
        self._has_connected = False

    async def connect(self) -> Transport:
        """A connection to the first address that gives one.

        Raises ConnectError where all fail; TrustError where none is who it should be, or, while there has been no
        connection yet, as soon as one is not, so that somebody can be asked.
        """
        refusals: list[TrustError] = []
        failures: list[str] = []
        for _ in self._connectors:
            self.address, connector = self._connectors[self._next]
            try:
                transport = await connector.connect()
            except TrustError as error:
                if not self._has_connected:
                    raise
                refusals.append(error)
            except ConnectError as error:
                failures.append(str(error))
            else:
                self._has_connected = True
                return transport
            finally:
                self._next = (self._next + 1) % len(self._connectors)
        if failures:
            raise ConnectError("; ".join([*failures, *map(str, refusals)]))
        raise refusals[0]
