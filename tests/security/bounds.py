"""Bounds: frames that lie, bombs, floods and terminal escapes; each ends in a clear answer and a server that serves."""

from __future__ import annotations

import asyncio
import json
import struct
import time

from tests.helpers.raw_client import ClosedError, RawClient, encode, pack
from tests.security.attempt import Attempt, Check, demand, demand_code, fresh

_ANONYMOUS = 80  # an address may hold 64 that are not logged in
_FLOOD = 400  # the bucket holds 100
_FAULTS = 40  # 20 a minute are borne
_PARTIAL_S = 10.0  # docs/protocol.md


async def _serves(attempt: Attempt) -> None:
    client = await attempt.connect()
    reply = await client.request("heartbeat")
    demand(reply["type"] == "heartbeat", "the server does not serve any more")


async def _ends(attempt: Attempt, data: bytes, code: str) -> None:
    """These bytes must be answered with this error, and the connection closed."""
    client = await attempt.connect()
    await client.send_bytes(data)
    demand(await client.is_closed(), f"{data[:12]!r}: the connection stays open")
    codes = [frame["data"].get("code") for frame in client.events if frame["type"] == "error"]
    demand(code in codes, f"{data[:12]!r}: {codes} in place of {code}")


async def check_frames_that_lie(attempt: Attempt) -> str:
    await _ends(attempt, struct.pack(">I", 0), "bad_frame")
    await _ends(attempt, pack(b"\x02abc"), "bad_frame")
    for size in (65_537 + 24 + 1, 1 << 31, 0xFFFFFFFF):
        await _ends(attempt, struct.pack(">I", size), "frame_too_large")
    await _serves(attempt)
    return "empty, unknown and up to 4 GiB, closed at once"


async def check_json_bombs(attempt: Attempt) -> str:
    client = await attempt.connect()
    nested = b'{"type":"heartbeat","data":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}"
    bombs = (
        nested,
        b'{"type":"heartbeat","data":{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
        b'{"type":"heartbeat","data":{"a":' + b"9" * 60_000 + b"}}",
        b'{"type":"heartbeat","data":{"a":NaN}}',
        b'{"type":"heartbeat","data":{"a":"\\ud800"}}',
        b'{"type":"heartbeat","data":{"a":"\xff\xfe"}}',
        b'{"type":',
        b"{",
    )
    for bomb in bombs:
        await client.send_bytes(pack(bomb))
        frame = await client.wait_for(lambda frame: frame["type"] == "error")
        demand(frame["data"]["code"] in {"bad_json", "bad_request"}, f"{bomb[:40]!r}: {frame['data']}")
    demand((await client.request("heartbeat"))["type"] == "heartbeat", "the connection did not survive")
    return f"{len(bombs)} refused, the connection goes on"


async def check_faults_are_counted(attempt: Attempt) -> str:
    client = await attempt.connect()
    try:
        for _ in range(_FAULTS):
            await client.send_bytes(pack(b"{"))
    except ClosedError:
        pass
    demand(await client.is_closed(), f"{_FAULTS} faulty frames are borne")
    return "closed after 20 in a minute"


async def check_escapes_are_refused(attempt: Attempt) -> str:
    client = await attempt.person()
    room_id = (await client.expect("create_room", {"name": fresh()}))["room_id"]
    texts = ("\x1b[2J", "\x9b31m", "\x07", "a\x00b", "\x7f", "\r", "\x1b]0;title\x07", "x" * 4_001, "")
    for text in texts:
        await demand_code(client, {"bad_request", "too_large"}, "text_message", {"room_id": room_id, "text": text})
    names = ("\x1b[2J", "a\u202eb", "line\nbreak", "\x00", "x" * 65, "")
    for name in names:
        await demand_code(client, {"bad_room_name", "bad_request"}, "create_room", {"name": name})
    return f"{len(texts)} texts and {len(names)} names refused"


