from __future__ import annotations

from services.edge.files.old_desk import OldDesk
from tests.helpers.file_desk import AMY, DeskWorld


async def test_closing_ends_both_ways() -> None:
    world = DeskWorld()
    await world.begin()
    desk = OldDesk(world.connection, AMY, world.rules)
    world.connection.takes.clear()
    file_id = await world.posted(b"x")
    desk.relay.add(world.room_id, "bob", file_id)
    desk.relay.add(world.room_id, "bob", file_id)
    await world.until(lambda: world.backend.downloads)
    desk.close()
    world.connection.takes.set()
    await world.until(lambda: not world.rules.downloads.taken)
    assert len(world.backend.downloads) == 1
    assert world.connection.replies == []
