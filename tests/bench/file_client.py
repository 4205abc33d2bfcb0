"""A process of its own that sends one file and fetches it again: `python -m tests.bench.file_client PORT CA USER …`.

It is not part of the driver, so that what the driver measures does not wait behind megabytes in the driver. It blocks,
copies little and hashes before and afterwards, so that the server is what limits it. Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

CHUNK = 65_536
HEADER = struct.Struct(">IB16sQ")
ACKNOWLEDGE_BYTES = 262_144
NICE = 5
"""Less urgent than the driver, with which it shares a core."""


class FileClient:
    """A blocking connection that speaks what files need of version 2."""

    def __init__(self, port: int, ca: str) -> None:
        context = ssl.create_default_context(cafile=ca)
        raw = socket.create_connection(("127.0.0.1", port))
        self.socket = context.wrap_socket(raw, server_hostname="localhost")
        self._held = bytearray()
        self.window = CHUNK

    def say(self, kind: str, data: dict[str, Any], **envelope: Any) -> None:
        payload = json.dumps({"type": kind, **envelope, "data": data}).encode()
        self.socket.sendall(struct.pack(">I", len(payload)) + payload)

    def frames(self) -> Iterator[memoryview]:
        """Payloads as they come."""
        while True:
            while len(self._held) < 4 or len(self._held) < 4 + struct.unpack_from(">I", self._held)[0]:
                data = self.socket.recv(1 << 18)
                if not data:
                    raise ConnectionError("closed")
                self._held += data
            size = struct.unpack_from(">I", self._held)[0]
            payload = memoryview(bytes(self._held[4 : 4 + size]))
            del self._held[: 4 + size]
            yield payload

    def ask(self, kind: str, data: dict[str, Any], **envelope: Any) -> dict[str, Any]:
        """Sends a request; returns the data of its answer."""
        self.say(kind, data, id="a", **envelope)
        for payload in self.frames():
            if payload[0] == 0x7B:
                frame = json.loads(bytes(payload))
                if frame.get("re") == "a":
                    if frame["type"] == "error" or frame["data"].get("success") is False:
                        raise RuntimeError(f"{kind}: {frame}")
                    answer: dict[str, Any] = frame["data"]
                    return answer
        raise AssertionError("unreachable")

    def upload(self, room_id: str, data: bytes, sha256: str) -> str:
        """Offers and sends the file; returns its id when it is posted."""
        fields = {"name": "bench.bin", "size": len(data), "sha256": sha256}
        offered = self.ask("file_offer", fields, room_id=room_id)
        file_id, sent, stored = bytes.fromhex(offered["file_id"]), 0, 0
        view, frames = memoryview(data), self.frames()
        while True:
            while sent < len(data) and sent + CHUNK - stored <= self.window:
                piece = view[sent : sent + CHUNK]
                self.socket.sendall(HEADER.pack(25 + len(piece), 1, file_id, sent) + piece)
                sent += len(piece)
            payload = next(frames)
            if payload[0] != 0x7B:
                continue
            frame = json.loads(bytes(payload))
            if frame["type"] == "file_ack":
                stored = frame["data"]["offset"]
            elif frame["type"] == "file_done":
                return str(offered["file_id"])
            elif frame["type"] == "error":
                raise RuntimeError(str(frame))

    def download(self, file_id: str, size: int) -> bytes:
        """Fetches the file."""
        self.ask("file_get", {"file_id": file_id, "offset": 0})
        found, acknowledged, frames = bytearray(), 0, self.frames()
        while len(found) < size:
            payload = next(frames)
            if payload[0] == 1:
                found += payload[25:]
                if len(found) - acknowledged >= ACKNOWLEDGE_BYTES or len(found) == size:
                    acknowledged = len(found)
                    self.say("file_ack", {"file_id": file_id, "offset": acknowledged})
        return bytes(found)


def main() -> None:
    """Sends and fetches; waits for a line on the standard input before each of the two."""
    port, ca, user, password, room_id, size = sys.argv[1:]
    os.nice(NICE)
    data = os.urandom(int(size))
    sha256 = hashlib.sha256(data).hexdigest()
    client = FileClient(int(port), ca)
    info = client.ask("hello", {"protocol": 2, "client": "bench/1"})
    client.window = info["file_window_bytes"]
    client.ask("auth_request", {"username": user, "password": password, "takeover": True})
    client.ask("join_room", {}, room_id=room_id)

    def report(**figures: float) -> None:
        print(json.dumps(figures), flush=True)

    report(ready=1)
    sys.stdin.readline()
    began = time.monotonic()
    file_id = client.upload(room_id, data, sha256)
    report(upload_s=time.monotonic() - began)
    sys.stdin.readline()
    began = time.monotonic()
    found = client.download(file_id, len(data))
    report(download_s=time.monotonic() - began)
    if hashlib.sha256(found).hexdigest() != sha256:
        raise RuntimeError("what came back is not what was sent")
    report(done=1)


if __name__ == "__main__":
    main()
