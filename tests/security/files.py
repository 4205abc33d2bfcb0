"""Files: names that are no names, sizes and numbers beyond the limits, and ids that somebody else knows."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from client.files.names import safe_name
from tests.helpers.file_client import send_file
from tests.security.attempt import Attempt, Check, demand, demand_code, fresh

if TYPE_CHECKING:
    from tests.helpers.raw_client import RawClient

_NAMES = ("../x", "/etc/passwd", "a\0b", "\x1b[2J", "x" * 5_000, "..", "", "a\\b", "\u202egpj.exe", "a\nb", "\x9b2J")
_ELSEWHERE = ("../../.ssh/authorized_keys", "/etc/cron.d/x", "C:\\x", "-rf", ".bashrc", "CON", "a/b", "..\\x", "~root")
_UNFINISHED_MAX = 32


async def _room(attempt: Attempt) -> tuple[RawClient, str]:
    owner = await attempt.person()
    return owner, str((await owner.expect("create_room", {"name": fresh()}))["room_id"])


async def check_hostile_file_names(attempt: Attempt) -> str:
    owner, room_id = await _room(attempt)
    for name in _NAMES:
        offer = {"room_id": room_id, "name": name, "size": 1, "sha256": "0" * 64}
        await demand_code(owner, {"bad_request", "bad_json"}, "file_offer", offer)
    await asyncio.to_thread(_demand_names_stay_in_the_folder)
    return f"{len(_NAMES)} refused, {len(_NAMES) + len(_ELSEWHERE)} harmless in the client"


def _demand_names_stay_in_the_folder() -> None:
    """What a server that lies may name a file all the same, the client saves under a name of the folder."""
    with tempfile.TemporaryDirectory(prefix="parley-security-") as folder:
        for name in (*_NAMES, *_ELSEWHERE):
            path = Path(folder) / safe_name(name)
            demand(path.resolve().parent == Path(folder).resolve(), f"{name!r} would be saved as {path}")
            demand(not path.name.startswith((".", "-", "~")), f"{name!r} would be saved as {path.name}")


async def check_file_limits(attempt: Attempt) -> str:
    owner, room_id = await _room(attempt)
    for size in (2**40, 2**62, -1, 1.5):
        offer = {"room_id": room_id, "name": "a", "size": size, "sha256": "0" * 64}
        await demand_code(owner, {"too_large", "quota_exceeded", "bad_request"}, "file_offer", offer)
    taken = 0
    for number in range(2 * _UNFINISHED_MAX):
        offer = {"room_id": room_id, "name": "a", "size": 10, "sha256": f"{number:064x}"}
        reply = await owner.request("file_offer", offer)
        if reply["type"] == "error":
            code = reply["data"]["code"]
            demand(code in {"quota_exceeded", "rate_limited", "overloaded"}, f"{reply['data']}")
            return f"4 sizes refused, {taken} uploads begun, then {code}"
        taken += 1
    demand(False, f"{taken} uploads at once")
    return ""


async def check_knowing_an_id_opens_nothing(attempt: Attempt) -> str:
    owner, room_id = await _room(attempt)
    file_id = await send_file(owner, room_id, b"canary-File-7c21e0")
    stranger = await attempt.person()
    await demand_code(stranger, {"not_a_member", "no_such_file"}, "file_get", {"file_id": file_id})
    await demand_code(stranger, {"not_a_member", "no_such_file"}, "file_cancel", {"file_id": file_id})
    await stranger.send_chunk(file_id, 0, b"overwritten")
    await stranger.request("heartbeat")
    demand(not stranger.chunks, "a stranger was sent the content")
    reply = await owner.expect("file_get", {"file_id": file_id})
    await owner.read_chunk()
    demand(owner.chunks[0][2] == b"canary-File-7c21e0", f"the content has changed: {reply}")
    return "neither read nor written by a stranger"


CHECKS: dict[str, Check] = {
    "hostile file names are refused": check_hostile_file_names,
    "files have limits": check_file_limits,
    "knowing a file's id opens nothing": check_knowing_an_id_opens_nothing,
}
