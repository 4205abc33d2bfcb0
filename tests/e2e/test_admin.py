"""`parley admin accounts` against a real stack of two edges: what it does takes effect, and is in the audit log."""

from __future__ import annotations

import asyncio
import json
import stat
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.people import People, fresh
from tests.helpers.stack import ROOT, Stack, eventually, parley, running_stack, whole_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PASSWORD = "correct horse battery"
OTHER = "another horse altogether"
COMMAND_S = 60.0


@pytest.fixture(scope="module")
def two_edges() -> Iterator[Stack]:
    # Throttled, so that there is something to unlock.
    with running_stack(edges=2, config="[auth]\nbcrypt_rounds = 4\n[metrics]\nstop_grace_s = 0.1\n") as running:
        yield running


@pytest.fixture
async def crowd(two_edges: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(two_edges, exits)


async def admin(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """Runs `parley admin` without a terminal; its status, output and errors."""
    command = parley("admin", "--home", str(stack.home), *arguments)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def done(stack: Stack, *arguments: str) -> Any:
    """What a command answers to a program."""
    status, out, err = await admin(stack, "--json", *arguments)
    assert status == 0, err
    return json.loads(out)


def audited(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(stack.home / "logs" / "audit.log")]


async def test_another_password_cuts_the_person_off_wherever_they_are(
    two_edges: Stack, crowd: People, tmp_path: Path
) -> None:
    name = fresh("alice")
    alice = await crowd.connect(edge=2)
    await alice.enter(name, PASSWORD)
    [session] = await done(two_edges, "accounts", "sessions", name)
    assert (session["username"], session["edge_name"], session["ended_at_ms"]) == (name, "edge-2", 0)
    file = tmp_path / "password"
    file.write_text(OTHER + "\n")
    status, _, err = await admin(two_edges, "accounts", "set-password", name, "--password-file", str(file))
    assert status == 1
    assert "--yes" in err
    answer = await done(two_edges, "accounts", "set-password", name, "--password-file", str(file), "--yes")
    assert answer == {"revoked_count": 1}
    await alice.event("goodbye", reason="revoked")
    assert await alice.is_closed()
    again = await crowd.connect(edge=1)
    refused = await again.request("auth_request", {"username": name, "password": PASSWORD})
    assert refused["data"]["code"] == "invalid_credentials"
    assert (await again.login(name, OTHER))["success"]
    text = (two_edges.home / "logs" / "audit.log").read_text() + two_edges.log_text()
    assert OTHER not in text


async def test_who_is_disabled_is_gone_and_stays_out(two_edges: Stack, crowd: People) -> None:
    name = fresh("bob")
    bob = await crowd.connect(edge=2)
    await bob.enter(name, PASSWORD)
    assert (await done(two_edges, "accounts", "disable", name, "--yes"))["disabled"]
    await bob.event("goodbye", reason="revoked")
    again = await crowd.connect(edge=1)
    refused = await again.request("auth_request", {"username": name, "password": PASSWORD})
    assert refused["data"]["code"] == "invalid_credentials"
    assert (await done(two_edges, "accounts", "show", name))["disabled"]
    assert not (await done(two_edges, "accounts", "enable", name))["disabled"]
    assert (await again.login(name, PASSWORD))["success"]
    assert (await done(two_edges, "accounts", "revoke", name, "--yes"))["revoked_count"] == 1
    await again.event("goodbye", reason="revoked")


async def test_who_was_guessed_at_is_let_in_again(two_edges: Stack, crowd: People) -> None:
    name = fresh("carol")
    carol = await crowd.connect()
    await carol.expect("register_request", {"username": name, "password": PASSWORD})
    for _ in range(12):  # the more often, the longer the wait, so that a slow machine gets there too
        refused = await carol.request("auth_request", {"username": name, "password": "a wrong guess"})
        if refused["data"]["code"] == "rate_limited":
            break
    assert refused["data"]["code"] == "rate_limited"
    shown = await done(two_edges, "accounts", "show", name)
    if shown["locked"]:  # a wait of a second may be over on a slow machine
        assert 0 < shown["locked_for_s"] <= 60
    await done(two_edges, "accounts", "unlock", name)
    assert (await carol.login(name, PASSWORD))["success"]


async def test_one_connection_is_closed_on_whichever_edge_it_is(two_edges: Stack, crowd: People) -> None:
    ann, ben = await crowd.person(edge=2), await crowd.person(edge=2)
    [own] = [one for one in await done(two_edges, "connections") if one["username"] == ann.username]
    assert own["edge"] == "edge-2"
    status, _, err = await admin(two_edges, "disconnect", own["connection_id"])
    assert (status, "--yes" in err) == (1, True)
    await done(two_edges, "disconnect", own["connection_id"], "--yes")
    assert await ann.is_closed()
    assert not [one for one in await done(two_edges, "connections") if one["username"] == ann.username]
    assert (await ben.request("heartbeat"))["type"] == "heartbeat"


async def test_every_command_is_in_the_audit_log(two_edges: Stack) -> None:
    name = fresh("nobody")
    status, _, err = await admin(two_edges, "accounts", "unlock", name)
    assert (status, "no such account" in err) == (1, True)
    await done(two_edges, "connections")
    await done(two_edges, "rooms", "list")
    await done(two_edges, "stats")
    path = two_edges.home / "logs" / "audit.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # The line of a call that is refused is written when its caller has the answer already.
    await asyncio.to_thread(
        eventually, lambda: any(line["target"].get("username") == name for line in audited(two_edges))
    )
    lines = audited(two_edges)
    [refused] = [line for line in lines if line["target"].get("username") == name]
    assert (refused["who"], refused["outcome"], refused["process"]) == ("admin/local", "bad_request", "auth-1")
    methods = {(line["process"], line["method"].rpartition("/")[2]) for line in lines}
    assert methods >= {
        ("edge-1", "ListConnections"),
        ("edge-2", "ListConnections"),
        ("rooms-1", "ListAllRooms"),
        ("metrics-1", "GetStatistics"),
    }


async def test_only_an_operators_certificate_opens(two_edges: Stack) -> None:
    """Each other identity of the installation, as the same command."""
    certificates = two_edges.home / "certificates"
    before = len(audited(two_edges)) if (two_edges.home / "logs" / "audit.log").exists() else 0
    for identity in ("edge", "auth", "rooms", "metrics"):
        for end in ("cert", "key"):
            disguise = certificates / f"admin-like-{identity}-{end}.pem"
            disguise.write_bytes((certificates / f"{identity}-{end}.pem").read_bytes())
        for command in (("accounts", "list"), ("accounts", "unlock", "x"), ("rooms", "list"), ("connections",)):
            status, out, err = await admin(two_edges, "--identity", f"like-{identity}", *command)
            assert (status, out) == (1, "")
            assert "forbidden" in err
    refused = audited(two_edges)[before:]
    assert {line["who"] for line in refused} == {"edge", "auth", "rooms", "metrics"}
    assert {line["outcome"] for line in refused} == {"forbidden"}


async def test_a_notice_reaches_everyone_and_a_drained_edge_sends_its_people_away(make_stack: Any) -> None:
    stack = make_stack(edges=2).start()
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        amy, ben = await people.person(edge=1), await people.person(edge=2)
        assert (await done(stack, "notice", "down at ten"))["recipient_count"] == 2
        for person in (amy, ben):
            assert (await person.event("notice"))["data"]["text"] == "down at ten"
        # A fifth of the grace is for ben to read his goodbye.
        drained = await done(stack, "drain", "edge-2", "--grace", "30", "--yes")
        assert (drained["told_count"], drained["left_count"]) == (1, 0)
        await ben.event("goodbye", reason="draining")
        assert await ben.is_closed()
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset, as the system has it
            await people.connect(edge=2)
        assert (await done(stack, "drain", "edge-2", "--yes"))["told_count"] == 0
        room = await people.room(amy)
        assert (await amy.say(room, "still here"))["seq"] == 1
        stack.kill("edge-2")  # its next start takes clients again
        await people.person(edge=2)


async def test_processes_say_how_they_are_and_log_as_they_are_told(two_edges: Stack) -> None:
    rows = {row["name"]: row for row in await done(two_edges, "processes")}
    assert {name: row["pid"] for name, row in rows.items()} == two_edges.pids()
    assert all(row["resident_bytes"] > 10_000_000 and row["cpu_s"] > 0 for row in rows.values())
    [changed] = await done(two_edges, "log-level", "debug", "auth")
    assert changed["log_level"] == "debug"
    levels = {row["name"]: row["log_level"] for row in await done(two_edges, "processes")}
    assert {name for name, level in levels.items() if level == "debug"} == {"auth-1"}
    await done(two_edges, "log-level", "info", "auth-1")
