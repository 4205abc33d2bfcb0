"""The fake edge's files: offers, chunks and acknowledgements from memory, which break when a test tells them to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.common.wire import requests
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk, encode_chunk

if TYPE_CHECKING:
    from tests.helpers.fake_edge import FakeConnection, FakeEdge, FakeRoom


@dataclass
class FakeFile:
    file_id: str
    room: FakeRoom
    sender: str
    offer: requests.FileOffer
    data: bytearray = field(default_factory=bytearray)
    seq: int = 0
    is_available: bool = True

    @property
    def info(self) -> dict[str, Any]:
        offer = self.offer
        return {
            "file_id": self.file_id,
            "name": offer.name,
            "size": offer.size,
            "sha256": offer.sha256,
            "mime": offer.mime,
        }


@dataclass
class Sending:
    """A download under way."""

    file: FakeFile
    connection: FakeConnection
    sent: int
    acknowledged: int


class FakeFileDesk:
    """All files of a fake edge; attributes are the levers of the tests."""

    def __init__(self, edge: FakeEdge) -> None:
        self.edge = edge
        self.files: dict[str, FakeFile] = {}
        self.downloads: list[Sending] = []
        self.window = 1_048_576
        self.stores = True
        """False: chunks come in, and nothing is acknowledged."""
        self.sends = True
        """False: downloads are answered, and no chunk goes out."""
        self.sends_bytes_max: int | None = None
        """Downloads stop there, in all."""
        self.takes_bytes_max: int | None = None
        """The connections are cut when so many bytes of a file have come in."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.is_done_lost = False
        """The next file_done is lost, and the connection with it."""
        self.acknowledgements: list[int] = []
        self.cancelled: list[str] = []
        self.spoils: list[str] = []
        """Ids of files of which wrong bytes are sent."""

    def add(self, room: FakeRoom, sender: str, name: str, data: bytes, **changes: Any) -> FakeFile:
        """A file that is posted already."""
        fields = {"room_id": room.room_id, "name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        offer = requests.FileOffer(**{**fields, **changes})
        file = self._new(room, sender, offer)
        file.data += data
        self._post(file)
        return file

    def _new(self, room: FakeRoom, sender: str, offer: requests.FileOffer) -> FakeFile:
        file_id = f"{len(self.files) + 1:08x}{'0' * 24}"
        file = self.files[file_id] = FakeFile(file_id, room, sender, offer)
        return file

    def _post(self, file: FakeFile) -> None:
        if not file.seq:
            file.seq = self.edge.say(file.room, file.sender, "", file=file.info).seq

    def offer(self, connection: FakeConnection, request: requests.FileOffer, re: Any) -> None:
        room = self.edge.rooms.get(request.room_id)
        if room is None or connection.username not in room.members:
            connection.refuse(re, ErrorCode.NOT_A_MEMBER)
            return
        file = self._earlier(connection.username, request) or self._new(room, connection.username, request)
        offset = request.size if file.seq else len(file.data)
        connection.event("success", {"file_id": file.file_id, "offset": offset, "chunk_bytes": 65_536}, re=re)
        if offset == request.size:
            self._finish(connection, file)

    def _earlier(self, sender: str, request: requests.FileOffer) -> FakeFile | None:
        for file in self.files.values():
            is_same = (file.sender, file.offer.sha256, file.offer.name) == (sender, request.sha256, request.name)
            if is_same and (not file.seq or file.offer.transfer_id == request.transfer_id):
                return file
        return None

    def take(self, connection: FakeConnection, chunk: Chunk) -> None:
        file = self.files.get(chunk.file_id.hex())
        if file is None:
            return
        assert file.sender == connection.username
        assert chunk.offset == len(file.data), "chunks come in order"
        file.data += chunk.data
        self.received_bytes += len(chunk.data)
        if self.takes_bytes_max is not None and self.received_bytes >= self.takes_bytes_max:
            self.takes_bytes_max = None
            self.edge.cut()
            return
        if not self.stores:
            return
        connection.event("file_ack", {"file_id": file.file_id, "offset": len(file.data)})
        if len(file.data) == file.offer.size:
            self._finish(connection, file)

    def _finish(self, connection: FakeConnection, file: FakeFile) -> None:
        if not file.seq and hashlib.sha256(file.data).hexdigest() != file.offer.sha256:
            del self.files[file.file_id]
            self.fail(connection, file, ErrorCode.HASH_MISMATCH)
            return
        self._post(file)
        if self.is_done_lost:
            self.is_done_lost = False
            self.edge.cut()
            return
        connection.event("file_done", {"file_id": file.file_id, "seq": file.seq})

    def fail(self, connection: FakeConnection, file: FakeFile, code: ErrorCode) -> None:
        connection.event("error", {"file_id": file.file_id, "code": code.value, "error": f"refused: {code}"})

    def get(self, connection: FakeConnection, request: requests.FileGet, re: Any) -> None:
        file = self.files.get(request.file_id)
        if file is None or not file.seq or not file.is_available:
            connection.refuse(re, ErrorCode.NO_SUCH_FILE)
            return
        connection.event("success", file.info, re=re)
        sending = Sending(file, connection, request.offset, request.offset)
        self.downloads.append(sending)
        self._pump(sending)

    def _pump(self, sending: Sending) -> None:
        file = sending.file
        limit = self.sends_bytes_max
        while (
            self.sends
            and (limit is None or self.sent_bytes < limit)
            and sending.sent < len(file.data)
            and sending.sent + 65_536 - sending.acknowledged <= self.window
        ):
            data = bytes(file.data[sending.sent : sending.sent + 65_536])
            if file.file_id in self.spoils:
                data = bytes(len(data))
            sending.connection.send(encode_chunk(bytes.fromhex(file.file_id), sending.sent, data))
            sending.sent += len(data)
            self.sent_bytes += len(data)

    def acknowledge(self, connection: FakeConnection, request: requests.FileAck) -> None:
        self.acknowledgements.append(request.offset)
        for sending in self.downloads:
            if sending.connection is connection and sending.file.file_id == request.file_id:
                assert request.offset <= sending.sent
                sending.acknowledged = request.offset
                self._pump(sending)

    def cancel(self, connection: FakeConnection, request: requests.FileCancel, re: Any) -> None:
        self.cancelled.append(request.file_id)
        file = self.files.get(request.file_id)
        before = len(self.downloads)
        self.downloads = [one for one in self.downloads if one.file is not file]
        if len(self.downloads) == before:
            if file is None or file.seq:
                connection.refuse(re, ErrorCode.CONFLICT if file else ErrorCode.NO_SUCH_FILE)
                return
            del self.files[request.file_id]
        connection.event("success", {}, re=re)

    def list(self, connection: FakeConnection, request: requests.FileList, re: Any) -> None:
        posted = [
            {**file.info, "username": file.sender, "seq": file.seq, "ts": 1_800_000_000_000, "available": True}
            for file in reversed(self.files.values())
            if file.seq and file.room.room_id == request.room_id and (not request.before or file.seq < request.before)
        ]
        page = posted[: request.limit]
        following = page[-1]["seq"] if len(posted) > len(page) else None
        connection.event("file_list", {"files": page, "next_before": following}, re=re)
