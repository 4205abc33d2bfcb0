"""How transfers are told: a line that shows how far one is, and what became of it. Pure: time comes in."""

from __future__ import annotations

from client.display import Line, clean, error, note, success
from client.errors import ClientError, RequestError
from client.files.answers import FileInfo
from client.files.progress import bar, percent, size_text, time_text
from client.files.transfer import Phase, Transfer

NAME_CHARS = 24
ID_CHARS = 8
"""Enough of an id to tell the files of a room apart."""

_REFUSALS = {
    "hash_mismatch": "it was changed while it was being sent",
    "not_a_member": "you are not a member of the room",
    "no_such_room": "the room is not there any more",
    "unknown_type": "this server does not take files",
}


def short_id(file_id: str) -> str:
    """An id as it is shown and typed."""
    return file_id[:ID_CHARS]


def file_text(file: FileInfo) -> str:
    """A file in a message."""
    return f"[file {clean(file.name)}, {size_text(file.size)}: /get {short_id(clean(file.file_id))}]"


def progress_text(transfer: Transfer, now: float) -> str:
    """How far a transfer is, in less than 80 columns; `now` is the clock's that its rate was taken with."""
    name = clean(transfer.name) or short_id(transfer.entry.file_id)
    if len(name) > NAME_CHARS:
        name = f"{name[: NAME_CHARS - 1]}…"
    head = f"{transfer.number} {'↑' if transfer.is_upload else '↓'} {name}"
    done, size = transfer.done_bytes, transfer.size
    if transfer.phase is Phase.WAITING:
        reached = f" at {percent(done, size)} %" if done else ""
        return f"{head}  waits{reached}{f': {clean(transfer.reason)}' if transfer.reason else ''}"
    verb = "  reading" if transfer.phase is Phase.HASHING else ""
    parts = [f"{head}{verb}", bar(done, size), f"{percent(done, size)} %"]
    rate, left_s = transfer.rate.bytes_per_s(now), transfer.rate.left_s(now, size - done)
    if rate is not None:
        parts.append(f"{size_text(rate)}/s")
    if left_s is not None:
        parts.append(f"{time_text(left_s)} left")
    return "  ".join(parts)


def ended_lines(transfer: Transfer) -> list[Line]:
    """What became of a transfer."""
    name = clean(transfer.name) or short_id(transfer.entry.file_id)
    if transfer.phase is Phase.DONE:
        if transfer.is_upload:
            return [success(f"{name} ({size_text(transfer.size)}) is sent.")]
        return [success(f"{name} ({size_text(transfer.size)}) is saved as {transfer.saved_as}")]
    if transfer.phase is Phase.CANCELLED:
        return [note(f"{name} is cancelled. Nothing is left of it.")]
    verb = "sent" if transfer.is_upload else "fetched"
    return error(f"{name} was not {verb}: {_why(transfer.error)}")


def _why(problem: ClientError | None) -> str:
    if isinstance(problem, RequestError) and problem.code in _REFUSALS:
        return f"{_REFUSALS[problem.code]}."
    if isinstance(problem, RequestError):
        return f"{problem.message}."
    return str(problem or "nobody knows why.")


def resumed_line(transfer: Transfer) -> Line:
    """A transfer of an earlier run."""
    verb = "Sending" if transfer.is_upload else "Fetching"
    return note(f"{verb} {clean(transfer.name) or short_id(transfer.entry.file_id)} goes on: number {transfer.number}.")


def waits_line(transfer: Transfer, reason: str) -> Line:
    """A transfer that is tried again later."""
    return note(f"{clean(transfer.name)} waits: {reason}")
