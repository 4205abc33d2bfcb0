"""Files in SQL: offers, their states, quotas, and which contents are kept. Functions that take a connection.

A content is referred to by files that are whole or posted. Whoever makes one whole says so here first and puts the
content into its place then; whoever removes one says that first, too. So the database knows every content at any time,
and what it does not know is an orphan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, exists, func, insert, or_, select, update
from sqlalchemy import delete as delete_from

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.files import rules
from services.rooms.files.rules import Usage
from services.rooms.log import FILE_COLUMNS
from services.rooms.messages import File
from services.rooms.store import find_room_of_member
from services.rooms.tables import contents, files, members, rooms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from services.rooms.files.rules import FileLimits, Offer
    from services.rooms.store import RoomRecord

    # Says that a content, by its hash, is being removed; False where that must not be.
    BeginRemoval = Callable[[Connection, str], bool]
    # Which of these ids or hashes the database knows.
    WhichKnown = Callable[[Connection, Sequence[str]], set[str]]

OPEN: Final = "open"
WHOLE: Final = "whole"
POSTED: Final = "posted"
EXPIRED: Final = "expired"

_COUNTED: Final = (OPEN, WHOLE, POSTED)
_UNFINISHED: Final = (OPEN, WHOLE)
_KEEPING: Final = (WHOLE, POSTED)
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that was offered: what it is, whose, where, and how far it has come."""

    file: File
    room_id: str
    room_number: int
    epoch: str
    user_id: str
    username: str
    state: str
    seq: int | None
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class Sender:
    """Who offers a file."""

    user_id: str
    username: str


def _select_files() -> Select[Any]:
    columns = (
        rooms.c.room_id,
        files.c.room_number,
        rooms.c.epoch,
        files.c.user_id,
        files.c.username,
        files.c.state,
        files.c.seq,
        files.c.changed_at_ms,
    )
    joined = files.join(rooms, rooms.c.number == files.c.room_number)
    return select(*FILE_COLUMNS, *columns).select_from(joined)


def _fetch(connection: Connection, query: Select[Any]) -> list[FileRecord]:
    width = len(FILE_COLUMNS)
    return [FileRecord(File(*row[:width]), *row[width:]) for row in map(tuple, connection.execute(query))]


def find_file(connection: Connection, file_id: str) -> FileRecord | None:
    """The file with this id."""
    return next(iter(_fetch(connection, _select_files().where(files.c.file_id == file_id))), None)


def find_file_of_sender(connection: Connection, file_id: str, user_id: str) -> FileRecord:
    """The file that this person offered. Raises ParleyError no_such_file."""
    record = find_file(connection, file_id)
    if record is None or record.user_id != user_id:
        raise no_such_file()
    return record


def find_file_for(connection: Connection, file_id: str, user_id: str) -> FileRecord:
    """The posted file for a member of its room. Raises ParleyError no_such_file, not_a_member."""
    record = find_file(connection, file_id)
    if record is None or record.state != POSTED:
        raise no_such_file("is no longer kept" if record is not None and record.state == EXPIRED else "")
    try:
        find_room_of_member(connection, record.room_id, user_id)
    except ParleyError as error:
        if error.code is ErrorCode.NO_SUCH_ROOM:  # a private room: its files are not there either
            raise no_such_file() from None
        raise
    return record


def no_such_file(why: str = "") -> ParleyError:
    """What is said of a file that is not there, and of one that the person may not know of."""
    return ParleyError(ErrorCode.NO_SUCH_FILE, f"this file {why}" if why else "there is no such file")


def check_offer(connection: Connection, sender: Sender, reference: str, offer: Offer, limits: FileLimits) -> None:
    """Raises what `offer_file` would raise; for a reader, so that what is refused costs the writer nothing."""
    room = _find_open_room(connection, reference, sender.user_id)
    if _find_earlier(connection, sender, room.number, offer) is None:
        _check_quotas(connection, sender, room.number, offer, limits)


