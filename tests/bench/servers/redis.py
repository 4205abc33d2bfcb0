"""Redis pub/sub: what the fastest fan-out in C does, keeping nothing."""

from __future__ import annotations

from tests.bench.link import Link
from tests.bench.server import Server


class Redis(Server):
    """redis-server with TLS only; a connection that subscribes cannot publish, so the sender is one more."""

    name = "redis"
    program = "redis-server"
    sends_as_member = False
    confirmation = b"\n"

    async def start(self) -> None:
        own = self.certificates
        self.spawn(
            *("--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(own.certificate), "--tls-key-file", str(own.private_key)),
            *("--tls-ca-cert-file", str(own.ca), "--tls-auth-clients", "no", "--tls-protocols", "TLSv1.3"),
            *("--save", "", "--appendonly", "no", "--maxclients", "20000"),
            *("--client-output-buffer-limit", "pubsub 0 0 0"),
        )
        await self.wait_for_port()

    async def open(self, user: str) -> Link:
        link = await self.connect()
        link.write(b"PING\r\n")
        await link.until(b"+PONG")
        return link

    async def join(self, link: Link, room: str) -> None:
        link.write(f"SUBSCRIBE {room}\r\n".encode())
        await link.until(b":1\r\n")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        name = room.encode()
        return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(text), text)
