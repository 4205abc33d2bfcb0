"""What the commands about files do: each action takes the chat and the words behind the command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from client import display
from client.actions import UsageError, joined_room
from client.files.answers import FileInfo
from client.files.paths import typed_path
from client.files.progress import size_text
from client.files.threads import in_thread
from client.files.transfer import Transfer
from client.files.words import ID_CHARS, progress_text, short_id
from client.words import Words

if TYPE_CHECKING:
    from client.chat import Chat

PAGE = 200
FILES_SHOWN_MAX = 200
"""Files that /files lists: what is older is found by those who know its id."""

ID_CHARS_MIN = 4
FILE_ID_CHARS = 32
NAME_BYTES_MAX = 255
"""What file systems take."""

_HEX = frozenset("0123456789abcdef")


async def send(chat: Chat, words: Words) -> None:
    """/file PATH."""
    typed = words.rest(0)
    if not typed:
        raise UsageError("Which file? Tab completes its path.")
    if chat.current is None:
        raise UsageError("Into which room? You are in none at the moment.")
    room = chat.current
    transfer = await chat.session.files.send(room.room_id, typed_path(typed))
    chat.show(
        display.note(
            f"Sending {transfer.name} ({size_text(transfer.size)}) to #{room.name}: number {transfer.number}; "
            f"/cancel {transfer.number} stops it."
        )
    )


async def get(chat: Chat, words: Words) -> None:
    """/get ID [PATH]."""
    if not words:
        raise UsageError(f"Which file? /files lists them; {ID_CHARS_MIN} characters of its id, or its name, will do.")
    file = await _find(chat, words[0])
    folder, wanted = await _target(chat, words.rest(1))
    transfer = await chat.session.files.fetch(file, folder, wanted)
    name = display.clean(file.name) or short_id(file.file_id)
    chat.show(display.note(f"Fetching {name}: number {transfer.number}; /cancel {transfer.number} stops it."))


async def files(chat: Chat, words: Words) -> None:
    """/files [ROOM]."""
    room = joined_room(chat, words)
    page = await chat.session.files.list_files(room.room_id, limit=PAGE)
    for file in reversed(page.files):
        chat.know_file(file)
    rows = [
        (
            short_id(file.file_id),
            file.name,
            size_text(file.size),
            file.username,
            f"{display.day_of(file.ts, chat.zone)} {display.clock_time(file.ts, chat.zone)}",
            "" if file.available else "no longer kept",
        )
        for file in page.files
    ]
    if rows:
        chat.show(*display.table(("ID", "NAME", "SIZE", "FROM", "SENT", ""), rows))
    else:
        chat.show(display.answer(f"No file was sent to #{display.clean(room.name)} yet: /file PATH sends one."))
    if page.next_before is not None:
        chat.show(display.answer(f"There are more; these are the newest {len(rows)}."))
    _show_under_way(chat)


async def cancel(chat: Chat, words: Words) -> None:
    """/cancel [NUMBER]."""
    under_way = list(chat.session.files)
    if not under_way:
        raise UsageError("Nothing is being sent or fetched.")
    await chat.session.files.cancel(_chosen(under_way, words))


def _chosen(under_way: list[Transfer], words: Words) -> Transfer:
    wanted = words.rest(0)
    found = [one for one in under_way if wanted in ("", str(one.number), one.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.number} ({display.clean(one.name)})" for one in under_way)
    if found:
        raise UsageError(f"Which one? There are {known}.")
    raise UsageError(f"There is no transfer {wanted!r}. There are {known}.")


def _show_under_way(chat: Chat) -> None:
    now = chat.clock.monotonic()
    for transfer in chat.session.files:
        chat.show(display.answer(progress_text(transfer, now)))


async def _find(chat: Chat, wanted: str) -> FileInfo:
    found = _known(chat, wanted)
    if not found and chat.current is not None and len(wanted) != FILE_ID_CHARS:
        page = await chat.session.files.list_files(chat.current.room_id, limit=PAGE)
        for file in reversed(page.files):
            chat.know_file(file)
        found = _known(chat, wanted)
    if not found and len(wanted) == FILE_ID_CHARS and _HEX.issuperset(wanted):
        return FileInfo(wanted, "", 0, "")  # the server knows the rest
    if not found:
        raise UsageError(f"No file {wanted!r} is known here: /files lists those of a room.")
    if len(found) > 1:
        names = ", ".join(f"{one.file_id[: 2 * ID_CHARS]} ({display.clean(one.name)})" for one in found[:5])
        raise UsageError(f"{wanted!r} may be any of: {names}. A longer beginning says which one.")
    return found[0]


def _known(chat: Chat, wanted: str) -> list[FileInfo]:
    if (file := chat.files.get(wanted)) is not None:
        return [file]
    if len(wanted) >= ID_CHARS_MIN and (
        begun := [file for file in chat.files.values() if file.file_id.startswith(wanted.lower())]
    ):
        return begun
    return [file for file in chat.files.values() if file.name == wanted][-1:]  # the newest of that name


async def _target(chat: Chat, typed: str) -> tuple[Path, str]:
    """The folder, and the name in it where one was typed."""
    if not typed:
        await in_thread(_make_downloads, chat.downloads)
        return chat.downloads, ""
    path = typed_path(typed)
    if len(os.fsencode(path.name)) > NAME_BYTES_MAX:
        raise UsageError(f"A file name has at most {NAME_BYTES_MAX} bytes.")
    if typed.endswith("/") or await in_thread(_is_folder, path):
        return path, ""
    return path.parent, path.name


def _is_folder(path: Path) -> bool:
    try:
        if path.is_dir():
            return True
        is_taken = os.path.lexists(path)
    except (OSError, ValueError) as problem:
        raise UsageError(f"{str(path)!r} cannot be the name of a file.") from problem
    if is_taken:
        raise UsageError(f"{path} is there already, and nothing is overwritten: give another name.")
    return False


def _make_downloads(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"The folder {folder} cannot be made: {problem.strerror}.") from problem