def offer_file(
    connection: Connection,
    sender: Sender,
    reference: str,
    offer: Offer,
    *,
    file_id: str,
    limits: FileLimits,
    now_ms: int,
) -> FileRecord:
    """The file: that of an earlier offer like this, or a new one with this id.

    An earlier one is the same transfer, by its sender's name for it, or else an unfinished one of the same content.

    Raises ParleyError no_such_room, not_a_member, forbidden (the room is closed), quota_exceeded.
    """
    room = _find_open_room(connection, reference, sender.user_id)
    found = _find_earlier(connection, sender, room.number, offer)
    if found is not None:
        touch(connection, found.file.file_id, now_ms, transfer_id=offer.transfer_id)
        return found
    _check_quotas(connection, sender, room.number, offer, limits)
    is_known = not offer.is_open_ended and _may_know(connection, sender.user_id, offer)
    values = {
        "file_id": file_id,
        "room_number": room.number,
        "user_id": sender.user_id,
        "username": sender.username,
        "name": offer.name,
        "mime": offer.mime,
        "size": offer.size,
        "sha256": offer.sha256,
        "state": WHOLE if is_known else OPEN,
        "changed_at_ms": now_ms,
        "transfer_id": offer.transfer_id,
        "piece_bytes": offer.piece_bytes,
    }
    connection.execute(insert(files).values(values))
    return find_file_of_sender(connection, file_id, sender.user_id)


def _find_open_room(connection: Connection, reference: str, user_id: str) -> RoomRecord:
    room = find_room_of_member(connection, reference, user_id)
    if room.is_closed:
        raise ParleyError(ErrorCode.FORBIDDEN, "this room is closed")
    return room


def _find_earlier(connection: Connection, sender: Sender, number: int, offer: Offer) -> FileRecord | None:
    if offer.is_open_ended:
        return None
    same = and_(
        files.c.user_id == sender.user_id,
        files.c.room_number == number,
        files.c.size == offer.size,
        files.c.sha256 == offer.sha256,
        files.c.name == offer.name,
    )
    query = _select_files().where(same).limit(1)
    if offer.transfer_id:
        found = _fetch(connection, query.where(files.c.transfer_id == offer.transfer_id))
        if found:
            return found[0]
    return next(iter(_fetch(connection, query.where(files.c.state.in_(_UNFINISHED)))), None)


def _check_quotas(connection: Connection, sender: Sender, number: int, offer: Offer, limits: FileLimits) -> None:
    user = _usage(connection, files.c.user_id == sender.user_id)
    rules.check_user_quota(offer, limits, user)
    rules.check_room_quota(offer, limits, _usage(connection, files.c.room_number == number))


def _usage(connection: Connection, which: ColumnElement[bool]) -> Usage:
    query = select(
        func.count(), func.coalesce(func.sum(files.c.size), 0), func.count().filter(files.c.state != POSTED)
    ).where(which, files.c.state.in_(_COUNTED))
    return Usage(*connection.execute(query).one())


def _may_know(connection: Connection, user_id: str, offer: Offer) -> bool:
    """Whether the content is kept and the person has it: they sent it, or it is in one of their rooms.

    To everybody else a hash must not open a file: who has heard of it would be given what they never had.
    """
    in_my_room = exists().where(members.c.room_number == files.c.room_number, members.c.user_id == user_id)
    posted = select(files.c.number).where(
        files.c.sha256 == offer.sha256,
        files.c.size == offer.size,
        files.c.state == POSTED,
        or_(files.c.user_id == user_id, in_my_room),
    )
    return connection.execute(posted.limit(1)).first() is not None


def touch(connection: Connection, file_id: str, now_ms: int, *, transfer_id: str = "") -> None:
    """Something has happened with an unfinished file; `transfer_id`: what its sender calls it from now on."""
    mine = and_(files.c.file_id == file_id, files.c.state.in_(_UNFINISHED))
    values: dict[str, Any] = {"changed_at_ms": now_ms}
    if transfer_id:
        values["transfer_id"] = transfer_id
    connection.execute(update(files).where(mine).values(values))


def claim_content(connection: Connection, file_id: str, *, sha256: str, size: int, now_ms: int) -> bool:
    """Says that an open file is whole, before its content takes its place. False: that content is being removed.

    Raises ParleyError no_such_file where the file has been given up.
    """
    kept = connection.execute(select(contents.c.is_removing).where(contents.c.sha256 == sha256)).scalar_one_or_none()
    if kept:
        return False
    found = and_(files.c.file_id == file_id, files.c.state.in_(_UNFINISHED))
    values = {"state": WHOLE, "sha256": sha256, "size": size, "changed_at_ms": now_ms}
    if connection.execute(update(files).where(found).values(values)).rowcount == 0:
        raise no_such_file()
    if kept is None:
        connection.execute(insert(contents).values(sha256=sha256, size=size, is_removing=False))
    return True


