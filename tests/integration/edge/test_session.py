"""Sessions of version-2 clients over real TLS."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.edge_world import edge_world


async def test_two_people_talk(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        room = await alice.expect("create_room", {"name": "lobby"})
        joined = await bob.expect("join_room", {"room_id": "lobby"})
        assert joined["room_id"] == room["room_id"]
        stored = await alice.say(room["room_id"], "hi")
        assert stored["seq"] == 1
        for client in (alice, bob):
            assert [m["text"] for m in await client.messages(room["room_id"], 1)] == ["hi"]
