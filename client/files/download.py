"""A download on one connection: ask from where it stopped, write what comes, and give it its name when it is right."""

from __future__ import annotations

import asyncio
from pathlib import Path

from client.errors import ProtocolError, RequestError
from client.files.answers import FileInfo
from client.files.attempt import Attempt, Lane
from client.files.names import safe_name
from client.files.saving import Part
from client.files.threads import in_thread
from client.files.transfer import Phase, Transfer
from client.files.windows import Incoming
from client.replies import read
from services.common.wire.envelope import ServerEnvelope


class Download(Attempt):
    """See the module. `part` is what came in over earlier connections of this run; it is the caller's to close."""

    def __init__(self, transfer: Transfer, lane: Lane, part: Part | None) -> None:
        super().__init__(transfer, lane)
        self.part = part
        self._window: Incoming | None = None
        self._pieces: list[bytes] = []

    @property
    def is_coming(self) -> bool:
        """Whether the server may still send it."""
        return self._window is not None and not self._window.is_written and not isinstance(self._fault, RequestError)

    def receive(self, offset: int, data: bytes) -> None:
        """A chunk has come."""
        if self._window is None or self._fault is not None:
            return
        if (fault := self._window.receive(offset, len(data))) is not None:
            self.fail(ProtocolError(f"The server broke the protocol: {fault}."))
            return
        self._pieces.append(data)
        self._changed.set()

    async def run(self) -> None:
        """Works until the file has its name. Raises ClientError."""
        entry = self.transfer.entry
        if self.part is None and entry.part and entry.sha256:
            self.part = await in_thread(self._open)
        offset = self.part.offset if self.part else 0
        self.transfer.allowance.begin(offset)
        request = {"file_id": entry.file_id, "offset": offset, "window": self._allowed()}
        await self._lane.connection.call("file_get", request, then=lambda answer: self._begin(answer, offset))
        entry.wanted = entry.wanted or safe_name(entry.name)
        await self._lane.keep()  # before there is something that another run would have to remove
        if self.part is None:
            self.part = await in_thread(self._open)
        self.transfer.enter(Phase.MOVING)
        self._moved(offset)
        await self._take(self.part)
        path = await in_thread(self.part.finish, entry.wanted, entry.sha256)
        self.transfer.saved_as = str(path)

    def _open(self) -> Part:
        entry = self.transfer.entry
        return Part(Path(entry.path), entry.part, size=entry.size)

    def _begin(self, envelope: ServerEnvelope, offset: int) -> None:
        info, entry = read(envelope.data, FileInfo), self.transfer.entry
        if entry.sha256 and (info.size, info.sha256) != (entry.size, entry.sha256):
            raise ProtocolError("The server has another file under this id by now.")
        if not 0 <= offset <= info.size:
            raise ProtocolError("The server broke the protocol: a file of an impossible size.")
        entry.name, entry.size, entry.sha256 = info.name, info.size, info.sha256
        self._expect(offset)
        self._window = Incoming(size=info.size, offset=offset, window=self._lane.window_bytes)
        self._lane.attach(entry.file_id, self)

    async def _take(self, part: Part) -> None:
        window = self._window
        assert window is not None, "the answer has come"
        try:
            while not window.is_written:
                if self._pieces:
                    await self._write(part, window)
                    continue
                self._check()
                await self._wait()
        except asyncio.CancelledError:
            if self._pieces:  # the connection is lost, and what had come over it need not come again
                await self._write(part, window)
            raise

    async def _write(self, part: Part, window: Incoming) -> None:
        pieces, self._pieces = self._pieces, []
        count = sum(map(len, pieces))
        await in_thread(part.append, pieces)
        self.transfer.sent_bytes += count
        offset = window.write(count)
        self.transfer.allowance.reached(offset)
        news = {"file_id": self.transfer.entry.file_id, "offset": offset, "window": self._allowed()}
        self._expect(offset)
        self._lane.connection.tell("file_ack", news)
        self._moved(offset)

    def _expect(self, offset: int) -> None:
        """The server may send as much as is allowed ahead of `offset`, and may have done so when the link is cut."""
        self.transfer.allowance.went(min(self.transfer.size, offset + self._allowed()))
