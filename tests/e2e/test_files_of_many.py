"""Files over two edges and two rooms instances on one PostgreSQL and one Redis, one of which is killed half way."""

from __future__ import annotations

import os
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.file_client import CHUNK, fetch, offer, upload
from tests.helpers.many_stack import running_many
from tests.helpers.people import People, fresh
from tests.helpers.stack import FAST_CONFIG, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 5_000_000
QUOTA = 6_000_000
# The grace period of an edge, and a machine that is busy with tests.
HEALED_S = 60.0
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def many() -> Iterator[Stack]:
    with running_many(f"{FAST_CONFIG}\n[rooms]\nfile_bytes_per_user_max = {QUOTA}\n") as running:
        yield running.stack


@pytest.mark.parametrize("victim", ["rooms-1", "rooms-2"])  # one of them has taken the upload
async def test_a_file_goes_on_at_whoever_is_left_and_counts_once(many: Stack, victim: str) -> None:
    data, transfer_id = os.urandom(SIZE), secrets.token_hex(16)
    async with AsyncExitStack() as exits:
        people = People(many, exits)
        await people.heal(HEALED_S)
        name = fresh()
        alice, bob = await people.person(name, edge=1), await people.person(edge=2)
        room_id = await people.room(alice, bob)
        offered = await offer(alice, room_id, data, transfer_id=transfer_id)
        for start in range(0, 10 * CHUNK, CHUNK):
            await alice.send_chunk(offered["file_id"], start, data[start : start + CHUNK])
        await alice.event("file_ack")
        many.kill(victim)
        alice.abort()
        await people.heal(HEALED_S)

        alice = await people.connect(edge=2)
        credentials = {"username": name, "password": PASSWORD, "takeover": True}
        assert (await alice.expect("auth_request", credentials))["success"]
        more = await offer(alice, room_id, data, transfer_id=transfer_id)
        assert more["file_id"] == offered["file_id"]
        assert CHUNK <= more["offset"] <= 10 * CHUNK
        await upload(alice, more["file_id"], data, more["offset"])

        other = await people.person(edge=1)
        await other.expect("join_room", room_id=room_id)
        assert (await fetch(other, more["file_id"]))[1] == data
        (message,) = await bob.messages(room_id, 1)
        assert message["file"]["file_id"] == more["file_id"]
        again = await offer(alice, room_id, data, transfer_id=transfer_id)  # its answer was lost: it is posted already
        assert (again["file_id"], again["offset"]) == (more["file_id"], SIZE)

        rest = QUOTA - SIZE
        too_much = {"name": "b", "size": rest + 1, "sha256": "0" * 64}
        assert await alice.refused("file_offer", too_much, room_id=room_id) == "quota_exceeded"
        half = await alice.expect("file_offer", {**too_much, "size": rest}, room_id=room_id)
        await alice.expect("file_cancel", {"file_id": half["file_id"]})
        await alice.expect("file_offer", {**too_much, "size": rest}, room_id=room_id)
