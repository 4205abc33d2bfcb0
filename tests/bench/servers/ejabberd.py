"""ejabberd with its archive on: XMPP rooms that keep messages (Mnesia, not synced before the message is passed on)."""

from __future__ import annotations

import os

from tests.bench.link import Link
from tests.bench.server import Server, free_port

HOST = "localhost"
ROOMS = "conference.localhost"


class Ejabberd(Server):
    """ejabberd with anonymous logins, rooms and message archiving."""

    name = "ejabberd"
    program = "ejabberdctl"
    keeps = "yes, unsynced"
    connections_max = 900

    async def start(self) -> None:
        own = self.certificates
        both = self.home / "server.pem"
        both.write_bytes(own.certificate.read_bytes() + own.private_key.read_bytes())
        (self.home / "ejabberd.yml").write_text(f"""
hosts: [{HOST}]
loglevel: error
certfiles: [{both}]
listen:
  - {{port: {self.port}, ip: 127.0.0.1, module: ejabberd_c2s, tls: true, max_stanza_size: 262144}}
auth_method: [anonymous]
anonymous_protocol: sasl_anon
allow_multiple_connections: true
modules:
  mod_muc:
    host: {ROOMS}
    access: all
    access_create: all
    max_users: 1000
    min_message_interval: 0
    min_presence_interval: 0
    default_room_options: {{mam: true, persistent: false, anonymous: false}}
  mod_mam: {{default: always}}
""")
        (self.home / "inetrc").write_text("")
        (self.home / "ejabberdctl.cfg").write_text(
            f"ERLANG_NODE=bench{self.port}@localhost\nERL_MAX_PORTS=32000\nULIMIT_MAX_FILES=32000\nERL_DIST_PORT={free_port()}\n"
        )
        spool = self.home / "spool"
        spool.mkdir()
        for path in (self.home, spool, *self.home.iterdir()):
            os.chmod(path, 0o777)  # noqa: S103, PTH101 - ejabberd runs as an account of its own
        directories = ("--config-dir", str(self.home), "--logs", str(self.home), "--spool", str(spool))
        self.spawn(*directories, "foreground")
        await self.wait_for_port(120)

    async def open(self, user: str) -> Link:
        link = await self.connect()
        opening = (
            f"<stream:stream to='{HOST}' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
            "version='1.0'>"
        ).encode()
        link.write(opening)
        await link.until(b"</stream:features>")
        link.write(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
        await link.until(b"<success")
        link.write(opening)
        await link.until(b"</stream:features>")
        link.write(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        await link.until(b"</iq>")
        link.write(b"<presence/>")
        await link.until(b"<presence")
        return link

    async def join(self, link: Link, room: str) -> None:
        name = f"n{id(link):x}"
        link.write(
            f"<presence to='{room}@{ROOMS}/{name}'><x xmlns='http://jabber.org/protocol/muc'>"
            "<history maxstanzas='0'/></x></presence>".encode()
        )
        seen = await link.until(b"110")
        if b"code='201'" in seen:
            link.write(
                f"<iq type='set' id='c' to='{room}@{ROOMS}'><query xmlns='http://jabber.org/protocol/muc#owner'>"
                "<x xmlns='jabber:x:data' type='submit'/></query></iq>".encode()
            )
            await link.until(b"id='c'")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        return b"<message type='groupchat' to='%b@%b'><body>%b</body></message>" % (
            room.encode(),
            ROOMS.encode(),
            text,
        )
