"""Files for version-1 clients: when a message with a file comes, they are sent the file itself, cut into pieces.

Where the sender was a version-1 client too, these are the pieces that it sent, under the name that it gave them.
One file after the other goes to a client, as fast as it takes them.
"""

from __future__ import annotations

import base64
from collections import deque
from typing import Any, Final

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.edge.decisions import Reply, failure
from services.edge.dispatch import shown_message
from services.edge.files.desk import Desk, Transferring
from services.edge.files.ports import FileInfo
from services.edge.qos.classes import QosClass

WAITING_MAX: Final = 64
"""Files that may wait for one client: more than anybody takes in version 1."""

_ATTEMPTS: Final = 5
_RETRY_S: Final = 1.0
_PASSING: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.OVERLOADED})

_log = get_logger(__name__)


class Relay:
    """The files on their way to one version-1 client."""

    def __init__(self, desk: Desk, connection: Transferring) -> None:
        self._desk = desk
        self._connection = connection
        self._waiting: deque[tuple[str, str, str]] = deque()
        self._is_running = False
        self._sent = 0  # pieces of the present file

    def close(self) -> None:
        """The client is gone."""
        self._waiting.clear()

    def add(self, room_id: str, username: str, file_id: str) -> None:
        """A file has been posted to a room that the client sees."""
        if len(self._waiting) >= WAITING_MAX:
            self._refuse(room_id, file_id, ParleyError(ErrorCode.OVERLOADED, "too many files wait for you"))
            return
        self._waiting.append((room_id, username, file_id))
        if not self._is_running:
            self._is_running = True
            self._desk.rules.tasks.spawn(self._run(), name="relay")

    async def _run(self) -> None:
        try:
            while self._waiting:
                room_id, username, file_id = self._waiting.popleft()
                try:
                    await self._bring(room_id, username, file_id)
                except ParleyError as error:
                    self._refuse(room_id, file_id, error)
        finally:
            self._is_running = False

    async def _bring(self, room_id: str, username: str, file_id: str) -> None:
        self._sent = 0
        for attempt in range(_ATTEMPTS):
            try:
                await self._send(room_id, username, file_id)
            except ParleyError as error:
                if error.code not in _PASSING or attempt == _ATTEMPTS - 1:
                    raise
                await self._desk.rules.clock.sleep(_RETRY_S)
            else:
                return

    async def _send(self, room_id: str, username: str, file_id: str) -> None:
        """Sends the pieces that were not sent by an earlier attempt."""
        rules = self._desk.rules
        rules.downloads.take(0)
        stream = rules.backend.open_download(self._desk.user, file_id, 0)
        try:
            info = await stream.describe()
            piece_bytes = min(info.piece_bytes or limits.MAX_V1_PIECE_BYTES, limits.MAX_V1_PIECE_BYTES)
            total = max(1, -(-info.size // piece_bytes))
            held, number, received = bytearray(), 0, 0
            while number < total:
                if len(held) < piece_bytes and received < info.size:
                    block = await stream.read()
                    if not block:
                        raise ParleyError(ErrorCode.UNAVAILABLE, "the file was broken off")
                    received += len(block)
                    held += block
                    continue
                if number == self._sent:
                    await self._connection.drained()
                    if not self._is_wanted(room_id):
                        return
                    self._post(room_id, username, info, number, total, bytes(held[:piece_bytes]))
                    self._sent += 1
                del held[:piece_bytes]
                number += 1
        finally:
            rules.downloads.give_back()
            stream.cancel()

    def _post(self, room_id: str, username: str, info: FileInfo, number: int, total: int, piece: bytes) -> None:
        data: dict[str, Any] = {
            "transfer_id": info.transfer_id or info.file_id,
            "filename": info.name,
            "chunk_num": number,
            "total_chunks": total,
            "data": base64.b64encode(piece).decode("ascii"),
            "username": username,
        }
        self._desk.rules.bytes_out.add(len(piece))
        self._connection.reply(Reply("file_chunk", data, room_id=room_id, lane=QosClass.LOW))

    def _is_wanted(self, room_id: str) -> bool:
        subscriber = self._connection.subscriber
        return not self._desk.is_closed and subscriber is not None and room_id in subscriber.rooms

    def _refuse(self, room_id: str, file_id: str, error: ParleyError) -> None:
        if self._is_wanted(room_id):
            _log.warning("file not relayed", file_id=file_id, code=error.code, connection_id=self._connection.id)
            text = f"a file could not be sent to you: {shown_message(error)}"
            details = {"file_id": file_id}
            self._connection.reply(failure(None, None, error.code, text, room_id=room_id, details=details))
