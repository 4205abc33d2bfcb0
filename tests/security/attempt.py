"""What every check needs: the target, a way in, and how it says that something is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.raw_client import RawClient

PASSWORD = "canary-Password-5e1d77"
"""Of every account that a check makes; it must turn up nowhere."""


class SecurityError(Exception):
    """Something was possible that must not be; the text says what."""


class NotApplicableError(Exception):
    """This check needs something that the target or the machine does not have; the text says what."""


@dataclass(frozen=True)
class Target:
    """A running stack. `home` is known only where it runs on this machine."""

    host: str
    port: int
    ca: str
    home: Path | None = None


@dataclass
class Attempt:
    """One check's own connections, closed when it ends."""

    target: Target
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def connect(self, **options: Any) -> RawClient:
        """A new connection, anonymous."""
        client = await RawClient.connect(self.target.host, self.target.port, self.target.ca, **options)
        return await self.exits.enter_async_context(client)

    async def person(self) -> RawClient:
        """A new connection with an account of its own, logged in."""
        client = await self.connect()
        await client.enter(fresh(), PASSWORD)
        return client


Check = Callable[[Attempt], Awaitable[str]]
"""Returns what was seen, in a few words; raises SecurityError or NotApplicableError."""


def fresh() -> str:
    """A user name that nobody has."""
    return "sec" + secrets.token_hex(6)


def demand(is_so: object, otherwise: str) -> None:
    """Raises SecurityError unless it is so."""
    if not is_so:
        raise SecurityError(otherwise)


async def demand_code(client: RawClient, wanted: str | set[str], type_: str, data: dict[str, Any], **more: Any) -> str:
    """The request must be refused with this code, or one of these; returns the code."""
    reply = await client.request(type_, data, **more)
    code = str(reply["data"].get("code", "success"))
    demand(code in ({wanted} if isinstance(wanted, str) else wanted), f"{type_}: {code} in place of {wanted}")
    return code
