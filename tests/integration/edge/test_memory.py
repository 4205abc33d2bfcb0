"""What connections leave behind: nothing, and without the collector's help, which would stop everybody to find it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.edge_world import edge_world, until

OURS = {"Connection", "Session", "Sender", "Outbox", "FrameDecoder", "Subscriber", "TlsTransport", "SSLSocket"}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count() -> dict[str, int]:
    found = dict.fromkeys(OURS, 0)
    for one in gc.get_objects():
        name = type(one).__name__
        if name in OURS and not isinstance(one, type):
            found[name] += 1
    return found


@pytest.mark.usefixtures("no_collector")
async def test_connections_are_freed_when_they_end(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        before = count()
        clients = [await world.user(f"user{number}") for number in range(6)]
        room_id = (await clients[0].expect("create_room", {"name": "lobby"}))["room_id"]
        for client in clients[1:]:
            await client.expect("join_room", {"room_id": room_id})
        await clients[0].say(room_id, "hi")
        assert count()["Connection"] == before["Connection"] + 6
        await clients[0].send_bytes(b"\x00\x00\x00\x00")
        assert await clients[0].is_closed()
        await clients[1].expect("logout")
        for client in clients[1:4]:
            await client.close()
        for client in clients[4:]:
            client.abort()
        await until(lambda: world.value("parley.edge.connections") == 0)
        world.clients.clear()
        del client, clients
        await until(lambda: count() == before)


@pytest.mark.usefixtures("no_collector")
async def test_failed_handshakes_are_freed(tmp_path: Path) -> None:
    async with edge_world(tmp_path, handshake_timeout_s=0.2) as world:
        before = count()
        for count_before, data in enumerate((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"")):
            _, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(data)
            # Not that it is there: it may have come and gone between two looks.
            await until(lambda before=count_before: world.value("parley.edge.connections.accepted") > before)
            await until(lambda: world.value("parley.edge.connections") == 0)
            writer.close()
        await until(lambda: count() == before)
