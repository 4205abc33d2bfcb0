"""The desk: all files that one logged-in client is sending and fetching.

The session hands over chunks and acknowledgements as they come; handlers begin transfers here. What ends without the
client's doing is told to it: an upload by an `error`, a download by a `file_cancel`, both with the file's id. What was
on its way to a transfer that has just ended is no fault of the client's, and is passed over for as much as a window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from services.common.clock import Clock
from services.common.counters import Counter
from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.tasks import TaskSet
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk
from services.common.wire.requests import FileAck, FileGet
from services.edge.decisions import Reply, User, failure
from services.edge.dispatch import shown_message
from services.edge.files.downloads import Download
from services.edge.files.pace import GiveWay
from services.edge.files.ports import DownloadStream, FilesBackend, Offered
from services.edge.files.uploads import Upload
from services.edge.files.windows import Incoming, Outgoing
from services.edge.hub import Subscriber
from services.edge.outbox import frame
from services.edge.qos.classes import QosClass

OFFERS_MAX: Final = 64
"""Files that one connection has offered and not begun to send; each is a few hundred bytes. Rooms allows fewer."""

_ENDED_MAX: Final = 64
_ACK_COST: Final = 1_024
"""What an acknowledgement takes of what is passed over for an ended transfer."""

_ACK_BYTES_MIN: Final = 4_096
"""Whoever acknowledges less at a time, and not the end, is counted as whoever asks for something."""

_log = get_logger(__name__)


class Transferring(Protocol):
    """A connection that files go through."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def subscriber(self) -> Subscriber | None:
        """How the hub sees the client, while it is logged in."""
        ...

    def reply(self, reply: Reply) -> None:
        """Send a frame."""
        ...

    def expect_much(self) -> None:
        """A file may come."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken most of what there is for it, or is gone."""
        ...


class Places:
    """How many transfers may be under way, on a connection and in all."""

    def __init__(self, *, per_connection: int, in_all: int) -> None:
        self.per_connection = per_connection
        self._in_all = in_all
        self.taken = 0

    def take(self, on_connection: int) -> None:
        """Takes a place. Raises ParleyError overloaded."""
        if on_connection >= self.per_connection:
            message = f"{self.per_connection} files at a time: wait for one of them"
            raise ParleyError(ErrorCode.OVERLOADED, message, retry_after_s=1.0)
        if self.taken >= self._in_all:
            message = "too many files are being transferred; try again in a moment"
            raise ParleyError(ErrorCode.OVERLOADED, message, retry_after_s=1.0)
        self.taken += 1

    def give_back(self, _: object = None) -> None:
        """A transfer has ended."""
        self.taken -= 1


class FileRules(msgspec.Struct, frozen=True, kw_only=True):
    """What all desks of an edge share."""

    backend: FilesBackend
    tasks: TaskSet
    clock: Clock
    window_bytes: int
    idle_s: float
    uploads: Places
    downloads: Places
    give_way: GiveWay
    bytes_in: Counter
    bytes_out: Counter


class _Offer:
    """A file that was offered; `upload` is there once its first chunk is."""

    __slots__ = ("incoming", "offered", "upload")

    def __init__(self, offered: Offered, incoming: Incoming) -> None:
        self.offered = offered
        self.incoming = incoming
        self.upload: Upload | None = None


