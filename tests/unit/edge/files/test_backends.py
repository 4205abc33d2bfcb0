"""The port to files over gRPC, against a servicer that writes down what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from parley.rooms.v1 import files_pb2, files_pb2_grpc, rooms_pb2

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.decisions import User
from services.edge.files.backends import FILES_IDEMPOTENT, GrpcFiles, files_of
from services.edge.files.ports import FileInfo, FilePage, ListedFile, Offer, Offered, Progress
from tests.helpers import rpc

AMY = User("u1", "amy", "s1", 0.0)
FILE_ID = "ab" * 16
FILE = rooms_pb2.File(
    file_id=FILE_ID, name="a", size=5, sha256="cd" * 32, mime="text/plain", transfer_id="ef" * 16, piece_bytes=7
)
OFFERED = Offered(FILE_ID, 2, "r1")


class Recorder:
    """Answers with what was prepared, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answer: Any = None
        self.hangs = False

    async def _take(self, request: Any, _: Any) -> Any:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    GetFileLimits = OfferFile = CancelFile = ListFiles = _take

    async def Upload(self, requests: Any, _: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            self.requests.append(request)
            if self.hangs:
                await asyncio.Event().wait()
            yield files_pb2.UploadResponse(offset=request.offset + len(request.data))
        yield files_pb2.UploadResponse(offset=5, done=files_pb2.UploadDone(seq=9))

    async def Download(self, request: Any, _: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        yield files_pb2.DownloadResponse(file=FILE)
        if self.hangs:
            await asyncio.Event().wait()
        yield files_pb2.DownloadResponse(offset=request.offset, data=b"llo")


@asynccontextmanager
async def files() -> AsyncIterator[tuple[GrpcFiles, Recorder]]:
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            rpc.serve(
                {"parley.rooms.v1.FileService": {"edge"}},
                lambda s: files_pb2_grpc.add_FileServiceServicer_to_server(recorder, s),  # type: ignore[arg-type]
                service="rooms",
            )
        )
        channel = await stack.enter_async_context(
            rpc.channel(server, service="rooms", idempotent_methods=FILES_IDEMPOTENT)
        )
        [backend] = files_of({"one": channel}, timeout_s=10).values()
        assert isinstance(backend, GrpcFiles)
        yield backend, recorder


async def test_calls_say_what_was_meant() -> None:
    async with files() as (backend, recorder):
        recorder.answer = files_pb2.GetFileLimitsResponse(file_bytes_max=7)
        assert await backend.file_bytes_max() == 7
        recorder.answer = files_pb2.OfferFileResponse(file_id=FILE_ID, offset=2, room_id="r1")
        offer = Offer(name="a", size=5, sha256="cd" * 32, mime="text/plain", transfer_id="ef" * 16)
        assert await backend.offer(AMY, "lobby", offer) == OFFERED
        recorder.answer = files_pb2.CancelFileResponse()
        await backend.give_up(AMY, FILE_ID)
        posted = files_pb2.PostedFile(file=FILE, username="bob", seq=3, sent_at_ms=4, available=True)
        recorder.answer = files_pb2.ListFilesResponse(room_id="r1", files=[posted], next_before_seq=3)
        listed = ListedFile(FILE_ID, "a", 5, "cd" * 32, "text/plain", "bob", 3, 4, available=True)
        assert await backend.list_files(AMY, "lobby", before=8, limit=1) == FilePage("r1", [listed], 3)
        assert recorder.requests[1:] == [
            files_pb2.OfferFileRequest(
                user_id="u1", username="amy", room="lobby", name="a", size=5, sha256="cd" * 32, mime="text/plain",
                transfer_id="ef" * 16,
            ),
            files_pb2.CancelFileRequest(user_id="u1", file_id=FILE_ID),
            files_pb2.ListFilesRequest(user_id="u1", room="lobby", before_seq=8, page_size=1),
        ]  # fmt: skip


async def test_a_refusal_keeps_its_code_and_time() -> None:
    async with files() as (backend, recorder):
        recorder.answer = ParleyError(ErrorCode.OVERLOADED, "too many", retry_after_s=2.0)
        with pytest.raises(ParleyError) as caught:
            await backend.offer(AMY, "lobby", Offer(name="a", size=1))
        assert (caught.value.code, caught.value.retry_after_s) == (ErrorCode.OVERLOADED, 2.0)


async def test_an_upload_begins_once() -> None:
    async with files() as (backend, recorder):
        upload = backend.open_upload(AMY, OFFERED)
        await upload.write(2, b"ll", is_last=False)
        assert await upload.read() == Progress(4)
        await upload.write(4, b"o", is_last=True)
        assert await upload.read() == Progress(5)
        await upload.finish_writing()
        assert await upload.read() == Progress(5, 9)
        assert await upload.read() is None
        upload.cancel()
        begin = files_pb2.UploadBegin(user_id="u1", file_id=FILE_ID, offset=2)
        assert recorder.requests == [
            files_pb2.UploadRequest(begin=begin, offset=2, data=b"ll"),
            files_pb2.UploadRequest(offset=4, data=b"o", last=True),
        ]


async def test_a_download_is_described_and_read() -> None:
    async with files() as (backend, recorder):
        download = backend.open_download(AMY, FILE_ID, 2)
        assert await download.describe() == FileInfo(FILE_ID, "a", 5, "cd" * 32, "text/plain", "ef" * 16, 7)
        assert await download.read() == b"llo"
        assert await download.read() is None
        download.cancel()
        assert recorder.requests == [files_pb2.DownloadRequest(user_id="u1", file_id=FILE_ID, offset=2)]


async def test_a_download_that_is_refused() -> None:
    async with files() as (backend, recorder):
        recorder.answer = ParleyError(ErrorCode.NOT_A_MEMBER, "left")
        with pytest.raises(ParleyError) as caught:
            await backend.open_download(AMY, FILE_ID, 0).describe()
        assert caught.value.code is ErrorCode.NOT_A_MEMBER


async def test_streams_that_are_cancelled_end_those_who_wait_as_unavailable() -> None:
    async with files() as (backend, recorder):
        recorder.hangs = True
        upload, download = backend.open_upload(AMY, OFFERED), backend.open_download(AMY, FILE_ID, 0)
        await upload.write(2, b"x", is_last=False)
        await download.describe()
        waiting = [asyncio.create_task(upload.read()), asyncio.create_task(download.read())]
        await asyncio.sleep(0)
        upload.cancel()
        download.cancel()
        for task in waiting:
            with pytest.raises(ParleyError) as caught:
                await task
            assert caught.value.code is ErrorCode.UNAVAILABLE
        with pytest.raises(ParleyError):
            await upload.write(3, b"x", is_last=False)
