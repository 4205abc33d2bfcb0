"""A person's files: sends small ones, goes on with those that broke off, and fetches what others sent.

A file's message is an event like that of any text: its key is `~` and the file's id, and its h that of its bytes. Two
uploads of one connection may overtake each other, so that each counts as a stream of its own (I9).
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos import events as e
from tests.chaos.recorder.line import RefusedError
from tests.chaos.recorder.mailbox import file_key, short

if TYPE_CHECKING:
    import random

    from tests.chaos.recorder.board import Board
    from tests.chaos.recorder.line import Line
    from tests.chaos.recorder.seat import Seat
    from tests.chaos.recorder.wire import Frame

CHUNK_BYTES = 65_536
SIZES = (1, 700, 65_536, 65_537, 180_000)  # below a window, so that all of a file may be sent at once
MOVES_S = 14.0  # so long nothing may move
UNFINISHED_MAX = 4
REFUSED = {"bad_request", "hash_mismatch", "quota_exceeded", "not_a_member", "too_large"}  # certainly not posted
NAMES = ("notes.txt", "../../profile", "/etc/passwd", "گزارش.pdf", "C:\\con", ".", "plan of the day", "🦜" * 60)


@dataclass
class Draft:
    """A file of ours that is not known to be posted. `file_id` is empty until it was offered."""

    room: str
    name: str
    data: bytes
    sha256: str
    file_id: str = ""


class Cabinet:
    """The files of one person. Raises LostError where the connection breaks; then the next one goes on."""

    def __init__(self, name: str, board: Board, dice: random.Random) -> None:
        self._name = name
        self._board = board
        self._dice = dice
        self._drafts: list[Draft] = []
        self._sending: dict[str, asyncio.Future[Frame]] = {}  # file id: file_done or error
        self._fetching: dict[str, bytearray] = {}
        self._moved = asyncio.Event()
        self._cancelled: dict[str, str] = {}  # downloads that the server ended: file id, code
        self._reqs = 0

    # Sending

    async def send(self, line: Line, conn: str, seat: Seat) -> None:
        """Sends a new file, or goes on with one that broke off. Raises LostError, RefusedError."""
        waiting = [draft for draft in self._drafts if draft.room == seat.room]
        draft = self._dice.choice(waiting) if waiting else self._compose(seat.room)
        asked = {"name": draft.name, "size": len(draft.data), "sha256": draft.sha256}
        try:
            offered = await line.ask("file_offer", asked, seat.room)
        except RefusedError as error:
            if error.code in REFUSED:
                self._drafts.remove(draft)
            raise
        # Another id than before: the offer before was posted, or given up; nobody asks any more.
        draft.file_id = offered["file_id"]
        self._reqs += 1
        about = {
            "c": self._name, "conn": f"{conn}/{draft.file_id}", "room": seat.room, "key": file_key(draft.file_id),
            "h": short(draft.sha256), "req": self._reqs,
        }  # fmt: skip
        self._board.log.write(e.Invoke, **about)
        answer = self._sending[draft.file_id] = asyncio.get_running_loop().create_future()
        try:
            self._write(line, draft, offered["offset"])
            lost = asyncio.create_task(line.lost.wait())
            await asyncio.wait({answer, lost}, timeout=MOVES_S, return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
        finally:
            del self._sending[draft.file_id]
            self._settle(draft, about, seat.epoch, answer.result() if answer.done() else None)

    def _compose(self, room: str) -> Draft:
        data = self._dice.randbytes(self._dice.choice(SIZES) + self._dice.randrange(500))
        draft = Draft(room, self._dice.choice(NAMES), data, hashlib.sha256(data).hexdigest())
        self._drafts = [*self._drafts[-UNFINISHED_MAX + 1 :], draft]
        return draft

    def _write(self, line: Line, draft: Draft, offset: int) -> None:
        for start in range(offset, len(draft.data), CHUNK_BYTES):
            piece = draft.data[start : min(start + CHUNK_BYTES, len(draft.data))]
            head = b"\x01" + bytes.fromhex(draft.file_id) + start.to_bytes(8, "big")
            line.wire.send_payload(head + piece)

    def _settle(self, draft: Draft, about: dict[str, object], epoch: str, answer: Frame | None) -> None:
        log, data = self._board.log, {} if answer is None else answer["data"]
        if answer is not None and answer["type"] == "file_done":
            log.write(e.Ok, **about, epoch=epoch, seq=data["seq"])
            sent = log.write(
                e.FileOk, c=self._name, room=draft.room, id=draft.file_id, sha256=draft.sha256, size=len(draft.data)
            )
            self._board.files[draft.file_id] = sent
            self._board.acknowledged(draft.room, data["seq"])
        elif data.get("code") in REFUSED:
            log.write(e.Fail, **about, code=data["code"])
            self._board.refusals[f"file: {data['code']}"] += 1
        else:
            log.write(e.Info, **about, why=str(data.get("code", "lost")))
            return
        if draft in self._drafts:
            self._drafts.remove(draft)

    # Fetching

    async def fetch(self, line: Line, seat: Seat) -> None:
        """Fetches one of the room's files, from where an earlier try ended. Raises LostError, RefusedError."""
        files = [file for file in self._board.files.values() if file.room == seat.room]
        if files:
            await self.fetch_one(line, self._dice.choice(files[-20:]))

    async def fetch_one(self, line: Line, file: e.FileOk) -> None:
        """Fetches this one. Raises LostError, RefusedError."""
        data = self._fetching.setdefault(file.id, bytearray())
        self._cancelled.pop(file.id, None)
        found = await line.ask("file_get", {"file_id": file.id, "offset": len(data)})
        while len(data) < found["size"]:
            self._moved.clear()
            had = len(data)
            lost = asyncio.create_task(line.lost.wait())
            moved = asyncio.create_task(self._moved.wait())
            await asyncio.wait({lost, moved}, timeout=MOVES_S, return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            moved.cancel()
            if file.id in self._cancelled:
                raise RefusedError(self._cancelled.pop(file.id), 0.3)
            if len(data) == had and not self._moved.is_set():
                line.hang_up("a file does not move")
            if len(data) > had:
                acknowledged = {"file_id": file.id, "offset": len(data)}
                line.wire.send({"type": "file_ack", "data": acknowledged})
        del self._fetching[file.id]
        sha256 = hashlib.sha256(data).hexdigest()
        self._board.log.write(e.FileRecv, c=self._name, room=file.room, id=file.id, sha256=sha256, size=len(data))

    # What comes in

    def on_chunk(self, payload: bytes) -> None:
        """A piece of something that is being fetched."""
        file_id, offset = payload[1:17].hex(), int.from_bytes(payload[17:25], "big")
        data = self._fetching.get(file_id)
        if data is not None and offset == len(data):  # otherwise it is of a try that was given up
            data += payload[25:]
            self._moved.set()

    def on_event(self, frame: Frame) -> bool:
        """Whether the event was about a file."""
        file_id = frame["data"].get("file_id")
        if file_id is None:
            return False
        if frame["type"] in {"file_done", "error"}:
            answer = self._sending.get(file_id)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif frame["type"] == "file_cancel":
            self._cancelled[file_id] = str(frame["data"].get("code"))
            self._moved.set()
        return True