class Desk:
    """One client's transfers, from its login to its end."""

    def __init__(self, connection: Transferring, user: User, rules: FileRules) -> None:
        self.user = user
        self.rules = rules
        self.is_closed = False
        self._connection = connection
        self._offers: dict[bytes, _Offer] = {}
        self._asked: dict[bytes, DownloadStream] = {}  # downloads whose request is not answered yet
        self._downloads: dict[bytes, Download] = {}
        self._ended: dict[bytes, int] = {}  # what may still come for transfers that have ended, in bytes
        self._turn = asyncio.Lock()
        connection.expect_much()

    # What the session reports.

    def receive(self, chunk: Chunk) -> Reply | None:
        """A chunk has come; returns the refusal where it does not belong here."""
        offer = self._offers.get(chunk.file_id)
        if offer is None:
            if self._pass_over(chunk.file_id, len(chunk.data)):
                return None
            return _fault(chunk.file_id, ErrorCode.NO_SUCH_FILE, "no transfer of this file is under way")
        try:
            upload = offer.upload or self._begin(chunk.file_id, offer)
        except ParleyError as error:
            self._forget(chunk.file_id, offer)
            return _fault(chunk.file_id, error.code, error.message, retry_after_s=error.retry_after_s)
        fault = upload.receive(chunk.offset, chunk.data)
        if fault is None:
            self.rules.bytes_in.add(len(chunk.data))
            return None
        self._forget(chunk.file_id, offer)
        upload.end()
        return _fault(chunk.file_id, ErrorCode.BAD_REQUEST, fault)

    def acknowledge(self, request: FileAck) -> bool:
        """The client has taken something; returns whether that was worth saying."""
        file_id = bytes.fromhex(request.file_id)
        download = self._downloads.get(file_id)
        if download is None:
            return self._pass_over(file_id, _ACK_COST)
        news = download.acknowledge(request.offset, request.window)
        return news >= _ACK_BYTES_MIN or download.is_acknowledged

    def drop(self, file_id: str) -> bool:
        """The client gives a transfer up: nothing more of it is taken or sent. Returns whether it was fetching."""
        key = bytes.fromhex(file_id)
        offer = self._offers.pop(key, None)
        if offer is not None and offer.upload is not None:
            offer.upload.cancel()
        if (stream := self._asked.pop(key, None)) is not None:
            stream.cancel()  # whoever waits for its description finds that it was dropped
            return True
        download = self._downloads.pop(key, None)
        if download is None:
            return False
        self._remember(key)
        download.end()
        return True

    def close(self) -> None:
        """The client is gone, or somebody else. What has come in is still stored."""
        self.is_closed = True
        for offer in self._offers.values():
            if offer.upload is not None:
                offer.upload.end()
        for stream in self._asked.values():
            stream.cancel()
        for download in self._downloads.values():
            download.end()
        self._asked.clear()
        self._offers.clear()
        self._downloads.clear()

    # What handlers begin.

    def ask(self, file_id: str, offset: int) -> DownloadStream:
        """Ask for a file; to be followed by `add_download` or `withdraw`. Raises ParleyError conflict, overloaded."""
        key = bytes.fromhex(file_id)
        if key in self._downloads or key in self._asked:
            raise ParleyError(ErrorCode.CONFLICT, "this file is on its way to you already")
        self.rules.downloads.take(len(self._downloads) + len(self._asked))
        stream = self._asked[key] = self.rules.backend.open_download(self.user, file_id, offset)
        return stream

    def is_wanted(self, file_id: str, stream: DownloadStream) -> bool:
        """Whether the client has not dropped, meanwhile, what it asked for."""
        return self._asked.get(bytes.fromhex(file_id)) is stream

    def withdraw(self, file_id: str, stream: DownloadStream) -> None:
        """There will be no such download."""
        stream.cancel()
        self.rules.downloads.give_back()
        if self.is_wanted(file_id, stream):
            del self._asked[bytes.fromhex(file_id)]

    def add_offer(self, offered: Offered, size: int) -> None:
        """The client may send a file from now on. Raises ParleyError overloaded."""
        file_id = bytes.fromhex(offered.file_id)
        before = self._offers.pop(file_id, None)
        if before is not None and before.upload is not None:
            before.upload.cancel()  # rooms has ended it: an offer is a new beginning
        if len(self._offers) >= OFFERS_MAX:
            raise ParleyError(ErrorCode.OVERLOADED, "send what you have offered first", retry_after_s=1.0)
        self._ended.pop(file_id, None)
        incoming = Incoming(size=size, offset=offered.offset, window=self.rules.window_bytes)
        offer = self._offers[file_id] = _Offer(offered, incoming)
        if incoming.is_received:  # the server has all of it already
            try:
                self._begin(file_id, offer)
            except ParleyError:
                del self._offers[file_id]
                raise

    def add_download(self, request: FileGet, stream: DownloadStream) -> None:
        """What was asked for goes to the client from the next turn of the loop on."""
        key = bytes.fromhex(request.file_id)
        del self._asked[key]
        download = self._downloads[key] = Download(
            key,
            stream,
            Outgoing(offset=request.offset, window=self.rules.window_bytes, allowed=request.window),
            post=self._post,
            drained=self._connection.drained,
            give_way=self.rules.give_way,
            turn=self._turn,
            idle_s=self.rules.idle_s,
        )
        task = self.rules.tasks.spawn(self._send(key, download), name="download")
        task.add_done_callback(self.rules.downloads.give_back)

    # How it is done.

    def _begin(self, file_id: bytes, offer: _Offer) -> Upload:
        rules = self.rules
        rules.uploads.take(sum(other.upload is not None for other in self._offers.values()))
        upload = offer.upload = Upload(
            offer.incoming,
            rules.backend.open_upload(self.user, offer.offered),
            on_stored=partial(self._stored, file_id, offer),
            give_way=rules.give_way,
            idle_s=rules.idle_s,
            clock=rules.clock,
        )
        task = rules.tasks.spawn(self._take(file_id, offer, upload.run()), name="upload")
        task.add_done_callback(rules.uploads.give_back)
        return upload

    async def _take(self, file_id: bytes, offer: _Offer, work: Awaitable[int]) -> None:
        try:
            data: dict[str, Any] = {"file_id": file_id.hex(), "seq": await work}
        except ParleyError as error:
            if self._forget(file_id, offer):
                _log.info("upload ended", file_id=file_id.hex(), code=error.code, connection_id=self._connection.id)
                self._connection.reply(
                    _fault(file_id, error.code, shown_message(error), retry_after_s=error.retry_after_s)
                )
        else:
            if self._forget(file_id, offer):
                self._connection.reply(Reply("file_done", data, room_id=offer.offered.room_id))

    async def _send(self, file_id: bytes, download: Download) -> None:
        try:
            await download.run()
        except ParleyError as error:
            if self._downloads.get(file_id) is download:
                _log.info("download ended", file_id=file_id.hex(), code=error.code, connection_id=self._connection.id)
                data = {"file_id": file_id.hex(), "code": error.code.value, "error": shown_message(error)}
                self._connection.reply(Reply("file_cancel", data))
        if self._downloads.get(file_id) is download:
            del self._downloads[file_id]
            self._remember(file_id)

    def _stored(self, file_id: bytes, offer: _Offer, offset: int) -> None:
        if self._offers.get(file_id) is offer and offset > offer.offered.offset:
            data = {"file_id": file_id.hex(), "offset": offset}
            self._connection.reply(Reply("file_ack", data, lane=QosClass.LOW))

    def _post(self, data: bytes) -> None:
        subscriber = self._connection.subscriber
        if subscriber is not None and not self.is_closed:
            self.rules.bytes_out.add(len(data) - limits.LENGTH_BYTES - limits.CHUNK_HEADER_BYTES)
            subscriber.outbox.post(frame(data, QosClass.LOW))

    def _forget(self, file_id: bytes, offer: _Offer) -> bool:
        """An upload has ended; returns whether the client is to be told."""
        if self._offers.get(file_id) is not offer:
            return False
        del self._offers[file_id]
        self._remember(file_id)
        return True

    def _remember(self, file_id: bytes) -> None:
        self._ended[file_id] = self.rules.window_bytes
        while len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def _pass_over(self, file_id: bytes, cost: int) -> bool:
        left = self._ended.get(file_id, 0) - cost
        if left < 0:
            self._ended.pop(file_id, None)
            return False
        self._ended[file_id] = left
        return True


def _fault(file_id: bytes, code: ErrorCode, message: str, *, retry_after_s: float | None = None) -> Reply:
    return failure(None, None, code, message, retry_after_s=retry_after_s, details={"file_id": file_id.hex()})
