"""ngircd: IRC in C, keeping nothing."""

from __future__ import annotations

from tests.bench.link import Link
from tests.bench.server import Server


class Ngircd(Server):
    """ngircd without its penalties and limits."""

    name = "ngircd"
    program = "ngircd"
    echoes = False

    async def start(self) -> None:
        own = self.certificates
        path = self.home / "ngircd.conf"
        path.write_text(
            "[Global]\nName = irc.localhost\nInfo = benchmark\nListen = 127.0.0.1\nPorts = 0\nMotdPhrase = hello\n"
            "ServerUID = root\nServerGID = root\n"
            "[Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nMaxJoins = 0\nMaxPenaltyTime = 0\nPingTimeout = 600\n"
            "[Options]\nDNS = no\nIdent = no\nPAM = no\n"
            f"[SSL]\nCertFile = {own.certificate}\nKeyFile = {own.private_key}\nPorts = {self.port}\n"
        )
        self.spawn("-n", "-f", str(path))
        await self.wait_for_port()

    async def open(self, user: str) -> Link:
        link = await self.connect()
        link.write(f"NICK {user}\r\nUSER {user} 0 * :{user}\r\n".encode())
        await link.until(b" 376 ", b" 422 ")
        return link

    async def join(self, link: Link, room: str) -> None:
        link.write(f"JOIN #{room}\r\n".encode())
        await link.until(b" 366 ")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        return b"PRIVMSG #%b :%b\r\n" % (room.encode(), text)
