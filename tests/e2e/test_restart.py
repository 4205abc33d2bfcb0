"""Nothing that was acknowledged is lost when processes are killed, and the stack heals by itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.people import AGAIN_S, HEALED_S, People, fresh
from tests.helpers.raw_client import ClosedError, RawClient
from tests.helpers.talkers import everything_of

if TYPE_CHECKING:
    from tests.helpers.stack import Stack


async def test_after_killing_everything_it_is_all_there(own_stack: Stack) -> None:
    """kill -9 of every process in the middle of the talk; what was acknowledged survives with its seq."""
    acknowledged: dict[int, str] = {}
    names = [fresh(), fresh()]
    async with AsyncExitStack() as exits:
        people = People(own_stack, exits)
        alice, bob = [await people.person(name) for name in names]
        room_id = await people.room(alice, bob)
        lonely = (await bob.expect("create_room", {"name": fresh("room"), "topic": "quiet", "private": True}))[
            "room_id"
        ]

        async def talk(person: RawClient) -> None:
            for number in range(10_000):
                text = f"{person.username} {number}"
                reply = await person.request("text_message", {"text": text}, room_id=room_id)
                if reply["type"] == "success":
                    acknowledged[reply["data"]["seq"]] = text

        talks = [asyncio.create_task(talk(person)) for person in (alice, bob)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0)
            assert not any(talk.done() for talk in talks), talks
        await asyncio.to_thread(own_stack.kill_all)
        ends = await asyncio.gather(*talks, return_exceptions=True)
        assert all(isinstance(end, ClosedError | OSError) for end in ends)

    await asyncio.to_thread(own_stack.start)
    async with AsyncExitStack() as exits:
        people = People(own_stack, exits)
        again = [await people.connect() for _ in names]
        logins = [await client.login(name) for client, name in zip(again, names, strict=True)]
        assert [room["room_id"] for room in logins[0]["rooms"]] == [room_id]
        assert {room["room_id"] for room in logins[1]["rooms"]} == {room_id, lonely}
        found = await everything_of(again[0], room_id)
        assert [message["seq"] for message in found] == list(range(1, len(found) + 1))
        texts = {message["seq"]: message["text"] for message in found}
        assert {seq: texts.get(seq) for seq in acknowledged} == acknowledged
        members = await again[0].expect("user_list", room_id=room_id)
        assert {m["username"]: m["role"] for m in members["members"]} == {names[0]: "owner", names[1]: "member"}
        last = (await again[0].say(room_id, "back again"))["seq"]
        assert last == len(found) + 1
        assert (await again[1].messages(room_id, 1))[0]["seq"] == last


@pytest.mark.parametrize("victim", ["auth-1", "rooms-1", "edge-1", "metrics-1"])
async def test_a_killed_service_comes_back_and_everything_works(
    own_stack: Stack, own_people: People, victim: str
) -> None:
    carol, dave = await own_people.person(), await own_people.person()
    room_id = await own_people.room(carol, dave)
    first = await carol.say(room_id, "before", key="k")
    before = own_stack.processes()
    await asyncio.to_thread(own_stack.kill, victim)
    after = own_stack.processes()
    assert after[victim]["pid"] != before[victim]["pid"]
    for name, process in before.items():
        assert {**after[name], "pid": 0} == {**process, "pid": 0}  # same addresses
        assert name == victim or after[name]["pid"] == process["pid"]
    await own_people.heal()

    if victim == "edge-1":
        with pytest.raises(ClosedError):
            await carol.request("heartbeat")
    else:
        # Who was connected still is, and misses nothing.
        assert (await carol.request("heartbeat"))["type"] == "heartbeat"
        again = await carol.say(room_id, "before", key="k")
        assert (again["seq"], again["duplicate"]) == (first["seq"], True)
        seq = (await carol.say(room_id, "after"))["seq"]
        for person in (carol, dave):
            seen: list[int] = []
            while not seen or seen[-1] < seq:
                seen += [message["seq"] for message in await person.some_messages(room_id)]
            assert seen == list(range(1, seq + 1))
    assert "Traceback" not in own_stack.log_text()


async def test_a_killed_edge_lets_its_people_log_in_again(own_stack: Stack, own_people: People) -> None:
    name = fresh()
    await own_people.person(name)
    await asyncio.to_thread(own_stack.kill, "edge-1")
    client = await own_people.connect()
    deadline = asyncio.get_running_loop().time() + HEALED_S
    while True:
        reply = await client.request("auth_request", {"username": name, "password": "correct horse battery"})
        if reply["data"]["success"]:
            break
        assert asyncio.get_running_loop().time() < deadline, reply
        await asyncio.sleep(AGAIN_S)


async def test_requests_during_an_outage_are_answered(own_stack: Stack, own_people: People) -> None:
    """While rooms is down each request still gets an answer; what is acknowledged is there afterwards."""
    alice = await own_people.person()
    room_id = await own_people.room(alice)
    texts = [f"text {number}" for number in range(40)]
    killing = asyncio.create_task(asyncio.to_thread(own_stack.kill, "rooms-1"))
    for text in texts:
        await alice.send("text_message", {"text": text}, room_id=room_id, id=text)
        await asyncio.sleep(0.02)
    replies = {text: await alice.wait_for(lambda f, text=text: f.get("re") == text, 30) for text in texts}  # type: ignore[misc]
    await killing
    outcome = {text: reply["data"].get("seq", reply["data"].get("code")) for text, reply in replies.items()}
    stored = {seq: text for text, seq in outcome.items() if isinstance(seq, int)}
    assert set(outcome.values()) - set(stored) <= {"unavailable", "overloaded", "unknown_outcome"}
    assert stored
    assert list(stored) == sorted(stored)
    found = {message["seq"]: message["text"] for message in await everything_of(alice, room_id)}
    assert {seq: found.get(seq) for seq in stored} == stored
    certainly_not = {text for text, code in outcome.items() if code in {"unavailable", "overloaded"}}
    assert certainly_not.isdisjoint(found.values())
    assert len(set(found.values())) == len(found)  # nothing twice
