"""mosquitto: MQTT 3.1.1 at quality of service 0, keeping nothing."""

from __future__ import annotations

from tests.bench.link import Link
from tests.bench.server import Server


def _packet(kind: int, body: bytes) -> bytes:
    """An MQTT control packet: type and flags, remaining length in groups of 7 bits, body (MQTT 3.1.1, 2.2)."""
    length = len(body)
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(encoded) + body


def _field(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


class Mosquitto(Server):
    """mosquitto with anonymous clients."""

    name = "mosquitto"
    program = "mosquitto"

    async def start(self) -> None:
        own = self.certificates
        path = self.home / "mosquitto.conf"
        path.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {own.ca}\ncertfile {own.certificate}\nkeyfile {own.private_key}\n"
            "tls_version tlsv1.3\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
            "set_tcp_nodelay true\npersistence false\nuser root\n"
        )
        self.spawn("-c", str(path))
        await self.wait_for_port()

    async def open(self, user: str) -> Link:
        link = await self.connect()
        link.write(_packet(0x10, _field("MQTT") + bytes([4, 2, 0, 0]) + _field(user)))
        await link.until(b"\x20\x02\x00\x00")
        return link

    async def join(self, link: Link, room: str) -> None:
        link.write(_packet(0x82, b"\x00\x01" + _field(room) + b"\x00"))
        await link.until(b"\x90\x03\x00\x01\x00")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        return _packet(0x30, _field(room) + text)
