"""A small client written from docs/protocol.md alone.

It shares no code with the services or the real client, so that both are checked against the protocol and not
against each other. It does what it is told, also what no decent client would.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

Frame = dict[str, Any]
TIMEOUT_S = 20.0  # for one answer; the machine may be busy
FRAME_BYTES_MAX = 65_536


class ClosedError(Exception):
    """The server closed the connection."""


class NoAnswerError(Exception):
    """Nothing that fits came in time."""


def pack(payload: bytes) -> bytes:
    """A frame: four bytes of length, then the payload."""
    return struct.pack(">I", len(payload)) + payload


def encode(frame: Frame) -> bytes:
    return pack(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode())


def tls_context(ca: Path | str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class RawClient:
    """One connection. Frames that nobody waited for stay in `events`, in order, and pieces of files in `chunks`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.events: deque[Frame] = deque()
        self.chunks: list[tuple[str, int, bytes]] = []  # file id, offset, data
        self.received = 0  # frames
        self.username = ""  # after login
        self._ids = itertools.count(1)
        self._size: int | None = None  # of a frame whose payload is not in yet

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        ca: Path | str,
        *,
        hello: bool = True,
        server_name: str = "localhost",
        source: str | None = None,
    ) -> Self:
        """Version 2 with `hello`, version 1 without; from the address `source`."""
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host, port, ssl=tls_context(ca), server_hostname=server_name, local_addr=local),
            TIMEOUT_S,
        )
        client = cls(reader, writer)
        if hello:
            await client.greet()
        return client

    @classmethod
    async def over(cls, connected: socket.socket, ca: Path | str) -> Self:
        """Version 2, over a connection on which something may have been sent already."""
        client = cls(
            *await asyncio.wait_for(
                asyncio.open_connection(sock=connected, ssl=tls_context(ca), server_hostname="localhost"), TIMEOUT_S
            )
        )
        await client.greet()
        return client

    async def greet(self) -> None:
        """The first request of version 2."""
        reply = await self.request("hello", {"protocol": 2, "client": "raw/1"})
        assert reply["type"] == "server_info", reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), TIMEOUT_S)

    def abort(self) -> None:
        """Hangs up without a word."""
        self.writer.transport.abort()

    async def send_bytes(self, data: bytes) -> None:
        """Raises ClosedError where the connection is gone, NoAnswerError where the server does not read on."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), TIMEOUT_S)
        except TimeoutError:
            raise NoAnswerError("the server does not read") from None
        except (ConnectionError, ssl.SSLError) as error:
            raise ClosedError(str(error)) from error

    async def send(self, type_: str, data: Frame | None = None, **envelope: Any) -> None:
        frame: Frame = {"type": type_, **envelope}
        if data is not None:
            frame["data"] = data
        await self.send_bytes(encode(frame))

    async def send_chunk(self, file_id: str, offset: int, data: bytes) -> None:
        """A piece of a file."""
        await self.send_bytes(pack(b"\x01" + bytes.fromhex(file_id) + offset.to_bytes(8, "big") + data))

    async def read_payload(self, timeout_s: float = TIMEOUT_S) -> bytes:
        """One frame from the wire, whatever it holds. Raises ClosedError or NoAnswerError."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._size is None:
                    (self._size,) = struct.unpack(">I", await self.reader.readexactly(4))
                payload = await self.reader.readexactly(self._size)
        except TimeoutError:
            raise NoAnswerError("nothing came") from None
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
            raise ClosedError(str(error)) from error
        self._size = None
        self.received += 1
        return payload

    async def read_chunk(self, timeout_s: float = TIMEOUT_S) -> None:
        """Waits for a piece of a file; other frames stay in `events`."""
        while not self._keep_chunk(payload := await self.read_payload(timeout_s)):
            self.events.append(json.loads(payload))

    def _keep_chunk(self, payload: bytes) -> bool:
        if payload[:1] != b"\x01":
            return False
        self.chunks.append((payload[1:17].hex(), int.from_bytes(payload[17:25], "big"), payload[25:]))
        return True

    async def read(self, timeout_s: float = TIMEOUT_S) -> Frame:
        """One JSON frame from the wire."""
        while self._keep_chunk(payload := await self.read_payload(timeout_s)):
            pass
        assert payload[:1] == b"{", payload[:40]
        assert len(payload) <= FRAME_BYTES_MAX, len(payload)
        frame: Frame = json.loads(payload)
        assert isinstance(frame["type"], str)
        assert isinstance(frame["data"], dict)
        return frame

    async def wait_for(self, is_it: Callable[[Frame], object], timeout_s: float = TIMEOUT_S) -> Frame:
        """The first frame that fits; the others stay in `events`."""
        for index, frame in enumerate(self.events):
            if is_it(frame):
                del self.events[index]
                return frame
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise NoAnswerError(f"did not come; instead: {list(self.events)[-5:]}")
            try:
                frame = await self.read(left_s)
            except NoAnswerError:
                raise NoAnswerError(f"did not come; instead: {list(self.events)[-5:]}") from None
            if is_it(frame):
                return frame
            self.events.append(frame)

    async def event(self, type_: str, timeout_s: float = TIMEOUT_S, **data: Any) -> Frame:
        """The first frame of that type whose data has these values."""
        return await self.wait_for(
            lambda frame: frame["type"] == type_ and all(frame["data"].get(k) == v for k, v in data.items()), timeout_s
        )

    async def request(
        self, type_: str, data: Frame | None = None, *, timeout_s: float = TIMEOUT_S, **envelope: Any
    ) -> Frame:
        """Sends a request and returns its reply, which is the frame with our id in `re`."""
        own = envelope.setdefault("id", next(self._ids))
        await self.send(type_, data, **envelope)
        return await self.wait_for(lambda frame: frame.get("re") == own, timeout_s)

    async def expect(self, type_: str, data: Frame | None = None, **envelope: Any) -> Frame:
        """The data of a successful reply."""
        reply = await self.request(type_, data, **envelope)
        assert reply["type"] != "error", reply
        assert reply["data"].get("success", True) is True, reply
        return dict(reply["data"])

    async def refused(self, type_: str, data: Frame | None = None, **envelope: Any) -> str:
        """The code of a refusal."""
        reply = await self.request(type_, data, **envelope)
        assert reply["type"] == "error" or reply["data"].get("success") is False, reply
        return str(reply["data"]["code"])

    async def enter(self, username: str, password: str = "correct horse battery") -> Frame:
        """Registers where necessary, and logs in; the data of auth_response."""
        reply = await self.request("register_request", {"username": username, "password": password})
        assert reply["data"]["success"] or reply["data"]["code"] == "username_taken", reply
        return await self.login(username, password)

    async def login(self, username: str, password: str = "correct horse battery") -> Frame:
        answer = await self.expect("auth_request", {"username": username, "password": password})
        self.username = answer["username"]
        return answer

    async def say(self, room_id: str, text: str, **data: Any) -> Frame:
        """Sends a text and waits until it is acknowledged."""
        return await self.expect("text_message", {"text": text, **data}, room_id=room_id)

    async def messages(self, room_id: str, count: int, timeout_s: float = TIMEOUT_S) -> list[Frame]:
        """The next `count` live messages of the room."""
        found: list[Frame] = []
        while len(found) < count:
            found += await self.some_messages(room_id, timeout_s)
        assert len(found) == count, found
        return found

    async def some_messages(self, room_id: str, timeout_s: float = TIMEOUT_S) -> list[Frame]:
        """The live messages of the room that the next frame brings."""
        frame = await self.wait_for(
            lambda f: f["type"] == "messages" and f.get("room_id") == room_id and "re" not in f, timeout_s
        )
        messages: list[Frame] = frame["data"]["messages"]
        return messages

    async def is_closed(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Reads on until the server closes; what it says until then stays in `events`."""
        try:
            while True:
                self.events.append(await self.read(timeout_s))
        except ClosedError:
            return True
        except NoAnswerError:
            return False
