"""A download: the bytes of a file go to a client as fast as it acknowledges them, a little at a time.

Chunks wait in the outbox's lowest lane, and only a few of them: whatever is more urgent goes before them, and what the
client does not take stays at rooms. Downloads of one connection take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.common.errors import ParleyError
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import encode_chunk
from services.edge.files.pace import GiveWay
from services.edge.files.ports import DownloadStream
from services.edge.files.windows import Outgoing

_POST_BYTES: Final = 2 * limits.MAX_CHUNK_BYTES
"""Posted at a time: as much as the system takes at once, and far from what makes a slow consumer."""


class Download:
    """One file from rooms to a client.

    `post(frame)` queues a frame, `drained()` waits until few are queued; `turn` is held meanwhile.
    """

    def __init__(
        self,
        file_id: bytes,
        stream: DownloadStream,
        outgoing: Outgoing,
        *,
        post: Callable[[bytes], object],
        drained: Callable[[], Awaitable[None]],
        give_way: GiveWay,
        turn: asyncio.Lock,
        idle_s: float,
    ) -> None:
        self._file_id = file_id
        self._stream = stream
        self._outgoing = outgoing
        self._post = post
        self._drained = drained
        self._give_way = give_way
        self._turn = turn
        self._idle_s = idle_s
        self._is_ended = False
        self._changed = asyncio.Event()

    @property
    def is_acknowledged(self) -> bool:
        """Whether the client has all that was sent."""
        return self._outgoing.acknowledged == self._outgoing.sent

    def acknowledge(self, offset: int, window: int | None = None) -> int:
        """The client has everything before `offset` and allows such a `window`; returns how much of that is news."""
        before = self._outgoing.acknowledged
        self._outgoing.allow(window)
        if not self._outgoing.acknowledge(offset):
            return 0
        self._changed.set()
        return offset - before

    def end(self) -> None:
        """The client does not want it any more, or is gone."""
        self._is_ended = True
        self._changed.set()
        self._stream.cancel()

    async def run(self) -> bool:
        """Work until everything is sent; returns whether it is. Raises ParleyError where it cannot be."""
        try:
            while (block := await self._stream.read()) is not None:
                view = memoryview(block)
                start = 0
                while start < len(view):
                    room = await self._room(len(view) - start)
                    if self._is_ended:
                        return False
                    async with self._turn:
                        await self._give_way.step(min(room, _POST_BYTES))
                        await self._drained()
                        if self._is_ended:
                            return False
                        start = self._send(view, start, min(room, _POST_BYTES))
        except ParleyError:
            if self._is_ended:
                return False
            raise
        finally:
            self._stream.cancel()
        return True

    def _send(self, view: memoryview, start: int, room: int) -> int:
        """Posts chunks from `start` on, at most `room` bytes; returns where the next one begins."""
        end = min(len(view), start + room)
        while start < end:
            data = view[start : min(end, start + limits.MAX_CHUNK_BYTES)]
            offset = self._outgoing.send(len(data))
            self._post(encode_chunk(self._file_id, offset, data))
            start += len(data)
        return start

    async def _room(self, wanted: int) -> int:
        """How much may be sent now: a whole chunk, or what is left of the block."""
        wanted = min(wanted, limits.MAX_CHUNK_BYTES, self._outgoing.block_bytes)
        while self._outgoing.room < wanted and not self._is_ended:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle_s):
                    await self._changed.wait()
            except TimeoutError:
                raise ParleyError(ErrorCode.UNAVAILABLE, "nothing was acknowledged for too long") from None
        return self._outgoing.room
