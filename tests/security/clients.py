"""Clients: whom the terminal client believes, and what a hostile server can do to the terminal that it runs in."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from client.address import Address
from client.errors import ConnectError, TrustError
from client.transport import TlsConnector
from client.trust import Authority as Trusted
from tests.helpers.certificates import DAY, make_authority, make_certificate
from tests.helpers.chat_program import PASSWORD, environment
from tests.helpers.served_edge import ServedEdge
from tests.helpers.stack import ROOT, parley
from tests.helpers.terminal_program import TerminalProgram
from tests.security.attempt import Attempt, Check, demand

if TYPE_CHECKING:
    from collections.abc import Callable

_FIVE_MINUTES = dt.timedelta(minutes=5)

# Each would be obeyed by a terminal: its title, the clipboard, a cleared screen, another cursor, an answer typed for
# the person, C1 forms of the same, and characters that turn the direction of a line.
ESCAPES = (
    "\x1b]0;pwned-title\x07",
    "\x1b]52;c;cHduZWQ=\x07",
    "\x1b[2J\x1b[H",
    "\x1b[6n",
    '\x1bP$q"p\x1b\\',
    "\x9b2J",
    "\x9d0;pwned-title\x9c",
    "\x07",
    "\x08\x08\x08\x7f",
    "\r[08:00:00] boss: pay him",
    "\u202etxt.exe\u202c",
    "\x00",
)
# What a program that draws lines of styled text in a terminal has to say.
_OWN_SEQUENCES = re.compile(
    rb"\x1b\[[0-9;]*m|\x1b\[\?(?:1|7|12|25|1004|1049|2004)[hl]|\x1b\[[0-9]*[ABCDGJK]|\x1b\[[0-9;]*H|\x1b\[6n"
    rb"|\x1b\[[0-9] q|\x1b[=>]|(?<!\x08)\x08(?!\x08)"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


async def check_the_client_refuses_bad_certificates(_: Attempt) -> str:
    """Of servers that only look like the right one, none is told anything."""
    with tempfile.TemporaryDirectory(prefix="parley-security-") as name:
        folder = Path(name)
        good, bad = make_authority(folder, "good"), make_authority(folder, "bad")
        servers = {
            "right": make_certificate(folder, good, dns=["localhost"], name="right"),
            "of another authority": make_certificate(folder, bad, dns=["localhost"], name="foreign"),
            "of another name": make_certificate(folder, good, dns=["parley.invalid"], name="other"),
            "without a name": make_certificate(folder, good, dns=[], name="nameless"),
            "expired": make_certificate(folder, good, dns=["localhost"], name="old", valid=(-2 * DAY, -_FIVE_MINUTES)),
            "of tomorrow": make_certificate(folder, good, dns=["localhost"], name="new", valid=(DAY, 2 * DAY)),
        }
        for what, pair in servers.items():
            accepted = await _is_accepted(pair, good.file)
            demand(accepted == (what == "right"), f"a certificate {what}: accepted is {accepted}")
        demand(not await _is_accepted(servers["right"], good.file, newest=ssl.TLSVersion.TLSv1_2), "it speaks TLS 1.2")
    return f"{len(servers) - 1} certificates and TLS 1.2 refused"


async def _is_accepted(
    pair: tuple[Path, Path], ca: Path, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(*pair)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            await (await TlsConnector(address, Trusted("localhost", ca)).connect()).close()
        except (TrustError, ConnectError):
            return False
    return True


async def check_escapes_do_nothing(_: Attempt) -> str:
    """`parley chat` in a pseudo-terminal, with a server that sends escapes wherever a server may send text."""
    return await asyncio.to_thread(_show_escapes, lambda terminal: _judge_output(terminal.output))


def _show_escapes(judge: Callable[[TerminalProgram], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="parley-security-") as name:
        folder = Path(name)
        served = ServedEdge(folder)
        served.edge.accounts = {"ada": PASSWORD}
        room = served.edge.add_room("tea" + "".join(ESCAPES), "ada", "bob")
        room.topic = "".join(ESCAPES)
        with served.running():
            terminal = TerminalProgram(
                parley("chat", served.address, "--ca", str(served.ca), "--user", "ada"),
                env=environment(folder),
                cwd=str(ROOT),
            )
            try:
                terminal.wait_for("Password of ada:")
                terminal.enter(PASSWORD)
                terminal.wait_for("#tea")
                for number, escape in enumerate(ESCAPES):
                    served.do(lambda n=number, e=escape: served.edge.say(room, "bob", f"before {n} {e} after"))  # type: ignore[misc]
                    served.do(lambda n=number, e=escape: served.edge.say(room, f"bob{e}", f"from {n}"))  # type: ignore[misc]
                    terminal.wait_for(f"from {number}")
                notice = "".join(ESCAPES) + "notice"
                served.do(lambda: [c.event("notice", {"text": notice}) for c in served.edge.connections])
                terminal.wait_for("notice")
                terminal.enter("/rooms")
                terminal.wait_for("/rooms")
                terminal.enter("/quit")
                terminal.wait_for_end()
                judge(terminal)
            finally:
                terminal.close()
    return f"{len(ESCAPES)} sequences in texts, names, a room, a topic and a notice"


def _judge_output(output: bytes) -> None:
    shown = output.decode(errors="surrogateescape")
    demand("before 11" in shown, "the texts were not shown")
    demand("pwned-title\x07" not in shown and "\x1b]" not in shown, "the terminal's title or clipboard is set")
    rest = _OWN_SEQUENCES.sub(b"", output).decode(errors="replace")
    left = _CONTROLS.findall(rest)
    demand(not left, f"reached the terminal: {sorted(set(left))!r}")
    forged = [line for line in rest.splitlines() if line.startswith("[08:00:00] boss")]
    demand(not forged, f"looks like somebody else's line: {forged}")


CHECKS: dict[str, Check] = {
    "the client refuses bad certificates": check_the_client_refuses_bad_certificates,
    "escapes do nothing in the client's terminal": check_escapes_do_nothing,
}
