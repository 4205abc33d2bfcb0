"""Canaries: no password, token or text turns up in a log, in statistics, or in a database it has no business in."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.helpers.people import People, fresh
from tests.helpers.raw_client import encode, pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.stack import Stack

PASSWORD = "canary-Password-7f3a9c"
WRONG = "canary-Wrong-51bd02"
TEXT = "canary-Text-c4e8d1"
BAD_TOKEN = "canary-Token-" + "x" * 40


def holders(directory: Path, needle: str) -> set[str]:
    """Names of the files below `directory` that hold the string."""
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and needle.encode() in path.read_bytes()
    }


async def live(people: People) -> str:
    """Uses secrets in every way, also wrongly; returns the token."""
    name = fresh()
    client = await people.connect()
    await client.expect("register_request", {"username": name, "password": PASSWORD})
    for who, password in ((name, WRONG), (fresh(), PASSWORD), (PASSWORD, PASSWORD), (name, PASSWORD * 20)):
        assert not (await client.request("auth_request", {"username": who, "password": password}))["data"]["success"]
    token = str((await client.login(name, PASSWORD))["token"])
    room_id = await people.room(client)
    await client.say(room_id, TEXT, key="k")
    await client.messages(room_id, 1)
    assert await client.refused("text_message", {"text": TEXT + "!", "key": "k"}, room_id=room_id) == "conflict"
    assert await client.refused("text_message", {"text": TEXT}, room_id="abcdefgh")
    assert await client.refused("text_message", {"text": TEXT + "\0"}, room_id=room_id) == "bad_request"

    faulty = await people.connect()
    await faulty.request("resume", {"token": BAD_TOKEN, "rooms": {}})
    await faulty.request("register_request", {"username": 5, "password": PASSWORD})
    await faulty.request("auth_request", {"username": name, "password": [PASSWORD], "device": TEXT})
    broken = json.dumps({"type": "auth_request", "data": {"username": name, "password": PASSWORD}})[:-1]
    await faulty.send_bytes(pack(broken.encode()))
    await faulty.send_bytes(encode({"type": PASSWORD, "data": {"token": token}}))
    await faulty.request("heartbeat")
    await faulty.send_bytes(pack(PASSWORD.encode()))
    assert await faulty.is_closed()
    return token


async def test_secrets_stay_where_they_belong(make_stack: Callable[..., Stack]) -> None:
    config = "[common]\nlog_level = 'debug'\n[auth]\nbcrypt_rounds = 4\n[metrics]\nstats_interval_s = 1\n"
    stack = await asyncio.to_thread(make_stack(config=config).start)
    async with AsyncExitStack() as exits:
        token = await live(People(stack, exits))
        await asyncio.to_thread(stack.kill, "rooms-1")
        await People(stack, exits).heal()
        await live(People(stack, exits))
    assert await asyncio.to_thread(stack.stop) == 0

    for secret in (PASSWORD, WRONG, token, BAD_TOKEN):
        assert holders(stack.home, secret) == set()
        assert secret not in stack.log_text()
    with_text = holders(stack.home, TEXT)
    assert with_text
    assert all(name.startswith("data/rooms.db") for name in with_text), with_text
    assert TEXT not in stack.log_text()
