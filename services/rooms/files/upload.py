"""One upload: takes pieces as they come, stores what has queued up together, and ends when everything is there.

Pieces are put into a queue of bounded size; whatever has queued up while the batch before was being written, hashed and
synced is the next batch. So a slow sender is acknowledged at once, and with a fast one a sync is shared by megabytes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode

if TYPE_CHECKING:
    from services.rooms.files.contents import Part
    from services.rooms.files.store import FileRecord

PIECE_BYTES_MAX: Final = 1024 * 1024
"""In one request: larger ones bring nothing more, and each is held once by gRPC and once here."""

WAITING_BYTES_MAX: Final = 2 * 1024 * 1024
"""What waits while a batch is written, which is at most as much again: with the piece that did not fit any more an
upload takes 5 MiB at the very most."""

WAITING_PIECES_MAX: Final = 1_024
"""So that tiny pieces do not cost much more than they hold."""


class Upload:
    """The bytes of one file on their way to a part. `record` is what was offered.

    It can be told to fail from the moment on when it is made; pieces come after `start`.
    """

    def __init__(self, record: FileRecord) -> None:
        self.record = record
        self.part: Part | None = None
        self.closed = asyncio.Event()
        self.is_settled = False
        """Whether its part is no longer its own: it has become a content, or is gone."""
        self._taken = 0  # where the next piece begins
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._has_ended = False
        self._fault: ParleyError | None = None
        self._something_waits = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def file_id(self) -> str:
        """Which file it is."""
        return self.record.file.file_id

    @property
    def fault(self) -> ParleyError | None:
        """What it was told to fail with."""
        return self._fault

    def start(self, part: Part) -> None:
        """The part is open; what comes goes behind what it has."""
        self.part = part
        self._taken = part.offset

    @property
    def size(self) -> int:
        """How many bytes there will be; at most so many where that is not known before the end."""
        return self.record.file.size

    @property
    def is_open_ended(self) -> bool:
        """Whether size and hash are known only at the end."""
        return not self.record.file.sha256

    @property
    def is_taken(self) -> bool:
        """Whether the last byte has come in."""
        return self._has_ended or (not self.is_open_ended and self._taken == self.size)

    def take(self, offset: int, data: bytes, *, is_last: bool) -> None:
        """A piece has come in. Raises ParleyError bad_request where it does not belong here."""
        if data and self.is_taken:
            raise _bad_request("nothing belongs behind the end of a file")
        if data and offset != self._taken:
            raise _bad_request(f"the next piece begins at {self._taken}, not at {offset}")
        if len(data) > PIECE_BYTES_MAX:
            raise _bad_request(f"a piece has at most {PIECE_BYTES_MAX} bytes")
        if self._taken + len(data) > self.size:
            raise _bad_request(f"the file ends at {self.size}")
        if data:
            self._taken += len(data)
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes >= WAITING_BYTES_MAX or len(self._waiting) >= WAITING_PIECES_MAX:
                self._has_room.clear()
        if is_last:
            if not self.is_open_ended and self._taken != self.size:
                raise _bad_request(f"the file has {self.size} bytes, and {self._taken} have come")
            self._has_ended = True
        self._something_waits.set()

    async def wait_for_room(self) -> None:
        """Returns when another piece may come in."""
        await self._has_room.wait()

    def fail(self, fault: ParleyError) -> None:
        """Ends the upload with this error, behind what has come in before. The first one counts."""
        if self._fault is None:
            self._fault = fault
        self._something_waits.set()
        self._has_room.set()

    async def store(self) -> int | None:
        """Stores what waits, or what comes next; returns the offset up to which all is synced, None at the end.

        Raises what the upload was told to fail with, and what the part raises.
        """
        while not self._waiting:
            if self.is_taken:  # whatever came behind the end
                return None
            if self._fault is not None:
                raise self._fault
            self._something_waits.clear()
            await self._something_waits.wait()
        assert self.part is not None, "pieces come after start"
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._has_room.set()
        return await self.part.append(batch)

    async def close(self) -> None:
        """No more pieces come. Returns when nothing is being written any more."""
        self.fail(ParleyError(ErrorCode.UNAVAILABLE, "the upload has ended"))
        try:
            if self.part is not None:
                await self.part.close()
        finally:
            self.closed.set()


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)
