"""An upload on one connection: hash the file, offer it, and send what the server lacks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Final

from client.errors import ClientError, ProtocolError
from client.files.answers import Offered
from client.files.attempt import Attempt
from client.files.errors import FileChangedError, FileError
from client.files.progress import size_text
from client.files.source import Source
from client.files.threads import in_thread
from client.files.transfer import Phase
from client.files.windows import Outgoing
from client.replies import read
from services.common.wire import limits
from services.common.wire.envelope import ServerEnvelope

_READ_BYTES: Final = 4 * limits.MAX_CHUNK_BYTES
"""Read from the disk at a time, and sent before anything else has its turn."""


class Upload(Attempt):
    """See the module."""

    _window: Outgoing | None = None
    _chunk_bytes = limits.MAX_CHUNK_BYTES
    _is_finished = False

    def acknowledged(self, offset: int) -> None:
        """The server has stored everything before `offset`."""
        if self._window is not None:
            if (fault := self._window.store(offset)) is not None:
                self.fail(ProtocolError(f"The server broke the protocol: {fault}."))
                return
            self.transfer.allowance.reached(self._window.stored)
            self._window.window = self._allowed()
            self._moved(self._window.stored)
            self._changed.set()

    def finished(self) -> None:
        """The server has posted the file."""
        self._is_finished = True
        self._moved(self.transfer.size)
        self._changed.set()

    async def run(self) -> None:
        """Works until the file is posted. Raises ClientError."""
        source = await in_thread(Source, Path(self.transfer.entry.path))
        try:
            await self._identify(source)
            await self._offer()
            self.transfer.enter(Phase.MOVING)
            await self._lane.keep()
            await self._send(source)
            while not self._is_finished:
                self._check()
                await self._wait()
        finally:
            source.close()

    async def _identify(self, source: Source) -> None:
        entry = self.transfer.entry
        if entry.sha256:
            if (source.size, source.mtime_ns) != (entry.size, entry.mtime_ns):
                raise FileChangedError(f"{source.path} has changed since it began to be sent.")
            return
        if source.size > self._lane.server.max_file_bytes:
            most = size_text(self._lane.server.max_file_bytes)
            raise FileError(f"{source.path} has {size_text(source.size)}, and this server takes {most} at most.")
        self.transfer.enter(Phase.HASHING)
        entry.size = source.size
        digest, offset = hashlib.sha256(), 0
        while offset < source.size:
            offset = await in_thread(source.hash_into, digest, offset)
            self._moved(offset)
        source.check_unchanged()
        entry.mtime_ns, entry.sha256 = source.mtime_ns, digest.hexdigest()
        await self._lane.keep()

    async def _offer(self) -> None:
        entry = self.transfer.entry
        data = {
            "name": entry.name,
            "size": entry.size,
            "sha256": entry.sha256,
            "mime": entry.mime,
            "transfer_id": entry.transfer_id,
        }
        offer = asyncio.ensure_future(
            self._lane.connection.call("file_offer", data, room_id=entry.room_id, then=self._take_offer)
        )
        try:
            await asyncio.shield(offer)
        except asyncio.CancelledError:
            # The server knows of it from here on, so whoever cancels it has to know by which id.
            with contextlib.suppress(ClientError):
                await offer
            raise

    def _take_offer(self, envelope: ServerEnvelope) -> None:
        offered, entry = read(envelope.data, Offered), self.transfer.entry
        if not 0 <= offered.offset <= entry.size:
            raise ProtocolError("The server broke the protocol: it has more of the file than there is.")
        entry.file_id = offered.file_id
        self._chunk_bytes = min(max(1, offered.chunk_bytes), limits.MAX_CHUNK_BYTES)
        self.transfer.allowance.begin(offered.offset)
        self._window = Outgoing(size=entry.size, offset=offered.offset, window=self._allowed())
        self._lane.attach(offered.file_id, self)
        self._moved(offered.offset)

    async def _send(self, source: Source) -> None:
        window, connection = self._window, self._lane.connection
        assert window is not None, "the offer was taken"
        file_id = bytes.fromhex(self.transfer.entry.file_id)
        while not window.is_sent:
            self._check()
            count = window.room(min(_READ_BYTES, window.block_bytes))
            if count == 0:
                await self._wait()
                continue
            data = memoryview(await in_thread(source.read, window.sent, count))
            for start in range(0, count, self._chunk_bytes):
                piece = data[start : start + self._chunk_bytes]
                connection.send_chunk(file_id, window.send(len(piece)), piece)
            self.transfer.allowance.went(window.sent)
            self.transfer.sent_bytes += count
            await connection.drained()
        source.check_unchanged()
