"""What people do with rooms, and what the others are told of it."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms import directory as directory_module
from services.rooms import rooms, store
from services.rooms.bus import MembershipEnded, PresenceChanged
from services.rooms.directory import _make_cursor, _read_cursor
from tests.helpers.rooms_world import RoomsWorld, rooms_world, session, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoomsWorld]:
    async with rooms_world(tmp_path) as made:
        made.attendance.attach("boot-1", "edge-1")
        yield made


def seen(world: RoomsWorld) -> list[tuple[Any, ...]]:
    """The events so far, in short; forgets them."""
    short: list[tuple[Any, ...]] = []
    for event in world.events:
        if isinstance(event, PresenceChanged):
            short += [(change.action.value, change.username, change.room_id) for change in event.changes]
        elif isinstance(event, MembershipEnded):
            short.append(("ended", event.user_id, event.room_id, event.last_seq, event.except_boot_id))
    world.events.clear()
    return short


async def refused(call: Any) -> ErrorCode:
    with pytest.raises(ParleyError) as caught:
        await call
    return caught.value.code


async def test_creating_a_room(world: RoomsWorld) -> None:
    room = await world.create("alice", "  Lobby ", topic=" tea ")
    assert (room.name, room.topic, room.role, room.last_seq) == ("Lobby", "tea", "owner", 0)
    assert seen(world) == [("join", "alice", room.room_id)]
    assert world.attendance.online(room.room_id) == {user_id("alice"): "alice"}
    assert world.counts.room_count == 1


@pytest.mark.parametrize(
    ("name", "topic", "code"),
    [
        ("", "", ErrorCode.BAD_ROOM_NAME),
        ("a\nb", "", ErrorCode.BAD_ROOM_NAME),
        ("ok", "x" * 257, ErrorCode.BAD_REQUEST),
    ],
)
async def test_what_makes_no_room(world: RoomsWorld, name: str, topic: str, code: ErrorCode) -> None:
    assert await refused(world.create("alice", name, topic=topic)) is code
    assert world.events == []
    assert world.counts.room_count == 0


async def test_joining_and_leaving(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    seen(world)
    assert (await world.join("bob", room)).role == "member"
    assert seen(world) == [("join", "bob", room.room_id)]
    await world.join("bob", room)
    assert seen(world) == []
    await world.say("alice", room, "hi")
    assert await world.leave("bob", room) == room.room_id
    assert seen(world) == [("ended", user_id("bob"), room.room_id, 1, "boot-1"), ("leave", "bob", room.room_id)]
    assert await refused(world.leave("bob", room)) is ErrorCode.NOT_A_MEMBER


async def test_joining_a_room_that_one_is_a_member_of_is_coming_online(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    world.directory.close_sessions([session("alice").session_id])
    seen(world)
    await world.join("alice", room)
    assert seen(world) == [("online", "alice", room.room_id)]


async def test_an_exclusive_join_moves_the_session(world: RoomsWorld) -> None:
    one, two = await world.create("alice", "one"), await world.create("alice", "two")
    seen(world)
    await world.directory.join_room(session("alice"), "one", is_exclusive=True)
    assert seen(world) == [("offline", "alice", two.room_id)]
    third = await world.directory.create_room(
        session("alice"), name="three", topic="", is_private=False, is_exclusive=True
    )
    assert seen(world) == [("offline", "alice", one.room_id), ("join", "alice", third.room_id)]
    assert len(await world.directory.open_session(session("alice"), enter_rooms=False)) == 3


async def test_opening_a_session(world: RoomsWorld) -> None:
    one, two = await world.create("alice", "one"), await world.create("alice", "two")
    world.directory.close_sessions([session("alice").session_id])
    seen(world)
    found = await world.directory.open_session(session("alice"), enter_rooms=False)
    assert [room.name for room in found] == ["one", "two"]
    assert seen(world) == []
    await world.directory.open_session(session("alice"), enter_rooms=True)
    assert seen(world) == [("online", "alice", one.room_id), ("online", "alice", two.room_id)]
    await world.directory.open_session(session("alice"), enter_rooms=True)
    assert seen(world) == []


async def test_a_membership_that_ends_while_a_session_opens_leaves_no_ghost(
    world: RoomsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.create("bob", "lobby")
    await world.join("alice", room)
    world.directory.close_sessions([session("alice").session_id])
    read = store.rooms_of
    loop = asyncio.get_running_loop()

    def read_and_then_lose(connection: Any, user: str) -> Any:
        found = read(connection, user)
        monkeypatch.setattr(store, "rooms_of", read)
        asyncio.run_coroutine_threadsafe(world.directory.remove_member("lobby", "alice"), loop).result(30)
        return found

    monkeypatch.setattr(store, "rooms_of", read_and_then_lose)
    assert await world.directory.open_session(session("alice"), enter_rooms=True) == []
    assert user_id("alice") not in world.attendance.online(room.room_id)


async def test_an_operator_removes_a_member_everywhere(world: RoomsWorld) -> None:
    room = await world.create("alice", "secret", is_private=True)
    seen(world)
    ended = await world.directory.remove_member("SECRET", "alice")
    assert (ended.room_id, ended.user_id) == (room.room_id, user_id("alice"))
    assert seen(world) == [("ended", user_id("alice"), room.room_id, 0, ""), ("leave", "alice", room.room_id)]
    assert await refused(world.directory.remove_member("secret", "alice")) is ErrorCode.NOT_A_MEMBER
    assert await refused(world.directory.remove_member("nowhere", "alice")) is ErrorCode.NO_SUCH_ROOM


async def test_who_stops_waiting_does_not_stop_the_others_from_being_told(world: RoomsWorld) -> None:
    """A call may be cancelled, at its deadline for example, while its change is being committed."""
    room = await world.create("alice", "lobby")
    calls = [
        lambda: world.join("bob", room),
        lambda: world.create("bob", "kitchen"),
        lambda: world.directory.remove_member("lobby", "bob"),
        lambda: world.leave("alice", room),
        lambda: world.leave("nobody", room),
    ]
    seen(world)
    for call in calls:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await world.database.write(lambda _connection: None)
    kinds = [event[:2] for event in seen(world)]
    assert kinds == [
        ("join", "bob"),
        ("join", "bob"),
        ("ended", user_id("bob")),
        ("leave", "bob"),
        ("ended", user_id("alice")),
        ("leave", "alice"),
    ]


async def test_an_edge_announces_its_people(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    await world.join("bob", room)
    await world.say("alice", room, "hi")
    await world.leave("bob", room)
    world.directory.close_sessions([session("alice").session_id, session("bob").session_id])
    seen(world)
    ended = await world.directory.announce(
        "boot-1",
        [(session("alice"), [room.room_id]), (session("bob"), [room.room_id]), (session("eve"), ["nosuchroom00"])],
    )
    assert set(ended) == {
        MembershipEnded(room.room_id, user_id("bob"), 1),
        MembershipEnded("nosuchroom00", user_id("eve"), 0),
    }
    assert seen(world) == [("online", "alice", room.room_id)]


async def test_listing_rooms_page_by_page(world: RoomsWorld) -> None:
    for n in range(5):
        await world.create("alice", f"room {n}", is_private=n == 3)
    names: list[str] = []
    cursor = ""
    for _ in range(3):
        page = await world.directory.list_rooms("idbob", query="ROOM", cursor=cursor, limit=2)
        names += [room.name for room in page.rooms]
        cursor = page.next_cursor
        if not cursor:
            break
    assert names == ["room 0", "room 1", "room 2", "room 4"]
    everything = await world.directory.list_rooms(None, query="", cursor="", limit=5)
    assert len(everything.rooms) == 5
    assert everything.next_cursor == ""


@pytest.mark.parametrize("cursor", ["x", "!!!", "MTphYmM", "é", "MTpub3N1Y2hyb29tMDA", " ", "\x00", "A" * 256])
async def test_a_bad_cursor(world: RoomsWorld, cursor: str) -> None:
    await world.create("alice", "lobby")
    assert await refused(world.directory.list_rooms("idbob", query="", cursor=cursor, limit=2)) is ErrorCode.BAD_REQUEST


@given(st.one_of(st.text(max_size=40), st.binary(max_size=30).map(lambda raw: urlsafe_b64encode(raw).decode())))
def test_no_garbage_is_a_cursor(garbage: str) -> None:
    with pytest.raises(ParleyError) as caught:
        _read_cursor(garbage)
    assert caught.value.code is ErrorCode.BAD_REQUEST


@given(st.text(alphabet=rooms.ID_ALPHABET, min_size=8, max_size=16))
def test_a_cursor_is_read_as_it_was_made(room_id: str) -> None:
    assert _read_cursor(_make_cursor(room_id)) == room_id


async def test_listing_members(world: RoomsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await world.create("carol", "lobby")
    await world.join("bob", room)
    await world.join("alice", room)
    world.directory.close_sessions([session("alice").session_id])
    page = await world.directory.list_members("idbob", "LOBBY")
    assert page.room.room_id == room.room_id
    assert [(m.username, m.role, m.user_id in page.online_ids) for m in page.members] == [
        ("alice", "member", False),
        ("bob", "member", True),
        ("carol", "owner", True),
    ]
    assert await refused(world.directory.list_members("ideve", "lobby")) is ErrorCode.NOT_A_MEMBER
    assert await refused(world.directory.list_members("ideve", "nowhere")) is ErrorCode.NO_SUCH_ROOM
    monkeypatch.setattr(directory_module, "MEMBERS_MAX", 2)
    crowd = await world.directory.list_members("idbob", "lobby")
    assert [member.username for member in crowd.members] == ["bob", "carol"]


async def test_reading_messages(world: RoomsWorld) -> None:
    room = await world.create("alice", "lobby")
    for n in range(5):
        await world.say("alice", room, f"text {n}")
    read = world.directory.list_messages
    page = await read("idalice", "lobby", after_seq=1, before_seq=None, limit=2)
    assert [message.seq for message in page.messages] == [2, 3]
    assert page.more
    newest = await read("idalice", room.room_id, after_seq=None, before_seq=None, limit=2)
    assert [message.text for message in newest.messages] == ["text 3", "text 4"]
    assert await refused(read("ideve", "lobby", after_seq=0, before_seq=None, limit=2)) is ErrorCode.NOT_A_MEMBER
