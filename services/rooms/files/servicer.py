"""The servicer of files: gRPC in, domain out. Checks the form of requests and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc.aio
from parley.rooms.v1 import files_pb2, files_pb2_grpc

from services.common.errors import ParleyError
from services.common.tasks import TaskSet
from services.common.wire.codes import ErrorCode
from services.rooms.files import rules
from services.rooms.files.rules import Offer
from services.rooms.files.store import POSTED, Sender
from services.rooms.files.uploads import Posted
from services.rooms.servicer import ID_CHARS_MAX, NAME_CHARS_MAX, encode_file
from services.rooms.vouchers import assertion_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.rooms.counts import FileCounts
    from services.rooms.files.library import Library
    from services.rooms.files.upload import Upload
    from services.rooms.vouchers import Vouchers

    Context = grpc.aio.ServicerContext[Any, Any]

FILES_PAGE_DEFAULT: Final = 50
FILES_PAGE_MAX: Final = 200
"""Entries in one page: at their longest 200 KB."""


class FileServicer(files_pb2_grpc.FileServiceServicer):
    """`parley.rooms.v1.FileService`."""

    def __init__(self, library: Library, counts: FileCounts, vouchers: Vouchers) -> None:
        self._library = library
        self._vouchers = vouchers
        self._counts = counts

    async def GetFileLimits(  # noqa: N802
        self, request: files_pb2.GetFileLimitsRequest, context: Context
    ) -> files_pb2.GetFileLimitsResponse:
        """See the proto."""
        return files_pb2.GetFileLimitsResponse(file_bytes_max=self._library.limits.file_bytes_max)

    async def OfferFile(self, request: files_pb2.OfferFileRequest, context: Context) -> files_pb2.OfferFileResponse:  # noqa: N802
        """See the proto."""
        sender = Sender(_id("user_id", request.user_id), _id("username", request.username))
        self._vouchers.check_person(assertion_of(context), user_id=sender.user_id, username=sender.username)
        offer = Offer(
            name=request.name,
            size=request.size,
            sha256=request.sha256,
            mime=request.mime,
            transfer_id=request.transfer_id,
            piece_bytes=request.piece_bytes,
        )
        offered = await self._library.offer(sender, _reference(request.room), offer)
        return files_pb2.OfferFileResponse(file_id=offered.file_id, offset=offered.offset, room_id=offered.room_id)

    async def Upload(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        """See the proto."""
        requests: AsyncIterator[files_pb2.UploadRequest] = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            return
        begin = first.begin
        user_id, file_id = _id("begin.user_id", begin.user_id), _file_id(begin.file_id)
        self._vouchers.check_person(assertion_of(context), user_id=user_id)
        uploads = self._library.uploads
        upload = await uploads.begin(user_id, file_id, begin.offset)
        if isinstance(upload, Posted):
            await context.write(_done(upload))
            return
        tasks = TaskSet()
        try:
            await context.write(files_pb2.UploadResponse(offset=begin.offset))
            tasks.spawn(_take_pieces(upload, first, requests, self._counts), name="upload reader")
            while (offset := await uploads.store(upload)) is not None:
                await context.write(files_pb2.UploadResponse(offset=offset))
            await context.write(_done(await uploads.finish(upload)))
        finally:
            await tasks.close()
            await uploads.end(upload)

    async def Download(  # noqa: N802
        self, request: files_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[files_pb2.DownloadResponse]:
        """See the proto."""
        user_id, file_id = _id("user_id", request.user_id), _file_id(request.file_id)
        self._vouchers.check_person(assertion_of(context), user_id=user_id)
        download = await self._library.begin_download(user_id, file_id, request.offset)
        try:
            yield files_pb2.DownloadResponse(file=encode_file(download.record.file))
            async for offset, data in download.blocks(request.offset):
                yield files_pb2.DownloadResponse(offset=offset, data=data)
                self._counts.bytes_out.add(len(data))
        finally:
            await self._library.end_download(download)

    async def CancelFile(self, request: files_pb2.CancelFileRequest, context: Context) -> files_pb2.CancelFileResponse:  # noqa: N802
        """See the proto."""
        user_id, file_id = _id("user_id", request.user_id), _file_id(request.file_id)
        self._vouchers.check_person(assertion_of(context), user_id=user_id)
        await self._library.cancel(user_id, file_id)
        return files_pb2.CancelFileResponse()

    async def ListFiles(self, request: files_pb2.ListFilesRequest, context: Context) -> files_pb2.ListFilesResponse:  # noqa: N802
        """See the proto."""
        if not 0 <= request.page_size <= FILES_PAGE_MAX:
            raise _bad_request(f"page_size: 0 to {FILES_PAGE_MAX}")
        if request.before_seq < 0:
            raise _bad_request("before_seq: not below 0")
        self._vouchers.check_person(assertion_of(context), user_id=request.user_id)
        page = await self._library.list_files(
            _id("user_id", request.user_id),
            _reference(request.room),
            before_seq=request.before_seq or None,
            limit=request.page_size or FILES_PAGE_DEFAULT,
        )
        return files_pb2.ListFilesResponse(
            room_id=page.room_id,
            files=[
                files_pb2.PostedFile(
                    file=encode_file(record.file),
                    username=record.username,
                    seq=record.seq or 0,
                    sent_at_ms=record.changed_at_ms,
                    available=record.state == POSTED,
                )
                for record in page.files
            ],
            next_before_seq=page.next_before_seq,
        )


async def _take_pieces(
    upload: Upload,
    first: files_pb2.UploadRequest,
    requests: AsyncIterator[files_pb2.UploadRequest],
    counts: FileCounts,
) -> None:
    """Takes pieces until there are no more; what is wrong with one of them ends the upload."""
    try:
        upload.take(first.offset, first.data, is_last=first.last)
        async for request in requests:
            if request.HasField("begin"):
                raise _bad_request("begin comes once, in the first request")
            upload.take(request.offset, request.data, is_last=request.last)
            counts.bytes_in.add(len(request.data))
            await upload.wait_for_room()
    except ParleyError as error:
        upload.fail(error)
    except grpc.aio.BaseError:
        upload.fail(ParleyError(ErrorCode.UNAVAILABLE, "the stream broke"))
    else:
        upload.fail(_bad_request("the upload has ended before the file"))


def _done(posted: Posted) -> files_pb2.UploadResponse:
    outcome = posted.outcome
    done = files_pb2.UploadDone(
        room_id=posted.room_id,
        epoch=outcome.epoch,
        seq=outcome.seq,
        sent_at_ms=outcome.sent_at_ms,
        duplicate=outcome.is_duplicate,
        file=encode_file(posted.file),
    )
    return files_pb2.UploadResponse(offset=posted.file.size, done=done)


def _id(field: str, value: str) -> str:
    if not 0 < len(value) <= ID_CHARS_MAX:
        raise _bad_request(f"{field}: 1 to {ID_CHARS_MAX} characters")
    return value


def _file_id(file_id: str) -> str:
    if not rules.is_file_id(file_id):
        raise _bad_request("file_id: 32 lower-case hex digits")
    return file_id


def _reference(reference: str) -> str:
    if not 0 < len(reference) <= NAME_CHARS_MAX:
        raise _bad_request("room: an id, a name, or the first characters of an id")
    return reference


def _bad_request(message: str) -> ParleyError:
    return ParleyError(ErrorCode.BAD_REQUEST, message)
