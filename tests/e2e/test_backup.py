"""Backup, wipe, restore over real stacks: everything is there, under new epochs, and clients of the old ones notice."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.file_client import fetch, offer, send_file
from tests.helpers.people import People, fresh
from tests.helpers.stack import ROOT, parley

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.postgres import PostgresServer
    from tests.helpers.stack import Stack

DATA = os.urandom(300_000)
COMMAND_S = 60


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        parley(*map(str, arguments)), cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S, env=os.environ
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """Arguments that say where the data is."""
    if request.param == "sqlite":
        return []
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return ["--database", server.make_database()]


def another(place: list[str], request: pytest.FixtureRequest) -> list[str]:
    """The same kind of place, with nothing in it."""
    if not place:
        return []
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return ["--database", server.make_database()]


async def test_backup_wipe_restore_and_all_is_there(
    make_stack: Callable[..., Stack], place: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backup = tmp_path / "backup"
    stack = make_stack(extra=place)
    stack.start()
    name = fresh()
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice, bob = await people.person(name), await people.person()
        room_id = await people.room(alice, bob)
        for number in range(5):
            await alice.say(room_id, f"before {number}", key=f"k{number}")
        file_id = await send_file(alice, room_id, DATA)
        await offer(bob, room_id, b"never sent", name="half.txt")
        old = await alice.expect("history", {}, room_id=room_id)
        made = run("backup", "--home", stack.home, *place, "--certificates", backup)  # while people are connected
        assert made.returncode == 0, made.stderr
        assert "2 accounts, 1 rooms, 6 messages, 1 files" in made.stdout
        digest = made.stdout.split()[-1]
        lost = await alice.say(room_id, "after the backup")
        assert lost["seq"] == 7
        refused = run("restore", "--home", stack.home, *place, "--overwrite", backup)
        assert refused.returncode == 1
        assert "already uses" in refused.stderr
    stack.stop()

    refused = run("restore", "--home", stack.home, *place, backup)
    assert refused.returncode == 1
    assert "only --overwrite replaces" in refused.stderr

    shutil.rmtree(stack.home)
    fresh_place = another(place, request)
    checked = run("restore", "--check", "--digest", digest, backup)
    assert checked.returncode == 0, checked.stderr
    restored = run("restore", "--home", stack.home, *fresh_place, "--certificates", backup)
    assert restored.returncode == 0, restored.stderr
    stack = make_stack(extra=fresh_place, home=stack.home)
    stack.start()  # with the old authority, which clients trust
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice = await people.connect()
        token = (await alice.login(name))["token"]
        page = await alice.expect("history", {}, room_id=room_id)
        assert page["epoch"] != old["epoch"]
        assert page["messages"] == old["messages"]
        assert (await fetch(alice, file_id))[1] == DATA
        # A client that has read more than there is now is not told that it has missed nothing.
        alice.abort()
        back = await people.connect()
        position = {room_id: {"epoch": old["epoch"], "seq": 7}}
        answer = await back.expect("resume", {"token": token, "rooms": position})
        [room] = [room for room in answer["rooms"] if room["room_id"] == room_id]
        assert (room["recovered"], room["replay"], room["epoch"], room["last_seq"]) == (False, 0, page["epoch"], 6)
        # What it sends again under its key is stored once; what was lost gets a number in the new epoch.
        again = await back.say(room_id, "before 3", key="k3")
        assert (again["seq"], again["duplicate"]) == (4, True)
        stored = await back.say(room_id, "after the backup")
        assert (stored["epoch"], stored["seq"]) == (page["epoch"], 7)
        new = await people.person()
        await new.expect("join_room", room_id=room_id)
        await offer(new, room_id, DATA)


async def test_overwriting_moves_what_was_there_out_of_the_way(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_stack()
    stack.start()
    name = fresh()
    async with AsyncExitStack() as exits:
        await People(stack, exits).person(name)
        backup = tmp_path / "backup"
        assert run("backup", "--home", stack.home, backup).returncode == 0
        await People(stack, exits).person("latecomer")
    stack.stop()
    restored = run("restore", "--home", stack.home, "--overwrite", backup)
    assert restored.returncode == 0, restored.stderr
    moved = {path.name for path in stack.home.glob("data/replaced-*/*")}
    assert {"auth.db", "rooms.db"} <= moved
    stack.start()
    async with AsyncExitStack() as exits:
        client = await People(stack, exits).connect()
        assert await client.refused("auth_request", {"username": "latecomer", "password": "correct horse battery"})
        await client.login(name)


async def test_a_restore_that_was_cut_off_keeps_the_stack_from_starting(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_stack()
    stack.start()
    assert run("backup", "--home", stack.home, tmp_path / "backup").returncode == 0
    stack.stop()
    (stack.home / "data" / "restore-in-progress").touch()
    started = run("up", "--home", stack.home, "--port", str(stack.port))
    assert started.returncode == 1
    assert "a restore was cut off" in started.stderr
    assert run("restore", "--home", stack.home, "--overwrite", tmp_path / "backup").returncode == 0
    stack.start()
