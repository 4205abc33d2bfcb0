"""Handlers of files: from a client's request to rooms and to the client's desk."""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from services.common.errors import ParleyError
from services.common.logs import get_logger
from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import FileCancel, FileGet, FileList, FileOffer, FileTransfer
from services.edge.decisions import Command, User
from services.edge.files.desk import Desk, FileRules, Transferring
from services.edge.files.old_desk import OldDesk
from services.edge.files.ports import DownloadStream, FileInfo, ListedFile, Offer
from services.edge.handlers import Answer, Gone, Table
from services.edge.session import Session

_LIST_BYTES_MAX: Final = limits.MAX_JSON_BYTES - 1_024

LIMITS_INTERVAL_S: Final = 60.0
"""How long another limit of rooms may go unnoticed."""

_encode = msgspec.json.Encoder().encode
_log = get_logger(__name__)


class Caller(Transferring, Protocol):
    """The connection that a command came from."""

    @property
    def session(self) -> Session:
        """Its session, which holds the desk."""
        ...

    @property
    def user(self) -> User | None:
        """Who is logged in."""
        ...


class FileHandlers:
    """All commands about files. `server_info` is told how large a file may be."""

    def __init__(self, rules: FileRules, server_info: dict[str, Any]) -> None:
        self._rules = rules
        self._server_info = server_info
        self.table: Table = {
            FileOffer: self._offer,
            FileGet: self._get,
            FileList: self._list,
            FileCancel: self._cancel,
            FileTransfer: self._transfer,
        }

    async def learn_limits(self) -> None:
        """Ask rooms from time to time how large a file may be; until cancelled."""
        while True:
            try:
                self._server_info["max_file_bytes"] = await self._rules.backend.file_bytes_max()
            except ParleyError as error:
                _log.info("limits of files are not known", code=error.code)
                await self._rules.clock.sleep(1.0)
            else:
                await self._rules.clock.sleep(LIMITS_INTERVAL_S)

    def relay(self, connection: Caller, room_id: str, username: str, file_id: str) -> None:
        """A file was posted to a room that a version-1 client sees."""
        if connection.user is not None:
            self._old_desk(connection).relay.add(room_id, username, file_id)

    async def _offer(self, caller: Caller, request: FileOffer, _: Command) -> Answer:
        user = _user(caller)
        offer = Offer(
            name=request.name,
            size=request.size,
            sha256=request.sha256,
            mime=request.mime,
            transfer_id=request.transfer_id or "",
        )
        offered = await self._rules.backend.offer(user, request.room_id, offer)
        if caller.user is not user:
            raise Gone
        self._desk(caller).add_offer(offered, request.size)
        data = {"file_id": offered.file_id, "offset": offered.offset, "chunk_bytes": limits.MAX_CHUNK_BYTES}
        return Answer("success", data, offered.room_id)

    async def _get(self, caller: Caller, request: FileGet, _: Command) -> Answer:
        user = _user(caller)
        desk = self._desk(caller)
        stream = desk.ask(request.file_id, request.offset)
        try:
            info = await self._describe(desk, request, stream)
            if caller.user is not user:
                raise Gone
        except BaseException:
            desk.withdraw(request.file_id, stream)
            raise
        desk.add_download(request, stream)
        data = {name: getattr(info, name) for name in ("file_id", "name", "size", "sha256", "mime")}
        return Answer("success", data)

    @staticmethod
    async def _describe(desk: Desk, request: FileGet, stream: DownloadStream) -> FileInfo:
        """What file it is. Raises ParleyError, conflict where the client has cancelled it meanwhile."""
        try:
            info = await stream.describe()
        except ParleyError:
            if desk.is_wanted(request.file_id, stream):
                raise
        else:
            if desk.is_wanted(request.file_id, stream):
                return info
        raise ParleyError(ErrorCode.CONFLICT, "you have cancelled this before it began")

    async def _cancel(self, caller: Caller, request: FileCancel, _: Command) -> Answer:
        if self._desk(caller).drop(request.file_id):  # its file_get was still waiting when this came in
            return Answer("success")
        await self._rules.backend.give_up(_user(caller), request.file_id)
        return Answer("success")

    async def _list(self, caller: Caller, request: FileList, _: Command) -> Answer:
        page = await self._rules.backend.list_files(
            _user(caller), request.room_id, before=request.before or 0, limit=request.limit
        )
        files, next_before = page.files, page.next_before
        while len(_encode(data := _file_list(files, next_before))) > _LIST_BYTES_MAX:
            files = files[: len(files) * 7 // 8]
            next_before = files[-1].seq
        return Answer("file_list", data, page.room_id)

    async def _transfer(self, caller: Caller, request: FileTransfer, _: Command) -> Answer:
        assert request.room_id is not None  # the session has put in the current room
        size_max = int(self._server_info["max_file_bytes"])
        said = await self._old_desk(caller).pieces.receive(request.room_id, request, size_max=size_max)
        return Answer("success", frame=b"") if said is None else Answer("success", said, request.room_id)

    def _desk(self, caller: Caller) -> Desk:
        session = caller.session
        if not isinstance(session.desk, Desk):
            session.desk = Desk(caller, _user(caller), self._rules)
        return session.desk

    def _old_desk(self, caller: Caller) -> OldDesk:
        session = caller.session
        if not isinstance(session.desk, OldDesk):
            session.desk = OldDesk(caller, _user(caller), self._rules)
        return session.desk


def _user(caller: Caller) -> User:
    if caller.user is None:
        raise ParleyError(ErrorCode.NOT_AUTHENTICATED, "you have logged out")
    return caller.user


def _file_list(files: list[ListedFile], next_before: int) -> dict[str, Any]:
    return {"files": files, "next_before": next_before or None}
