"""`parley admin rooms` against a real stack of two edges: what operators do, and what people notice of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_admin import admin, audited, done
from tests.helpers.people import People, fresh
from tests.helpers.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def two_edges() -> Iterator[Stack]:
    with running_stack(edges=2) as running:
        yield running


@pytest.fixture
async def crowd(two_edges: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(two_edges, exits)


async def test_a_room_and_its_members_are_shown(two_edges: Stack, crowd: People) -> None:
    amy, ben = await crowd.person(edge=1), await crowd.person(edge=2)
    room_id = await crowd.room(amy, ben)
    await amy.say(room_id, "hello")
    shown = await done(two_edges, "rooms", "show", room_id)
    assert (shown["room_id"], shown["member_count"], shown["user_count"], shown["last_seq"]) == (room_id, 2, 2, 1)
    assert (shown["owner"], shown["closed"]) == (amy.username, False)
    members = await done(two_edges, "rooms", "members", room_id)
    assert {(one["username"], one["role"], one["online"]) for one in members} == {
        (amy.username, "owner", True),
        (ben.username, "member", True),
    }
    status, out, _ = await admin(two_edges, "rooms", "show", room_id)
    assert (status, shown["name"] in out) == (0, True)


async def test_an_announcement_is_for_those_who_are_in_the_room(two_edges: Stack, crowd: People) -> None:
    amy, ben, eve = await crowd.person(edge=1), await crowd.person(edge=2), await crowd.person(edge=2)
    room_id = await crowd.room(amy, ben)
    assert (await done(two_edges, "rooms", "announce", room_id, "cake at four"))["recipient_count"] == 2
    for person in (amy, ben):
        event = await person.event("notice")
        assert (event["data"]["text"], event["room_id"]) == ("cake at four", room_id)
    assert (await done(two_edges, "notice", "to all"))["recipient_count"] >= 3
    assert (await eve.event("notice"))["data"]["text"] == "to all"


async def test_a_closed_room_can_be_read_and_not_written(two_edges: Stack, crowd: People) -> None:
    amy, ben, eve = await crowd.person(edge=1), await crowd.person(edge=2), await crowd.person(edge=2)
    room_id = await crowd.room(amy, ben)
    await amy.say(room_id, "before")
    status, _, err = await admin(two_edges, "rooms", "close", room_id)
    assert (status, "--yes" in err) == (1, True)
    assert (await done(two_edges, "rooms", "close", room_id, "--reason", "Spring cleaning.", "--yes"))["closed"]
    assert (await ben.event("notice"))["data"]["text"] == "This room is closed. Spring cleaning."
    refused = await amy.request("text_message", {"room_id": room_id, "text": "now"})
    assert refused["data"]["code"] == "forbidden"
    refused = await eve.request("join_room", {"room_id": room_id})
    assert refused["data"]["code"] == "forbidden"
    refused = await amy.request(
        "file_offer", {"room_id": room_id, "name": "a.txt", "size": 1, "sha256": "0" * 64, "mime": "text/plain"}
    )
    assert refused["data"]["code"] == "forbidden"
    page = await ben.expect("history", {"room_id": room_id, "after_seq": 0})
    assert [message["text"] for message in page["messages"]] == ["before"]
    assert not (await done(two_edges, "rooms", "open", room_id))["closed"]
    assert (await amy.say(room_id, "after"))["seq"] == 2


async def test_a_deleted_room_is_gone_for_everyone_and_its_name_is_free(two_edges: Stack, crowd: People) -> None:
    amy, ben = await crowd.person(edge=1), await crowd.person(edge=2)
    name = fresh("room")
    room_id = (await amy.expect("create_room", {"name": name}))["room_id"]
    await ben.expect("join_room", room_id=room_id)
    await amy.say(room_id, "hello")
    status, _, err = await admin(two_edges, "rooms", "delete", name)
    assert (status, "--yes" in err) == (1, True)
    gone = await done(two_edges, "rooms", "delete", name, "--yes")
    assert (gone["room_id"], gone["member_count"], gone["message_count"]) == (room_id, 2, 1)
    for person in (amy, ben):
        told = await person.event("user_list", action="leave", username=person.username)
        assert told["room_id"] == room_id
        refused = await person.request("text_message", {"room_id": room_id, "text": "anybody?"})
        assert refused["data"]["code"] in {"no_such_room", "not_a_member"}
    again = (await ben.expect("create_room", {"name": name}))["room_id"]
    assert again != room_id
    assert (await ben.say(again, "first"))["seq"] == 1
    methods = {line["method"].rpartition("/")[2] for line in audited(two_edges)}
    assert {"DeleteRoom", "GetRoom"} <= methods


async def test_rooms_that_are_not_there_are_named(two_edges: Stack) -> None:
    for command in (("show",), ("members",), ("close", "--yes"), ("open",), ("delete", "--yes"), ("announce",)):
        name, *flags = command
        text = ["hello"] if name == "announce" else []
        status, _, err = await admin(two_edges, "rooms", name, "no such room", *text, *flags)
        assert (status, "no_such_room" in err) == (1, True), command


async def test_graphs_traces_and_logs_are_at_hand(two_edges: Stack, crowd: People, tmp_path: Path) -> None:
    amy = await crowd.person(edge=1)
    room_id = await crowd.room(amy)
    started = await done(two_edges, "tracing", "start", "--room", room_id, "--seconds", "60")
    assert set(started) == {"edge-1", "edge-2"}
    assert started["edge-1"]["targets"][0]["room_id"] == room_id
    await amy.say(room_id, "traced")
    assert (await done(two_edges, "tracing", "stop", "--room", room_id))["edge-1"]["targets"] == []
    changed = await done(two_edges, "tracing", "set", "--ratio", "0.5", "--rate", "7")
    assert {(one["ratio"], one["rate_max"]) for one in changed.values()} == {(0.5, 7.0)}
    for wrong in (("--ratio", "1.5"), ("--ratio", "nan"), ("--rate", "0"), ("--rate", "1e9"), ()):
        status, _, err = await admin(two_edges, "tracing", "set", *wrong)
        assert (status, "bad_request" in err) == (1, True), (wrong, err)
    assert isinstance(await done(two_edges, "traces", "--limit", "5"), list)
    assert isinstance(await done(two_edges, "logs", "--limit", "5"), list)
    graph = await done(two_edges, "graph", "latency_timeline")
    assert graph["unit"] == "ms"
    assert (await done(two_edges, "graphs"))["paths"]
    picture = tmp_path / "latency.svg"
    await done(two_edges, "graph", "latency_timeline", "--period", "day", "--output", str(picture))
    assert b"<svg" in picture.read_bytes()
    status, _, err = await admin(two_edges, "graph", "latency_timeline", "--output", str(picture))
    assert (status, "exists" in err.lower()) == (1, True)
    status, out, _ = await admin(two_edges, "top", "--count", "2", "--interval", "0.2")
    assert (status, out.count("PROCESS")) == (0, 2)
