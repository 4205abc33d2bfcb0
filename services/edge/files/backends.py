"""Backends: the port to files over gRPC, on a channel of its own. Generated messages and gRPC errors end here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import grpc.aio
from parley.rooms.v1 import files_pb2, files_pb2_grpc, rooms_pb2

from services.common.errors import ParleyError, from_rpc_error
from services.common.wire.codes import ErrorCode
from services.edge.backends import assertion_metadata, believed
from services.edge.decisions import User
from services.edge.files.ports import FileInfo, FilePage, FilesBackend, ListedFile, Offer, Offered, Progress

FILES_IDEMPOTENT: Final = (
    "parley.rooms.v1.FileService/GetFileLimits",
    "parley.rooms.v1.FileService/OfferFile",
    "parley.rooms.v1.FileService/ListFiles",
)
"""Calls that may be repeated when the service was not there."""

_STREAM_S: Final = 24 * 3_600.0
"""A transfer takes as long as it takes: what hangs is ended by those who wait for it."""

T = TypeVar("T")


async def _translated(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    except asyncio.InvalidStateError:  # grpc.aio: the stream ended between two calls
        raise _broken() from None
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        raise _broken() from None  # the stream was cancelled, and not whoever reads it


def _broken() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "the stream has ended", details={"status": "CANCELLED"})


class GrpcUpload:
    """UploadStream over gRPC."""

    def __init__(self, call: Any, user: User, offered: Offered) -> None:
        self._call = call
        self._begin: files_pb2.UploadBegin | None = files_pb2.UploadBegin(
            user_id=user.user_id, file_id=offered.file_id, offset=offered.offset
        )

    async def write(self, offset: int, data: bytes, *, is_last: bool) -> None:
        """Send a piece; returns when another one may follow."""
        request = files_pb2.UploadRequest(begin=self._begin, offset=offset, data=data, last=is_last)
        self._begin = None
        await _translated(self._call.write(request))

    async def finish_writing(self) -> None:
        """Nothing more comes."""
        await _translated(self._call.done_writing())

    async def read(self) -> Progress | None:
        """What is stored by now; None at the end."""
        response = await _translated(self._call.read())
        if not isinstance(response, files_pb2.UploadResponse):
            return None
        return Progress(response.offset, response.done.seq if response.HasField("done") else None)

    def cancel(self) -> None:
        """End it at once."""
        self._call.cancel()


class GrpcDownload:
    """DownloadStream over gRPC."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def describe(self) -> FileInfo:
        """What file it is."""
        response = await _translated(self._call.read())
        if not isinstance(response, files_pb2.DownloadResponse):
            raise _broken()
        return _info(response.file)

    async def read(self) -> bytes | None:
        """The next bytes; None at the end."""
        response = await _translated(self._call.read())
        return response.data if isinstance(response, files_pb2.DownloadResponse) else None

    def cancel(self) -> None:
        """End it at once."""
        self._call.cancel()


class GrpcFiles:
    """FilesBackend over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = files_pb2_grpc.FileServiceStub(channel)
        self._timeout_s = timeout_s

    async def file_bytes_max(self) -> int:
        """How large a file may be."""
        return (await self._ask(self._stub.GetFileLimits, files_pb2.GetFileLimitsRequest())).file_bytes_max

    async def offer(self, user: User, room: str, offer: Offer) -> Offered:
        """Announce a file."""
        request = files_pb2.OfferFileRequest(
            user_id=user.user_id,
            username=user.username,
            room=room,
            name=offer.name,
            size=offer.size,
            sha256=offer.sha256,
            mime=offer.mime,
            transfer_id=offer.transfer_id,
            piece_bytes=offer.piece_bytes,
        )
        response = await self._ask(self._stub.OfferFile, request, user)
        return Offered(response.file_id, response.offset, response.room_id)

    def open_upload(self, user: User, offered: Offered) -> GrpcUpload:
        """Begin to send the bytes of an offered file."""
        return GrpcUpload(self._stub.Upload(timeout=_STREAM_S, metadata=assertion_metadata(user)), user, offered)

    def open_download(self, user: User, file_id: str, offset: int) -> GrpcDownload:
        """Begin to fetch a posted file."""
        request = files_pb2.DownloadRequest(user_id=user.user_id, file_id=file_id, offset=offset)
        return GrpcDownload(self._stub.Download(request, timeout=_STREAM_S, metadata=assertion_metadata(user)))

    async def give_up(self, user: User, file_id: str) -> None:
        """Take back a file that is not posted."""
        request = files_pb2.CancelFileRequest(user_id=user.user_id, file_id=file_id)
        await self._ask(self._stub.CancelFile, request, user)

    async def list_files(self, user: User, room: str, *, before: int, limit: int) -> FilePage:
        """A page of a room's files."""
        request = files_pb2.ListFilesRequest(user_id=user.user_id, room=room, before_seq=before, page_size=limit)
        response = await self._ask(self._stub.ListFiles, request, user)
        return FilePage(response.room_id, [_listed(posted) for posted in response.files], response.next_before_seq)

    async def _ask(self, method: Callable[..., Awaitable[T]], request: object, user: User | None = None) -> T:
        try:
            return await _translated(method(request, timeout=self._timeout_s, metadata=assertion_metadata(user)))
        except ParleyError as error:
            raise believed(error, user) from None


def files_of(channels: Mapping[str, grpc.aio.Channel], *, timeout_s: float) -> dict[str, FilesBackend]:
    """The backend of each instance, by target."""
    return {target: GrpcFiles(channel, timeout_s=timeout_s) for target, channel in channels.items()}


def _info(file: rooms_pb2.File) -> FileInfo:
    return FileInfo(file.file_id, file.name, file.size, file.sha256, file.mime, file.transfer_id, file.piece_bytes)


def _listed(posted: files_pb2.PostedFile) -> ListedFile:
    file = posted.file
    return ListedFile(
        file.file_id,
        file.name,
        file.size,
        file.sha256,
        file.mime,
        posted.username,
        posted.seq,
        posted.sent_at_ms,
        posted.available,
    )
