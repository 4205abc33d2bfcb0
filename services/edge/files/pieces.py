"""Files from version-1 clients: pieces in base64, one after the other, that become an upload of a size unknown before.

Such a client hears nothing until a transfer has failed or its last piece is stored. It cannot be told to wait, so its
connection is not read while too much waits to go on; and a transfer that has failed once is passed over to its end.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from services.common.errors import ParleyError
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import FileTransfer
from services.edge.files.desk import Desk
from services.edge.files.ports import Offer, Offered
from services.edge.files.uploads import Upload
from services.edge.files.windows import Incoming

TRANSFERS_MAX: Final = 4
"""At one time: version-1 clients send one file after the other."""

_WAITING_BYTES_MAX: Final = 512 * 1024
"""What waits to go on before the next piece is looked at."""

_FAILED_MAX: Final = 64


class _Transfer:
    __slots__ = ("incoming", "next_number", "offered", "task", "total", "upload")

    def __init__(self, offered: Offered, incoming: Incoming, upload: Upload, total: int) -> None:
        self.offered = offered
        self.incoming = incoming
        self.upload = upload
        self.total = total
        self.next_number = 0
        self.task: asyncio.Task[int | ParleyError] | None = None


class Pieces:
    """The files that one version-1 client is sending."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._transfers: dict[str, _Transfer] = {}
        self._failed: dict[str, None] = {}

    async def receive(self, room: str, request: FileTransfer, *, size_max: int) -> dict[str, Any] | None:
        """Take a piece; returns what to say when it was the last one. Raises ParleyError, once for each transfer."""
        transfer_id = request.transfer_id
        if transfer_id in self._failed and request.chunk_num:
            return None
        try:
            transfer = self._transfers.get(transfer_id)
            if transfer is None:
                transfer = await self._begin(room, request, size_max)
            return await self._take(transfer, request)
        except ParleyError:
            self._drop(transfer_id)
            raise

    async def _begin(self, room: str, request: FileTransfer, size_max: int) -> _Transfer:
        if request.chunk_num:
            raise _bad_request("a transfer begins with chunk 0")
        desk, rules = self._desk, self._desk.rules
        self._failed.pop(request.transfer_id, None)
        piece_bytes = len(request.content())
        size = min(request.total_chunks * max(piece_bytes, limits.MAX_V1_PIECE_BYTES), size_max)
        if request.total_chunks > 2 and (request.total_chunks - 1) * piece_bytes > size_max:
            raise ParleyError(ErrorCode.TOO_LARGE, f"a file has at most {size_max} bytes")
        offer = Offer(
            name=request.filename, size=size, transfer_id=request.transfer_id, piece_bytes=piece_bytes
        )  # the hash is known at the end
        offered = await rules.backend.offer(desk.user, room, offer)
        if desk.is_closed:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the sender has gone")
        rules.uploads.take(len(self._transfers) + max(0, rules.uploads.per_connection - TRANSFERS_MAX))
        incoming = Incoming(size=size, offset=0, window=size)
        upload = Upload(
            incoming,
            rules.backend.open_upload(desk.user, offered),
            on_stored=lambda _: None,
            give_way=rules.give_way,
            idle_s=rules.idle_s,
            clock=rules.clock,
        )
        transfer = self._transfers[request.transfer_id] = _Transfer(offered, incoming, upload, request.total_chunks)
        transfer.task = rules.tasks.spawn(_quietly(upload), name="upload of version 1")
        transfer.task.add_done_callback(rules.uploads.give_back)
        return transfer

    async def _take(self, transfer: _Transfer, request: FileTransfer) -> dict[str, Any] | None:
        if transfer.task is not None and transfer.task.done():
            await self._outcome(transfer)
        if (request.chunk_num, request.total_chunks) != (transfer.next_number, transfer.total):
            raise _bad_request(f"chunk {transfer.next_number} of {transfer.total} is the next one")
        data = request.content()
        transfer.next_number += 1
        if data and (fault := transfer.upload.receive(transfer.incoming.received, data)) is not None:
            raise _bad_request(fault)
        self._desk.rules.bytes_in.add(len(data))
        if transfer.next_number < transfer.total:
            await transfer.upload.wait_until_below(_WAITING_BYTES_MAX)
            return None
        transfer.upload.complete()
        seq = await self._outcome(transfer)
        del self._transfers[request.transfer_id]
        return {"transfer_id": request.transfer_id, "file_id": transfer.offered.file_id, "seq": seq}

    async def _outcome(self, transfer: _Transfer) -> int:
        assert transfer.task is not None  # set when it was made
        await asyncio.wait([transfer.task])
        result = transfer.task.result()
        if isinstance(result, ParleyError):
            raise result
        return result

    def _drop(self, transfer_id: str) -> None:
        transfer = self._transfers.pop(transfer_id, None)
        if transfer is not None:
            transfer.upload.cancel()  # nobody can go on with it, so rooms keeps nothing of it
        self._failed[transfer_id] = None
        while len(self._failed) > _FAILED_MAX:
            del self._failed[next(iter(self._failed))]

    def close(self) -> None:
        """The client is gone."""
        for transfer in self._transfers.values():
            transfer.upload.cancel()
        self._transfers.clear()


async def _quietly(upload: Upload) -> int | ParleyError:
    """An upload whose failure is an ordinary outcome, which somebody may ask for or not."""
    try:
        return await upload.run()
    except ParleyError as error:
        return error


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)