async def check_flood_of_texts(attempt: Attempt) -> str:
    client = await attempt.person()
    room_id = (await client.expect("create_room", {"name": fresh()}))["room_id"]
    frames = (
        encode({"type": "text_message", "id": f"f{n}", "room_id": room_id, "data": {"text": "x"}})
        for n in range(_FLOOD)
    )
    await client.send_bytes(b"".join(frames))
    answers = [await client.wait_for(lambda frame: str(frame.get("re", "")).startswith("f")) for _ in range(_FLOOD)]
    refused = [frame for frame in answers if frame["type"] == "error"]
    demand(refused, f"{_FLOOD} texts at once were taken")
    wrong = [frame for frame in refused if frame["data"]["code"] not in {"rate_limited", "overloaded"}]
    demand(not wrong, f"refused with {wrong[:1]}")
    demand(all(frame["data"].get("retry_after_s", 0) > 0 for frame in refused), "no time to try again")
    return f"{len(refused)} of {_FLOOD} refused, each with a time"


async def check_flood_of_commands(attempt: Attempt) -> str:
    client = await attempt.person()
    await client.send_bytes(
        b"".join(encode({"type": "list_rooms", "id": f"f{n}", "data": {"limit": 1}}) for n in range(_FLOOD))
    )
    answers = [await client.wait_for(lambda frame: str(frame.get("re", "")).startswith("f")) for _ in range(_FLOOD)]
    refused = [frame["data"] for frame in answers if frame["type"] == "error"]
    demand(refused, f"{_FLOOD} commands at once were taken")
    wrong = [data for data in refused if data["code"] not in {"rate_limited", "overloaded"}]
    demand(not wrong, f"refused with {wrong[:1]}")
    return f"{len(refused)} of {_FLOOD} refused"


async def check_half_a_frame(attempt: Attempt) -> str:
    client = await attempt.connect()
    started = time.monotonic()
    await client.send_bytes(struct.pack(">I", 60_000) + b"{")
    for _ in range(3):  # a byte now and then does not buy more time
        await asyncio.sleep(1.0)
        await client.send_bytes(b" ")
    demand(await client.is_closed(2 * _PARTIAL_S), f"half a frame is waited for longer than {2 * _PARTIAL_S:g} s")
    return f"closed after {time.monotonic() - started:.0f} s"


async def check_crowd_of_strangers(attempt: Attempt) -> str:
    crowd: list[RawClient] = []
    for _ in range(_ANONYMOUS):
        try:
            crowd.append(await attempt.connect(hello=False))
        except OSError:
            break
    await attempt.person()  # somebody behind the same address still gets in
    return f"{len(crowd)} silent connections, and a person still logs in"


async def check_guessing_is_slowed(attempt: Attempt) -> str:
    name = (await attempt.person()).username
    client = await attempt.connect()
    for number in range(60):
        reply = await client.request("auth_request", {"username": name, "password": f"guess number {number}"})
        if reply["data"]["code"] == "rate_limited":
            demand(reply["data"].get("retry_after_s", 0) > 0, "no time to try again")
            return f"after {number} guesses"
        await asyncio.sleep(0)
    demand(False, "60 guesses in a row were looked at")
    return ""


async def check_unknown_types(attempt: Attempt) -> str:
    client = await attempt.person()
    for type_ in ("success", "admin", "__class__", "x" * 1_000, "server_info"):
        await demand_code(client, {"unknown_type", "bad_request"}, type_, json.loads("{}"))
    return "5 refused"


CHECKS: dict[str, Check] = {
    "frames that lie close the connection": check_frames_that_lie,
    "JSON bombs are refused": check_json_bombs,
    "faulty frames are counted": check_faults_are_counted,
    "terminal escapes are refused": check_escapes_are_refused,
    "a flood of texts is refused with a time": check_flood_of_texts,
    "a flood of commands is refused": check_flood_of_commands,
    "half a frame is not waited for": check_half_a_frame,
    "a crowd of strangers locks nobody out": check_crowd_of_strangers,
    "guessing is slowed down": check_guessing_is_slowed,
    "unknown requests are refused": check_unknown_types,
}
