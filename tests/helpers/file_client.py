"""Files with a raw client: offers, chunks and acknowledgements as docs/protocol.md says."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.raw_client import Frame, RawClient

CHUNK = 65_536
WINDOW = 1_048_576


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def offer(client: RawClient, room_id: str, data: bytes, **changes: Any) -> Frame:
    """The data of the answer."""
    fields = {"name": "notes.txt", "size": len(data), "sha256": sha256(data), "mime": "text/plain", **changes}
    return await client.expect("file_offer", fields, room_id=room_id)


async def upload(client: RawClient, file_id: str, data: bytes, offset: int = 0, *, window: int = WINDOW) -> Frame:
    """Sends the rest of a file within the window, and returns the data of `file_done`."""
    acknowledged = sent = offset
    while True:
        while sent < len(data) and sent + CHUNK - acknowledged <= window:
            piece = data[sent : sent + CHUNK]
            await client.send_chunk(file_id, sent, piece)
            sent += len(piece)
        frame = await client.wait_for(
            lambda frame: (
                frame["type"] in ("file_ack", "file_done", "error") and frame["data"].get("file_id") == file_id
            )
        )
        if frame["type"] == "file_done":
            done: Frame = frame["data"]
            return done
        assert frame["type"] == "file_ack", frame
        acknowledged = frame["data"]["offset"]


async def send_file(client: RawClient, room_id: str, data: bytes, **changes: Any) -> str:
    """Offers and sends a file whole; returns its id."""
    offered = await offer(client, room_id, data, **changes)
    await upload(client, offered["file_id"], data, offered["offset"])
    return str(offered["file_id"])


async def fetch(client: RawClient, file_id: str, offset: int = 0) -> tuple[Frame, bytes]:
    """The description, and the bytes from the offset on, each chunk acknowledged at once."""
    file = await client.expect("file_get", {"file_id": file_id, "offset": offset})
    return file, await rest(client, file_id, file["size"], offset)


async def rest(client: RawClient, file_id: str, size: int, offset: int = 0) -> bytes:
    """The bytes of a download under way."""
    found = bytearray()
    while offset + len(found) < size:
        if not client.chunks:
            await client.read_chunk()
        own_id, start, data = client.chunks.pop(0)
        assert (own_id, start) == (file_id, offset + len(found))
        found += data
        await client.send("file_ack", {"file_id": file_id, "offset": offset + len(found)})
    return bytes(found)
