"""RoutedFiles: the files backend over several instances of rooms, which share the contents.

An offer goes to the instance of its room, and its bytes where the offer was taken, because that instance knows how far
they came and ends what still hangs of an earlier upload. Downloads are spread by the file's id. What may be repeated is
asked of one more instance where the first is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from services.common.clock import Clock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.edge.decisions import User
from services.edge.files.ports import (
    DownloadStream,
    FileInfo,
    FilePage,
    FilesBackend,
    Offer,
    Offered,
    UploadStream,
)
from services.edge.routes import Routes
from services.edge.stand_in import ask_in_turn

T = TypeVar("T")


class RoutedFiles:
    """FilesBackend over the backends of several instances, by target."""

    def __init__(self, backends: Mapping[str, FilesBackend], routes: Routes, clock: Clock) -> None:
        self._backends = backends
        self._routes = routes
        self._clock = clock

    async def file_bytes_max(self) -> int:
        """How large a file may be."""
        return await self._ask("", lambda files, _: files.file_bytes_max())

    async def offer(self, user: User, room: str, offer: Offer) -> Offered:
        """Announce a file."""

        async def ask(files: FilesBackend, target: str) -> Offered:
            return msgspec.structs.replace(await files.offer(user, room, offer), target=target)

        return await self._ask(room, ask)

    def open_upload(self, user: User, offered: Offered) -> UploadStream:
        """Begin to send the bytes of an offered file, to the instance that took the offer."""
        return self._backends[offered.target].open_upload(user, offered)

    def open_download(self, user: User, file_id: str, offset: int) -> DownloadStream:
        """Begin to fetch a posted file."""
        return _Download(self, user, file_id, offset)

    async def give_up(self, user: User, file_id: str) -> None:
        """Take back a file that is not posted."""
        await self._ask(file_id, lambda files, _: files.give_up(user, file_id))

    async def list_files(self, user: User, room: str, *, before: int, limit: int) -> FilePage:
        """A page of a room's files."""
        return await self._ask(room, lambda files, _: files.list_files(user, room, before=before, limit=limit))

    async def _ask(self, key: str, call: Callable[[FilesBackend, str], Awaitable[T]]) -> T:
        return await ask_in_turn(
            self._routes.candidates(key), lambda target: call(self._backends[target], target), self._clock
        )


class _Download:
    """A download that has no instance before it is described: until then another one may stand in."""

    def __init__(self, files: RoutedFiles, user: User, file_id: str, offset: int) -> None:
        self._files = files
        self._user = user
        self._file_id = file_id
        self._offset = offset
        self._stream: DownloadStream | None = None
        self._is_cancelled = False

    async def describe(self) -> FileInfo:
        """What file it is."""

        async def ask(files: FilesBackend, _: str) -> FileInfo:
            if self._is_cancelled:
                raise ParleyError(ErrorCode.CONFLICT, "the download was cancelled")
            if self._stream is not None:
                self._stream.cancel()
            self._stream = files.open_download(self._user, self._file_id, self._offset)
            return await self._stream.describe()

        return await self._files._ask(self._file_id, ask)  # noqa: SLF001 - it is a part of it

    async def read(self) -> bytes | None:
        """The next bytes; None at the end."""
        assert self._stream is not None, "it was described"
        return await self._stream.read()

    def cancel(self) -> None:
        """End it at once."""
        self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()
