"""Parley itself, as `parley up` starts it with deploy/config/bench.toml: durable, synced before the acknowledgement."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from pathlib import Path

from tests.bench.link import Link
from tests.bench.server import Server, descendants

CONFIG = Path(__file__).resolve().parents[3] / "deploy" / "config" / "bench.toml"
PASSWORD = "a benchmark password"

_LOGIN_ATTEMPTS = 100
_LOGIN_PAUSE_S = 0.1


def frame(kind: str, data: dict[str, object], **envelope: object) -> bytes:
    """A JSON frame of the client protocol."""
    payload = json.dumps({"type": kind, **envelope, "data": data}, separators=(",", ":")).encode()
    return len(payload).to_bytes(4, "big") + payload


class Parley(Server):
    """The whole stack on one core."""

    name = "parley"
    keeps = "yes, synced"
    confirmation = b'"type":"success"'

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._room_ids: dict[str, str] = {}
        self._creating = asyncio.Lock()

    @classmethod
    def is_installed(cls) -> bool:
        return True

    async def start(self) -> None:
        self.program = str(Path(sys.executable).parent / "parley")
        self.spawn("up", "--home", str(self.home), "--port", str(self.port), "--config", str(CONFIG))
        deadline = time.monotonic() + 60
        while b"\nready" not in b"\n" + (self.home / "output.log").read_bytes():
            assert self.process is not None
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"parley did not start: see {self.home}/output.log")
            await asyncio.sleep(0.05)
        stack = json.loads((self.home / "run" / "stack.json").read_text())
        self._edge_pids = [one["pid"] for one in stack["processes"] if one["name"].startswith("edge-")]
        self._names = {one["pid"]: one["name"].partition("-")[0] for one in stack["processes"]}
        self._telemetry = [one["prometheus"] for one in stack["processes"] if one["name"].startswith("edge-")]
        self.context = ssl.create_default_context(cafile=stack["client_ca"])

    async def own_figures(self) -> dict[str, float]:
        """The longest that anything has held up an edge's event loop, from its start on: logins and joins count too."""
        longest_s = 0.0
        for address in self._telemetry:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = (await reader.read(-1)).decode()
            writer.close()
            found = re.search(r"^parley_edge_loop_lateness_max(?:_seconds)? (\S+)", text, re.MULTILINE)
            if found is None:
                raise RuntimeError("the edge does not say how late its loop was")
            longest_s = max(longest_s, float(found[1]))
        return {"edge_stall_max_ms": longest_s * 1000}

    def names(self) -> dict[int, str]:
        return {pid: self._names.get(pid, "others") for pid in self.pids()}

    def room_id(self, name: str) -> str:
        """The id of a room that somebody has joined here."""
        return self._room_ids[name]

    def connection_pids(self) -> list[int]:
        return [pid for edge in self._edge_pids for pid in descendants(edge)]

    async def open(self, user: str) -> Link:
        link = await self.connect()
        credentials: dict[str, object] = {"username": user, "password": PASSWORD}
        link.write(frame("hello", {"protocol": 2, "client": "bench/1"}) + frame("auth_request", credentials))
        answer = await self._login_answer(link)
        if b'"invalid_credentials"' in answer:
            link.write(frame("register_request", credentials))
            answer = await link.until(b'"register_response"')
            if b'"success":true' not in answer:
                raise RuntimeError(f"register: {answer!r}")
            link.write(frame("auth_request", credentials))
            answer = await self._login_answer(link)
        for _ in range(_LOGIN_ATTEMPTS):
            if b'"rate_limited"' in answer:  # too many at once: it says when to come again
                await asyncio.sleep(float(answer.split(b'"retry_after_s":')[1].partition(b"}")[0]))
            elif b'"already_logged_in"' in answer:  # an earlier connection was cut, and the edge has not read that far
                await asyncio.sleep(_LOGIN_PAUSE_S)
            else:
                break
            link.write(frame("auth_request", credentials))
            answer = await self._login_answer(link)
        if b'"success":true' not in answer:
            raise RuntimeError(f"login: {answer!r}")
        return link

    async def _login_answer(self, link: Link) -> bytes:
        seen = await link.until(b'"auth_response"')
        while not seen.endswith(b"}"):
            seen += await link.until(b"}")
        return seen

    async def join(self, link: Link, room: str) -> None:
        async with self._creating:
            if room not in self._room_ids:
                link.write(frame("create_room", {"name": room}, id="c"))
                answer = await link.until(b'"re":"c"')
                self._room_ids[room] = answer.split(b'"room_id":"')[1].split(b'"')[0].decode()
                return
        link.write(frame("join_room", {}, id="j", room_id=self._room_ids[room]))
        answer = await link.until(b'"re":"j"')
        if b'"success"' not in answer:
            raise RuntimeError(f"join: {answer!r}")

    def publish(self, link: Link, room: str, text: bytes) -> bytes:
        payload = b'{"type":"text_message","id":1,"room_id":"%b","data":{"text":"%b"}}' % (
            self._room_ids[room].encode(),
            text,
        )
        return len(payload).to_bytes(4, "big") + payload