def give_up(connection: Connection, file_id: str) -> str:
    """Takes back an unfinished file. Returns the hash of its content, if that may be without a reference now.

    Raises ParleyError no_such_file, and conflict where it is posted.
    """
    row = connection.execute(select(files.c.state, files.c.sha256).where(files.c.file_id == file_id)).first()
    if row is None:
        raise no_such_file()
    state, sha256 = row
    if state not in _UNFINISHED:
        raise ParleyError(ErrorCode.CONFLICT, "this file is posted")
    connection.execute(delete_from(files).where(files.c.file_id == file_id))
    return str(sha256) if state == WHOLE else ""


def begin_removal(connection: Connection, sha256: str) -> bool:
    """Says that a content is being removed, unless a file refers to it or it is not there."""
    referred = exists().where(files.c.sha256 == sha256, files.c.state.in_(_KEEPING))
    unwanted = and_(contents.c.sha256 == sha256, ~referred)
    return connection.execute(update(contents).where(unwanted).values(is_removing=True)).rowcount == 1


def begin_orphan_removal(connection: Connection, sha256: str) -> bool:
    """Says that a content that is in the store only is being removed. False where the database knows it by now."""
    if connection.execute(select(contents.c.size).where(contents.c.sha256 == sha256)).first() is not None:
        return False
    connection.execute(insert(contents).values(sha256=sha256, size=0, is_removing=True))
    return True


def lose_content(connection: Connection, sha256: str) -> None:
    """The store has lost a content: the files that were posted with it can only be shown any more."""
    lost = and_(files.c.sha256 == sha256, files.c.state == POSTED)
    connection.execute(update(files).where(lost).values(state=EXPIRED))
    connection.execute(delete_from(contents).where(contents.c.sha256 == sha256))


def end_removal(connection: Connection, sha256: str) -> None:
    """The content is gone."""
    removing = and_(contents.c.sha256 == sha256, contents.c.is_removing.is_(True))
    connection.execute(delete_from(contents).where(removing))


def expire_posted(connection: Connection, *, before_ms: int, limit: int) -> list[str]:
    """Takes the bytes from files that were posted before that time; returns the hashes of their contents."""
    due = and_(files.c.state == POSTED, files.c.changed_at_ms < before_ms)
    rows = connection.execute(select(files.c.number, files.c.sha256).where(due).limit(limit)).all()
    numbers = [row[0] for row in rows]
    connection.execute(update(files).where(files.c.number.in_(numbers)).values(state=EXPIRED))
    return sorted({row[1] for row in rows})


def unfinished_before(connection: Connection, before_ms: int, limit: int) -> list[str]:
    """Ids of unfinished files with which nothing has happened since that time."""
    due = and_(files.c.state.in_(_UNFINISHED), files.c.changed_at_ms < before_ms)
    return list(connection.execute(select(files.c.file_id).where(due).limit(limit)).scalars())


def unwanted_contents(connection: Connection, limit: int) -> list[str]:
    """Hashes of contents to which nothing refers."""
    referred = exists().where(files.c.sha256 == contents.c.sha256, files.c.state.in_(_KEEPING))
    return list(connection.execute(select(contents.c.sha256).where(~referred).limit(limit)).scalars())


def known_parts(connection: Connection, file_ids: Sequence[str]) -> set[str]:
    """Which of these ids are of unfinished files."""
    query = select(files.c.file_id).where(files.c.state.in_(_UNFINISHED))
    return {
        one
        for part in _chunks(file_ids)
        for one in connection.execute(query.where(files.c.file_id.in_(part))).scalars()
    }


def known_contents(connection: Connection, hashes: Sequence[str]) -> set[str]:
    """Which of these hashes are of contents that the database knows."""
    query = select(contents.c.sha256)
    return {
        one
        for part in _chunks(hashes)
        for one in connection.execute(query.where(contents.c.sha256.in_(part))).scalars()
    }


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def list_files(
    connection: Connection, user_id: str, reference: str, *, before_seq: int | None, limit: int
) -> tuple[str, list[FileRecord]]:
    """The room's id and up to `limit` of its posted files, the newest first. Raises no_such_room, not_a_member."""
    room = find_room_of_member(connection, reference, user_id)
    query = _select_files().where(files.c.room_number == room.number, files.c.seq.is_not(None))
    if before_seq is not None:
        query = query.where(files.c.seq < before_seq)
    return room.room_id, _fetch(connection, query.order_by(files.c.seq.desc()).limit(limit))
