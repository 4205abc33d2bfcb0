"""An edge's end of `FileService`: offers, uploads piece by piece, downloads whole."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from parley.rooms.v1 import files_pb2, files_pb2_grpc

from tests.helpers.served_rooms import user_id

if TYPE_CHECKING:
    import grpc.aio

WAIT_S = 20.0
PIECE = 256 * 1024


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FileCalls:
    """Calls of one edge."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: files_pb2_grpc.FileServiceAsyncStub = files_pb2_grpc.FileServiceStub(channel)

    async def offer(self, who: str, /, room: str, data: bytes = b"", **changes: Any) -> files_pb2.OfferFileResponse:
        fields = {"name": "notes.txt", "size": len(data), "sha256": sha256(data), "mime": "text/plain", **changes}
        request = files_pb2.OfferFileRequest(user_id=user_id(who), username=who, room=room, **fields)
        return await self.stub.OfferFile(request)

    async def upload(self, who: str, /, file_id: str, offset: int) -> Uploading:
        """An open stream; the first acknowledgement has come."""
        uploading = Uploading(self.stub.Upload())
        begin = files_pb2.UploadBegin(user_id=user_id(who), file_id=file_id, offset=offset)
        await uploading.call.write(files_pb2.UploadRequest(begin=begin, offset=offset))
        first = await uploading.read()
        if first.HasField("done"):
            uploading.done = first.done
        else:
            assert first.offset == offset
        return uploading

    async def send(self, who: str, /, room: str, data: bytes, **changes: Any) -> files_pb2.UploadDone:
        """Offers and uploads a file whole."""
        offered = await self.offer(who, room, data, **changes)
        uploading = await self.upload(who, offered.file_id, offered.offset)
        return await uploading.finish(data, offered.offset)

    async def fetch(self, who: str, /, file_id: str, offset: int = 0) -> tuple[Any, bytes]:
        """The description and the bytes from the offset on."""
        call = self.stub.Download(files_pb2.DownloadRequest(user_id=user_id(who), file_id=file_id, offset=offset))
        file, data = None, bytearray()
        async for response in call:
            if file is None:
                file = response.file
            else:
                assert response.offset == offset + len(data)
                data += response.data
        return file, bytes(data)

    async def cancel(self, who: str, /, file_id: str) -> None:
        await self.stub.CancelFile(files_pb2.CancelFileRequest(user_id=user_id(who), file_id=file_id))

    async def list(self, who: str, /, room: str, **page: int) -> files_pb2.ListFilesResponse:
        return await self.stub.ListFiles(files_pb2.ListFilesRequest(user_id=user_id(who), room=room, **page))


class Uploading:
    """One Upload stream."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.acknowledged = 0
        self.size = -1
        self.everything = asyncio.Event()
        """Set when the last byte is acknowledged, where `size` was told."""
        self.done: files_pb2.UploadDone | None = None

    async def read(self) -> files_pb2.UploadResponse:
        async with asyncio.timeout(WAIT_S):
            response = await self.call.read()
            if not isinstance(response, files_pb2.UploadResponse):  # the end of the stream
                raise AssertionError(f"ended with {await self.call.code()}")
        assert response.offset >= self.acknowledged
        self.acknowledged = response.offset
        if response.offset == self.size:
            self.everything.set()
        return response

    async def piece(self, offset: int, data: bytes, *, last: bool = False) -> None:
        await self.call.write(files_pb2.UploadRequest(offset=offset, data=data, last=last))

    async def until(self, offset: int) -> None:
        """Waits until so much is acknowledged."""
        while self.acknowledged < offset:
            await self.read()

    async def finish(self, data: bytes, offset: int = 0, *, last: bool = False) -> files_pb2.UploadDone:
        """Sends the rest of the file and waits for the message."""
        if self.done is None:
            for start in range(offset, len(data), PIECE):
                await self.piece(start, data[start : start + PIECE])
            if last:
                await self.piece(len(data), b"", last=True)
        return await self.until_done()

    async def until_done(self) -> files_pb2.UploadDone:
        while self.done is None:
            response = await self.read()
            if response.HasField("done"):
                self.done = response.done
        return self.done

    async def end(self) -> None:
        """The edge is gone."""
        self.call.cancel()
