"""An upload: what a client sends goes on to be stored, as much at a time as has come in while the piece before was
under way.

An upload whose client is gone is not thrown away: what has come in is still stored, so that the client goes on behind
it and sends next to nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.files.pace import PIECE_BYTES, GiveWay
from services.edge.files.ports import UploadStream
from services.edge.files.windows import Incoming

PIECE_BYTES_MAX: Final = 1024 * 1024
"""In one request to rooms, which takes no larger ones."""

_FLUSH_S: Final = 5.0
"""How long what has come in may take to be stored when nobody waits for it any more."""


class Upload:
    """One file from a client to rooms. `on_stored(offset)` hears what is safely stored."""

    def __init__(
        self,
        incoming: Incoming,
        stream: UploadStream,
        *,
        on_stored: Callable[[int], object],
        give_way: GiveWay,
        idle_s: float,
        clock: Clock,
    ) -> None:
        self._incoming = incoming
        self._stream = stream
        self._on_stored = on_stored
        self._give_way = give_way
        self._idle_s = idle_s
        self._clock = clock
        self._has_ended = False  # nothing more comes
        self._is_complete = False  # what has come is the whole file
        self._fault: ParleyError | None = None
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def receive(self, offset: int, data: bytes) -> str | None:
        """A chunk has come in; returns what is wrong with it."""
        fault = self._incoming.receive(offset, data)
        if fault is None:
            self._changed.set()
        return fault

    def complete(self) -> None:
        """What has come in is the whole file: for uploads whose size nobody knew."""
        self._has_ended = self._is_complete = True
        self._changed.set()

    def end(self) -> None:
        """Nothing more comes; what has come is stored."""
        self._has_ended = True
        self._changed.set()
        self._taken.set()

    def cancel(self) -> None:
        """End it at once."""
        self._stream.cancel()

    async def wait_until_below(self, count: int) -> None:
        """Until no more than `count` bytes wait to go on, or nothing goes on any more."""
        while self._incoming.waiting_bytes > count and not self._has_ended:
            self._taken.clear()
            await self._taken.wait()

    async def run(self) -> int:
        """Work until the file is posted; returns the message's seq. Raises ParleyError where it is not."""
        writer = asyncio.create_task(self._write(), name="upload writer")
        try:
            while (progress := await self._stream.read()) is not None:
                self._incoming.store(progress.offset)
                self._on_stored(progress.offset)
                if progress.seq is not None:
                    return progress.seq
            raise ParleyError(ErrorCode.UNAVAILABLE, "the upload was broken off", retry_after_s=1.0)
        except ParleyError:
            if self._fault is not None:
                raise self._fault from None
            raise
        finally:
            self.end()
            self._stream.cancel()
            writer.cancel()
            await asyncio.wait([writer])
            if not writer.cancelled():
                writer.exception()  # what ended the writer ended the stream, and the reader knows why

    async def _write(self) -> None:
        incoming, stream = self._incoming, self._stream
        has_begun = False
        while True:
            if incoming.waiting_bytes or (incoming.is_received and not has_begun):
                offset, data = incoming.take(PIECE_BYTES if self._give_way.is_talking() else PIECE_BYTES_MAX)
                await self._give_way.step(len(data))
                await stream.write(offset, data, is_last=False)
                has_begun = True
                self._taken.set()
            elif incoming.is_taken and not self._is_complete:
                return
            elif self._has_ended:
                break
            else:
                await self._wait_for_more()
        if self._is_complete:
            await stream.write(incoming.taken, b"", is_last=True)
            return
        with contextlib.suppress(ParleyError):
            await stream.finish_writing()
            await self._clock.sleep(_FLUSH_S)
        stream.cancel()

    async def _wait_for_more(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(self._idle_s):
                await self._changed.wait()
        except TimeoutError:
            self._fault = ParleyError(ErrorCode.UNAVAILABLE, "nothing has come for too long")
            self._has_ended = True
