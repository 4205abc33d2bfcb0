"""nats-server core pub/sub: Go's fastest, keeping nothing."""

from __future__ import annotations

import asyncio
import json

from tests.bench.link import Link
from tests.bench.server import Server


class Nats(Server):
    """nats-server; it greets in plain text and then turns to TLS on the same connection."""

    name = "nats"
    program = "nats-server"

    async def start(self) -> None:
        own = self.certificates
        config = {
            "listen": f"127.0.0.1:{self.port}",
            "max_connections": 20000,
            "max_pending": 1 << 30,
            "write_deadline": "60s",
            "tls": {"cert_file": str(own.certificate), "key_file": str(own.private_key), "timeout": 60},
        }
        path = self.home / "nats.conf"
        path.write_text(json.dumps(config))
        self.spawn("-c", str(path))
        await self.wait_for_port()

    async def open(self, user: str) -> Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(Link, "127.0.0.1", self.port)
        await link.until(b"\r\n")
        await link.secure(self.context)
        link.write(b'CONNECT {"verbose":false,"pedantic":false,"tls_required":true}\r\nPING\r\n')
        await link.until(b"PONG")
        return link

    async def join(self, link: Link, room: str) -> None:
        link.write(f"SUB {room} 1\r\nPING\r\n".encode())
        await link.until(b"PONG")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        return b"PUB %b %d\r\n%b\r\n" % (room.encode(), len(text), text)
