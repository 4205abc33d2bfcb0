"""Files over a real stack: through the edge to the disk of rooms and back."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.helpers.file_client import CHUNK, fetch, offer, send_file, upload
from tests.helpers.people import People

if TYPE_CHECKING:
    from tests.helpers.stack import Stack

DATA = os.urandom(5_000_000)


async def test_a_file_is_sent_fetched_and_known_to_members_only(people: People) -> None:
    alice, bob, eve = await people.person(), await people.person(), await people.person()
    room_id = await people.room(alice, bob)
    file_id = await send_file(alice, room_id, DATA)
    (message,) = await bob.messages(room_id, 1)
    assert message["file"]["file_id"] == file_id
    assert (await fetch(bob, file_id))[1] == DATA
    assert await eve.refused("file_get", {"file_id": file_id}) in ("not_a_member", "no_such_file")
    assert await eve.refused("file_cancel", {"file_id": file_id}) == "no_such_file"
    offered = await offer(alice, room_id, DATA)
    assert offered["offset"] == len(DATA)  # the server has it


async def test_an_upload_goes_on_after_a_kill_of_rooms(own_stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        people = People(own_stack, exits)
        alice = await people.person()
        room_id = await people.room(alice)
        offered = await offer(alice, room_id, DATA)
        for start in range(0, 10 * CHUNK, CHUNK):
            await alice.send_chunk(offered["file_id"], start, DATA[start : start + CHUNK])
        await alice.event("file_ack")
        own_stack.kill("rooms-1")
        await alice.event("error", file_id=offered["file_id"], code="unavailable")
        await people.heal()
        more = await offer(alice, room_id, DATA)
        assert more["file_id"] == offered["file_id"]
        assert CHUNK <= more["offset"] <= 10 * CHUNK
        await upload(alice, more["file_id"], DATA, more["offset"])
        assert (await fetch(alice, more["file_id"]))[1] == DATA
