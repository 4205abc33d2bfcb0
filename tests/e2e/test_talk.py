"""What people do, over the real stack, with version 2."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.helpers.people import fresh

if TYPE_CHECKING:
    from tests.helpers.people import People
    from tests.helpers.raw_client import Frame


def texts(messages: list[Frame]) -> list[str]:
    return [message["text"] for message in messages]


async def test_two_people_in_two_rooms(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    first, second = await people.room(alice, bob), await people.room(bob, alice)
    await alice.say(first, "hello in the first")
    await bob.say(second, "hello in the second")
    for person in (alice, bob):
        [one] = await person.messages(first, 1)
        [two] = await person.messages(second, 1)
        assert (one["username"], one["text"], one["seq"]) == (alice.username, "hello in the first", 1)
        assert (two["username"], two["text"], two["seq"]) == (bob.username, "hello in the second", 1)


async def test_the_answers_have_the_promised_form(people: People) -> None:
    alice = await people.connect()
    name, room_name = fresh(), fresh("Room ")
    registered = await alice.expect("register_request", {"username": name, "password": "correct horse battery"})
    assert re.fullmatch("[a-z0-9]{8,16}", registered["user_id"])
    entered = await alice.login(name)
    assert entered["user_id"] == registered["user_id"]
    assert entered["username"] == name
    assert entered["rooms"] == []
    assert len(entered["token"]) >= 43  # 256 bits in base64url
    assert "token_expires_at" in entered

    made = await alice.expect("create_room", {"name": room_name, "topic": "weather"})
    assert re.fullmatch("[a-z0-9]{8,16}", made["room_id"])
    assert re.fullmatch("[a-z0-9]{4,8}", made["epoch"])
    assert (made["name"], made["last_seq"], made["role"]) == (room_name, 0, "owner")

    reply = await alice.request("text_message", {"text": "hi"}, room_id=made["room_id"])
    assert reply["type"] == "success"
    assert reply["room_id"] == made["room_id"]
    assert set(reply["data"]) == {"epoch", "seq", "ts"}
    assert (reply["data"]["epoch"], reply["data"]["seq"]) == (made["epoch"], 1)
    assert abs(reply["data"]["ts"] / 1000 - time.time()) < 60
    assert "timestamp" not in reply
    assert "id" not in reply

    frame = await alice.wait_for(lambda f: f["type"] == "messages")
    assert frame["room_id"] == made["room_id"]
    assert frame["data"] == {
        "epoch": made["epoch"],
        "messages": [{"seq": 1, "username": name, "text": "hi", "ts": reply["data"]["ts"]}],
    }


async def test_hello_tells_the_limits(people: People) -> None:
    client = await people.connect(hello=False)
    info = await client.request("hello", {"protocol": 2, "client": "raw/1"})
    assert info["type"] == "server_info"
    expected = {
        "protocol": 2,
        "heartbeat_s": 30,
        "idle_timeout_s": 60,
        "max_text_chars": 4000,
        "max_frame_bytes": 65536,
    }
    assert {key: info["data"][key] for key in expected} == expected
    assert {"server", "chunk_bytes", "file_window_bytes", "max_file_bytes"} <= set(info["data"])


async def test_the_acknowledgement_comes_before_the_own_message(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    alice.events.clear()
    for number in range(1, 6):
        await alice.say(room_id, f"text {number}")
        # Nothing of this message may have come before its success.
        seen = [m["seq"] for f in alice.events if f["type"] == "messages" for m in f["data"]["messages"]]
        assert number not in seen


async def test_pipelined_messages_keep_their_order_for_everybody(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice, bob)
    sent = [f"text {number}" for number in range(80)]  # below the burst of 100
    for text in sent:
        await alice.send("text_message", {"text": text}, room_id=room_id, id=text)
    for person in (alice, bob):
        received = await person.messages(room_id, len(sent))
        assert texts(received) == sent
        assert [message["seq"] for message in received] == list(range(1, 81))
    for number, text in enumerate(sent, 1):
        reply = await alice.wait_for(lambda f, text=text: f.get("re") == text)  # type: ignore[misc]
        assert reply["data"]["seq"] == number


async def test_two_senders_see_one_order(people: People) -> None:
    alice, bob, carol = [await people.person() for _ in range(3)]
    room_id = await people.room(alice, bob, carol)
    for number in range(30):
        await alice.send("text_message", {"text": f"a{number}"}, room_id=room_id)
        await bob.send("text_message", {"text": f"b{number}"}, room_id=room_id)
    seen = [await person.messages(room_id, 60) for person in (alice, bob, carol)]
    assert seen[0] == seen[1] == seen[2]
    assert [m["seq"] for m in seen[0]] == list(range(1, 61))
    for sender in "ab":
        assert [t for t in texts(seen[0]) if t[0] == sender] == [f"{sender}{n}" for n in range(30)]


async def test_the_same_key_is_stored_once(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    first = await alice.say(room_id, "once", key="k1")
    again = await alice.say(room_id, "once", key="k1")
    assert "duplicate" not in first
    assert again == {**first, "duplicate": True}
    assert await alice.refused("text_message", {"text": "other", "key": "k1"}, room_id=room_id) == "conflict"
    other_room = await people.room(alice)
    assert (await alice.say(other_room, "other", key="k1"))["seq"] == 1
    page = await alice.expect("history", room_id=room_id)
    assert texts(page["messages"]) == ["once"]


async def test_the_server_names_the_sender(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    lies = {"username": "root", "user_id": "x", "seq": 99, "ts": 1, "timestamp": "1970-01-01T00:00:00Z"}
    await alice.send("text_message", {"text": "who", **lies}, room_id=room_id, timestamp="1970-01-01T00:00:00Z")
    [message] = await alice.messages(room_id, 1)
    assert (message["username"], message["seq"]) == (alice.username, 1)
    assert message["ts"] > 1_700_000_000_000


async def test_history_pages(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    epoch = ""
    for number in range(1, 26):
        epoch = (await alice.say(room_id, f"text {number}"))["epoch"]

    async def page(**where: int) -> Frame:
        reply = await alice.request("history", where, room_id=room_id)
        assert (reply["type"], reply["room_id"], reply["data"]["epoch"]) == ("messages", room_id, epoch)
        assert (reply["data"]["first_seq"], reply["data"]["last_seq"]) == (1, 25)
        return dict(reply["data"])

    def seqs(data: Frame) -> list[int]:
        return [message["seq"] for message in data["messages"]]

    newest = await page(limit=10)
    assert (seqs(newest), newest["more"]) == (list(range(16, 26)), True)
    middle = await page(before=16, limit=10)
    assert (seqs(middle), middle["more"]) == (list(range(6, 16)), True)
    oldest = await page(before=6, limit=10)
    assert (seqs(oldest), oldest["more"]) == ([1, 2, 3, 4, 5], False)
    forward = await page(after=20, limit=3)
    assert (seqs(forward), forward["more"]) == ([21, 22, 23], True)
    rest = await page(after=23, limit=200)
    assert (seqs(rest), rest["more"]) == ([24, 25], False)
    assert seqs(await page(after=25, limit=200)) == []
    assert seqs(await page(after=0, limit=1)) == [1]
    assert await alice.refused("history", {"after": 1, "before": 5}, room_id=room_id) == "bad_request"


async def test_a_heartbeat_names_only_what_was_already_sent(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice, bob)
    seen = 0
    for _ in range(10):
        for _ in range(5):
            await alice.send("text_message", {"text": "x"}, room_id=room_id)
        reply = await bob.request("heartbeat")
        assert reply["type"] == "heartbeat"
        while bob.events:
            frame = bob.events.popleft()
            if frame["type"] == "messages":
                seen = max(seen, frame["data"]["messages"][-1]["seq"])
        assert reply["data"]["rooms"][room_id] <= seen


async def test_rooms_are_listed_with_what_join_takes(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice)
    private = await alice.expect("create_room", {"name": fresh("secret"), "private": True})
    listed = await bob.expect("list_rooms", {"limit": 200})
    rooms = {room["id"]: room for room in listed["rooms"]}
    while listed["next_cursor"]:
        listed = await bob.expect("list_rooms", {"limit": 200, "cursor": listed["next_cursor"]})
        rooms |= {room["id"]: room for room in listed["rooms"]}
    assert private["room_id"] not in rooms
    room = rooms[room_id]
    assert (room["user_count"], room["member_count"], room["joined"]) == (1, 1, False)
    assert {"name", "topic", "created"} <= set(room)
    by_name = await bob.expect("join_room", {"room_id": room["name"].upper()})
    assert by_name["room_id"] == room_id
    assert by_name["role"] == "member"
    assert (await bob.expect("join_room", {"room_id": room_id[:6]}))["room_id"] == room_id
    assert await bob.refused("join_room", {"room_id": private["room_id"]}) == "no_such_room"
    assert await bob.refused("join_room", {"room_id": "nowhere at all"}) == "no_such_room"


async def test_rooms_are_found_by_part_of_their_name(people: People) -> None:
    alice = await people.person()
    mark = fresh("Mark")
    made = [(await alice.expect("create_room", {"name": f"{mark} {n}"}))["room_id"] for n in range(3)]
    found = await alice.expect("list_rooms", {"query": mark.lower(), "limit": 2})
    assert [room["id"] for room in found["rooms"]] == made[:2]
    rest = await alice.expect("list_rooms", {"query": mark.lower(), "limit": 2, "cursor": found["next_cursor"]})
    assert [room["id"] for room in rest["rooms"]] == made[2:]
    assert not rest["next_cursor"]


async def test_room_names_are_unique_regardless_of_case(people: People) -> None:
    alice = await people.person()
    name = fresh("Room")
    await alice.expect("create_room", {"name": name})
    assert await alice.refused("create_room", {"name": name.upper()}) == "room_exists"
    for bad in ("", "x" * 65, "a\nb", "a\u202eb", "\u0378"):
        assert await alice.refused("create_room", {"name": bad}) == "bad_room_name"


async def test_leaving_ends_what_is_received(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice, bob)
    assert (await bob.expect("leave_room", room_id=room_id))["room_id"] == room_id
    await alice.event("user_list", action="leave", username=bob.username)
    assert await bob.refused("text_message", {"text": "x"}, room_id=room_id) == "not_a_member"
    assert await bob.refused("history", room_id=room_id) == "not_a_member"
    assert await bob.refused("user_list", room_id=room_id) == "not_a_member"
    await alice.say(room_id, "without bob")
    await bob.request("heartbeat")
    assert not [f for f in bob.events if f["type"] == "messages"]


async def test_presence_is_told(people: People) -> None:
    alice = await people.person()
    name = fresh()
    bob = await people.person(name)
    room_id = await people.room(alice, bob)
    await alice.event("user_list", action="join", username=name)
    members = await alice.expect("user_list", room_id=room_id)
    assert sorted(members["users"]) == sorted([alice.username, name])
    assert {m["username"]: (m["role"], m["online"]) for m in members["members"]} == {
        alice.username: ("owner", True),
        name: ("member", True),
    }
    await bob.close()
    await alice.event("user_list", action="offline", username=name)
    members = await alice.expect("user_list", room_id=room_id)
    assert members["users"] == [alice.username]
    assert {m["username"]: m["online"] for m in members["members"]} == {alice.username: True, name: False}
    again = await people.connect()
    rooms = (await again.login(name))["rooms"]
    assert [room["room_id"] for room in rooms] == [room_id]
    await alice.event("user_list", action="online", username=name)


async def test_live_messages_follow_the_login_without_gap_or_overlap(people: People) -> None:
    alice = await people.person()
    name = fresh()
    bob = await people.person(name)
    room_id = await people.room(alice, bob)
    await bob.close()
    await alice.event("user_list", action="offline", username=name)

    async def talk() -> None:
        for number in range(60):
            await alice.say(room_id, f"text {number}")

    talking = asyncio.create_task(talk())
    again = await people.connect()
    [room] = (await again.login(name))["rooms"]
    await talking
    received = await again.messages(room_id, 60 - room["last_seq"]) if room["last_seq"] < 60 else []
    assert [m["seq"] for m in received] == list(range(room["last_seq"] + 1, 61))


async def test_a_second_login_is_refused_until_the_first_has_gone(people: People) -> None:
    name = fresh()
    first = await people.person(name)
    second = await people.connect()
    asked = {"username": name, "password": "correct horse battery"}
    reply = await second.request("auth_request", asked)
    assert (reply["type"], reply["data"]["success"]) == ("auth_response", False)
    assert reply["data"]["code"] == "already_logged_in"
    assert reply["data"]["since"]
    first.abort()
    for _ in range(100):
        reply = await second.request("auth_request", asked)
        if reply["data"]["success"]:
            break
        assert reply["data"]["code"] in {"already_logged_in", "rate_limited"}
        await asyncio.sleep(0.05)
    assert reply["data"]["success"]


async def test_logout_ends_the_session_but_not_the_connection(people: People) -> None:
    name = fresh()
    client = await people.person(name)
    assert await client.expect("logout") == {}
    assert await client.refused("list_rooms") == "not_authenticated"
    await client.login(name)


async def test_an_unknown_name_and_a_wrong_password_get_one_answer(people: People) -> None:
    client = await people.connect()
    name = fresh()
    await client.expect("register_request", {"username": name, "password": "correct horse battery"})
    answers = []
    for who in (name, fresh()):
        reply = await client.request("auth_request", {"username": who, "password": "wrong horse battery"})
        assert reply["type"] == "auth_response"
        answers.append(reply["data"])
    assert answers[0] == answers[1]
    assert answers[0]["code"] == "invalid_credentials"


@pytest.mark.parametrize("name", ["ab", "x" * 33, "with space", "tab\t", "", "еvan", "a\u202eb", "\x00abc"])
async def test_bad_names_are_refused(people: People, name: str) -> None:
    client = await people.connect()
    reply = await client.request("register_request", {"username": name, "password": "correct horse battery"})
    assert reply["type"] == "register_response"
    assert (reply["data"]["success"], reply["data"]["code"]) == (False, "bad_username")


@pytest.mark.parametrize("password", ["short", "x" * 129])
async def test_bad_passwords_are_refused(people: People, password: str) -> None:
    client = await people.connect()
    reply = await client.request("register_request", {"username": fresh(), "password": password})
    assert (reply["type"], reply["data"]["code"]) == ("register_response", "weak_password")


async def test_a_name_is_taken_regardless_of_case(people: People) -> None:
    client = await people.connect()
    name = fresh()
    await client.expect("register_request", {"username": name, "password": "correct horse battery"})
    reply = await client.request("register_request", {"username": name.upper(), "password": "correct horse battery"})
    assert (reply["data"]["success"], reply["data"]["code"]) == (False, "username_taken")
    assert (await client.login(name.upper()))["username"] == name


async def test_sending_too_fast_is_refused_with_a_time(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    for number in range(300):
        await alice.send("text_message", {"text": f"{number}"}, room_id=room_id, id=number)
    replies = [
        await alice.wait_for(lambda f, number=number: f.get("re") == number)
        for number in range(300)  # type: ignore[misc]
    ]
    refused = [reply["data"] for reply in replies if reply["type"] == "error"]
    assert refused
    assert {data["code"] for data in refused} == {"rate_limited"}
    assert all(0 < data["retry_after_s"] < 60 for data in refused)
    stored = [reply["data"]["seq"] for reply in replies if reply["type"] == "success"]
    assert stored == list(range(1, len(stored) + 1))
    assert len(stored) >= 100


async def test_one_connection_has_the_rooms_of_its_person_at_once(people: People) -> None:
    alice = await people.person()
    rooms = [await people.room(alice) for _ in range(5)]
    for room_id in rooms:
        await alice.say(room_id, room_id)
    for room_id in rooms:
        assert texts(await alice.messages(room_id, 1)) == [room_id]
