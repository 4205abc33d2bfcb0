"""People for tests: connections with fresh names that hang up by themselves when the test ends."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from tests.helpers.raw_client import ClosedError, NoAnswerError, RawClient

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from tests.helpers.stack import Stack

HEALED_S = 10.0  # what the product promises after the last fault
AGAIN_S = 0.2


def fresh(prefix: str = "u") -> str:
    """A name that nobody has: of a person or of a room."""
    return f"{prefix}{secrets.token_hex(6)}"


class People:
    """Makes connections to one stack."""

    def __init__(self, stack: Stack, exits: AsyncExitStack) -> None:
        self.stack = stack
        self._exits = exits

    async def connect(self, *, hello: bool = True, edge: int = 1) -> RawClient:
        """A connection that is not logged in."""
        port = self.stack.port + edge - 1
        client = await RawClient.connect("localhost", port, self.stack.ca, hello=hello)
        return await self._exits.enter_async_context(client)

    async def heal(self, timeout_s: float = HEALED_S) -> None:
        """Waits until everything works again: login, a new room, sending and receiving. Raises what is wrong."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    alice, bob = await self.person(), await self.person()
                    room_id = await self.room(alice, bob)
                    seq = (await alice.say(room_id, "healed"))["seq"]
                    assert (await bob.messages(room_id, 1))[0]["seq"] == seq
                    return
            except (AssertionError, OSError, ClosedError, NoAnswerError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def person(self, name: str | None = None, *, edge: int = 1) -> RawClient:
        """Somebody with an account, logged in with version 2."""
        client = await self.connect(edge=edge)
        await client.enter(name or fresh())
        return client

    async def old_timer(self, name: str | None = None) -> RawClient:
        """Somebody with an account, logged in with version 1."""
        client = await self.connect(hello=False)
        await client.enter(name or fresh())
        return client

    async def room(self, *members: RawClient) -> str:
        """A new room with these members, all of version 2, the first of them its owner."""
        owner, *others = members
        room_id = str((await owner.expect("create_room", {"name": fresh("room")}))["room_id"])
        for member in others:
            await member.expect("join_room", room_id=room_id)
        return room_id
