"""The columns of the feed as rows, and rows as columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parley.rooms.v1 import feed_pb2, rooms_pb2


class PublishRow(NamedTuple):
    """One message to store."""

    number: int
    room_id: str = ""
    user_id: str = ""
    username: str = ""
    text: str = ""
    key: str = ""


class MessageRow(NamedTuple):
    """One message of a room."""

    seq: int
    username: str
    text: str
    sent_at_ms: int
    file: rooms_pb2.File | None = None


def publishes(*rows: PublishRow) -> feed_pb2.Publishes:
    columns = list(zip(*rows, strict=True))
    return feed_pb2.Publishes(
        numbers=columns[0],
        room_ids=columns[1],
        user_ids=columns[2],
        usernames=columns[3],
        texts=columns[4],
        keys=columns[5],
    )


def publish_rows(columns: feed_pb2.Publishes | None) -> list[PublishRow]:
    if columns is None:
        return []
    fields = (columns.numbers, columns.room_ids, columns.user_ids, columns.usernames, columns.texts, columns.keys)
    return [PublishRow(*row) for row in zip(*fields, strict=True)]


def room_messages(room_id: str, epoch: str, rows: Iterable[MessageRow]) -> feed_pb2.RoomMessages:
    made = feed_pb2.RoomMessages(room_id=room_id, epoch=epoch)
    append(made, rows)
    return made


def append(target: feed_pb2.RoomMessages, rows: Iterable[MessageRow]) -> None:
    for row in rows:
        target.first_seq = target.first_seq or row.seq
        target.usernames.append(row.username)
        target.texts.append(row.text)
        target.sent_at_ms.append(row.sent_at_ms)
        if row.file is not None:
            target.files[row.seq].CopyFrom(row.file)


def message_rows(room: feed_pb2.RoomMessages) -> list[MessageRow]:
    rows = zip(room.usernames, room.texts, room.sent_at_ms, strict=True)
    files = dict(room.files)
    return [MessageRow(seq, *row, files.get(seq)) for seq, row in enumerate(rows, start=room.first_seq)]


def results(response: feed_pb2.AttachResponse) -> list[feed_pb2.PublishResult]:
    """What became of all messages, in one form."""
    stored = response.stored
    rows = zip(stored.numbers, stored.epochs, stored.seqs, stored.sent_at_ms, strict=True)
    return [
        *(
            feed_pb2.PublishResult(number=number, epoch=epoch, seq=seq, sent_at_ms=sent_at_ms)
            for number, epoch, seq, sent_at_ms in rows
        ),
        *response.results,
    ]
