"""The Attach stream over mutual TLS: results, events, catching up, broken and slow streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parley.rooms.v1 import feed_pb2, feed_pb2_grpc, rooms_pb2

from services.common.wire.codes import ErrorCode
from tests.helpers import columns
from tests.helpers.served_rooms import Edge, ServedRooms, serve_rooms, user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[ServedRooms]:
    async with serve_rooms(tmp_path, presence_grace_s=60.0) as made:  # not over before the tests are
        yield made


@pytest.fixture
async def edge(served: ServedRooms) -> Edge:
    return await served.edge()


@pytest.fixture
async def other(served: ServedRooms) -> Edge:
    return await served.edge("edge-2", "boot2")


async def test_a_message_is_acknowledged_and_shown(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        await feed.follow(room)
        first, second = await feed.say("alice", room.room_id, "one", "two")
        assert (first.epoch, first.seq, second.seq, first.error_code) == (room.epoch, 1, 2, "")
        await feed.until_seq(room, 2)
        message = feed.messages[room.room_id][0]
        assert (message.username, message.text) == ("alice", "one")
        assert message.sent_at_ms == first.sent_at_ms


async def test_an_edge_is_told_that_its_stream_is_in_place(edge: Edge) -> None:
    async with edge.attach(reads=False) as feed:
        assert await feed.call.read() == feed_pb2.AttachResponse()


async def test_everything_may_come_in_the_first_request(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    publish = columns.PublishRow(5, room.room_id, user_id("alice"), "alice", "x", "e1")
    follow = feed_pb2.Follow(room_id=room.room_id, epoch=room.epoch)
    async with edge.attach(publishes=columns.publishes(publish), follows=[follow]) as feed:
        await feed.until_seq(room, 1)
        assert feed.results[5].seq == 1


async def test_results_of_the_first_request_pass_what_its_follows_read(edge: Edge) -> None:
    """Asked again on a new stream, a text that is stored already is answered before it is shown."""
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        await feed.say("alice", room.room_id, *(f"text {n}" for n in range(50)), keys=[f"e{n}" for n in range(50)])
    rows = [columns.PublishRow(n + 1, room.room_id, user_id("alice"), "alice", f"text {n}", f"e{n}") for n in range(50)]
    follow = feed_pb2.Follow(room_id=room.room_id, epoch=room.epoch)
    async with edge.attach(publishes=columns.publishes(*rows), follows=[follow]) as feed:
        await feed.until(lambda: feed.messages or len(feed.results) == 50)
        assert len(feed.results) == 50
        await feed.until_seq(room, 50)


async def test_refusals_come_as_results(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        codes = [
            (await feed.say("bob", room.room_id, "x"))[0].error_code,
            (await feed.say("alice", "nosuchroom00", "x"))[0].error_code,
            (await feed.say("alice", room.room_id, "x", keys=["k" * 81]))[0].error_code,
            (await feed.say("alice", room.room_id, "x" * 4_001))[0].error_code,
        ]
        assert codes == ["not_a_member", "no_such_room", "bad_request", "too_large"]
        one, conflict, same = await feed.say("alice", room.room_id, "a", "b", "a", keys=["ck", "ck", "ck"])
        assert (one.seq, conflict.error_code, same.seq, same.duplicate) == (1, "conflict", 1, True)
        assert [r.seq for r in await feed.say("alice", room.room_id, "next")] == [2]


async def test_two_edges_see_the_same(edge: Edge, other: Edge) -> None:
    room = await edge.create("alice", "tea")
    await other.join("bob", "tea")
    async with edge.attach() as one, other.attach() as two:
        for feed in (one, two):
            await feed.follow(room, 0)

        async def talk(feed: object, name: str) -> None:
            assert feed in (one, two)
            source = one if feed is one else two
            for n in range(20):
                await source.say(name, room.room_id, f"{name} {n} a", f"{name} {n} b")

        await asyncio.gather(talk(one, "alice"), talk(two, "bob"))
        for feed in (one, two):
            await feed.until_seq(room, 80)
            assert feed.seqs(room) == list(range(1, 81))
        assert [m.text for m in one.messages[room.room_id]] == [m.text for m in two.messages[room.room_id]]
        own = [m.text for m in one.messages[room.room_id] if m.username == "alice"]
        assert own == [f"alice {n} {part}" for n in range(20) for part in "ab"]


async def test_following_from_the_past_while_others_talk(edge: Edge, other: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as one, other.attach() as two:
        await one.say("alice", room.room_id, *(f"old {n}" for n in range(500)))
        talking = asyncio.create_task(one.say("alice", room.room_id, *(f"new {n}" for n in range(300))))
        await two.follow(room, 10)
        for n in range(20):
            await one.say("alice", room.room_id, f"late {n}")
        await talking
        await two.until_seq(room, 820)
        assert two.seqs(room) == list(range(11, 821))


async def test_an_old_epoch_gets_what_is_new(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        await feed.say("alice", room.room_id, "a", "b")
        await feed.follow(room, 77, epoch="other1")
        marker = await edge.create("alice", "marker")
        await feed.say("alice", marker.room_id, "x")
        await asyncio.sleep(0)
        # Live from the moment at which the service has looked: sooner or later a message comes with the new epoch.
        for n in range(200):
            result = (await feed.say("alice", room.room_id, f"c {n}"))[0]
            if feed.seqs(room):
                break
        assert feed.seqs(room)[0] > 2
        await feed.until_seq(room, result.seq)


async def test_unfollowing(edge: Edge) -> None:
    room, marker = await edge.create("alice", "tea"), await edge.create("alice", "marker")
    async with edge.attach() as feed:
        await feed.follow(room)
        await feed.follow(marker)
        await feed.say("alice", room.room_id, "a")
        await feed.until_seq(room, 1)
        await feed.send(unfollow_room_ids=[room.room_id, "nosuchroom00"])
        await feed.say("alice", room.room_id, "b")
        await feed.say("alice", marker.room_id, "c")
        await feed.until_seq(marker, 1)
        assert feed.seqs(room) == [1]


@pytest.mark.parametrize(
    "first",
    [
        feed_pb2.AttachRequest(),
        feed_pb2.AttachRequest(hello=feed_pb2.EdgeHello(edge_name="edge-1")),
        feed_pb2.AttachRequest(publishes=columns.publishes(columns.PublishRow(1, "r", "u", "u", "x", "k"))),
        feed_pb2.AttachRequest(
            hello=feed_pb2.EdgeHello(
                edge_name="edge-1",
                boot_id="boot1",
                sessions=[
                    feed_pb2.SessionPresence(
                        session=rooms_pb2.Session(session_id="s", user_id="u", username="n", edge_boot_id="boot7")
                    )
                ],
            )
        ),
        feed_pb2.AttachRequest(
            hello=feed_pb2.EdgeHello(edge_name="edge-1", boot_id="boot1", sessions=[feed_pb2.SessionPresence()])
        ),
    ],
)
async def test_a_bad_beginning(edge: Edge, first: feed_pb2.AttachRequest) -> None:
    stub: feed_pb2_grpc.RoomFeedServiceAsyncStub = feed_pb2_grpc.RoomFeedServiceStub(edge.channel)
    call = stub.Attach()
    await call.write(first)
    assert dict(await call.trailing_metadata())["parley-code"] == "bad_request"


async def test_a_second_hello(edge: Edge) -> None:
    async with edge.attach() as feed:
        await feed.send(hello=feed_pb2.EdgeHello(edge_name="edge-1", boot_id="boot1"))
        await feed.until(lambda: feed.error is not None)
        assert feed.error is not None
        assert feed.error.code is ErrorCode.BAD_REQUEST


async def test_a_stream_that_says_nothing(edge: Edge) -> None:
    stub: feed_pb2_grpc.RoomFeedServiceAsyncStub = feed_pb2_grpc.RoomFeedServiceStub(edge.channel)
    call = stub.Attach()
    await call.done_writing()
    assert [response async for response in call] == []


async def test_an_edge_that_has_said_all_gets_all_its_results(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as feed:
        numbers = await feed.publish("alice", room.room_id, *(f"text {n}" for n in range(200)))
        await feed.close()
        assert feed.error is None
        assert [feed.results[number].seq for number in numbers] == list(range(1, 201))


async def test_what_a_broken_stream_had_sent_is_stored_once(edge: Edge) -> None:
    """The edge loses its stream with everything under way, and asks again on a new one, with the same keys."""
    room = await edge.create("alice", "tea")
    texts = [f"text {n}" for n in range(400)]
    keys = [f"e{n:06d}" for n in range(400)]
    for attempt in range(6):
        async with edge.attach() as feed:
            for start in range(0, 400, 40):
                await feed.publish("alice", room.room_id, *texts[start : start + 40], keys=keys[start : start + 40])
                if start == 40 * attempt:
                    await asyncio.sleep(0.002)
            feed.call.cancel()
    async with edge.attach() as feed:
        results = await feed.say("alice", room.room_id, *texts, keys=keys)
        assert [result.error_code for result in results] == [""] * 400
        assert [result.seq for result in results] == list(range(1, 401))
        await feed.follow(room, 0)
        await feed.until_seq(room, 400)
        assert [m.text for m in feed.messages[room.room_id]] == texts


async def test_a_new_stream_of_a_boot_ends_the_one_before(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with edge.attach() as old:
        await old.say("alice", room.room_id, "a")
        async with edge.attach() as new:
            await new.say("alice", room.room_id, "b")
            await old.until(lambda: old.is_over)
            assert old.error is None
            assert (await new.say("alice", room.room_id, "c"))[0].seq == 3


async def test_presence_reaches_the_other_edge(edge: Edge, other: Edge) -> None:
    room = await edge.create("alice", "tea")
    async with other.attach() as watching:
        await watching.follow(room)
        await watching.say("alice", room.room_id, "the follow is in place")
        await watching.until_seq(room, 1)
        await edge.join("bob", "tea")
        await edge.rooms.CloseSessions(rooms_pb2.CloseSessionsRequest(session_ids=[edge.session("bob").session_id]))
        await edge.open("bob")
        await edge.leave("bob", "tea")
        await watching.until(lambda: len(watching.presence) >= 4)
        assert [feed_pb2.PresenceAction.Name(c.action)[16:] for c in watching.presence] == [
            "JOIN",
            "OFFLINE",
            "ONLINE",
            "LEAVE",
        ]
        assert {(c.room_id, c.username) for c in watching.presence} == {(room.room_id, "bob")}
        assert [(e.room_id, e.user_id, e.last_seq) for e in watching.ended] == [(room.room_id, user_id("bob"), 1)]


async def test_a_removed_member_is_told_to_every_edge(served: ServedRooms, edge: Edge, other: Edge) -> None:
    room = await edge.create("alice", "tea")
    await edge.join("bob", "tea")
    admin = await served.admin()
    async with edge.attach() as one, other.attach() as two:
        for feed in (one, two):
            await feed.say("alice", room.room_id, "ready")
        await admin.RemoveMember(rooms_pb2.RemoveMemberRequest(room="tea", username="bob"))
        assert (await one.say("bob", room.room_id, "still here"))[0].error_code == "not_a_member"
        for feed in (one, two):
            await feed.until(lambda feed=feed: feed.ended)  # type: ignore[misc]
            assert [(e.room_id, e.user_id, e.last_seq) for e in feed.ended] == [(room.room_id, user_id("bob"), 2)]


async def test_who_leaves_is_not_told_through_the_own_edge(edge: Edge) -> None:
    room = await edge.create("alice", "tea")
    await edge.join("bob", "tea")
    async with edge.attach() as feed:
        await feed.say("alice", room.room_id, "ready")
        await edge.leave("bob", "tea")
        await feed.say("alice", room.room_id, "after")
        assert feed.ended == []


def present(edge: Edge, name: str, *rooms: rooms_pb2.Room) -> feed_pb2.SessionPresence:
    return feed_pb2.SessionPresence(session=edge.session(name), room_ids=[room.room_id for room in rooms])


async def online(edge: Edge, name: str) -> set[str]:
    request = rooms_pb2.ListMembersRequest(user_id=user_id(name), room="tea")
    return {member.username for member in (await edge.rooms.ListMembers(request)).members if member.online}


async def test_an_edge_that_comes_back_announces_its_people(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path) as served:
        edge = await served.edge()
        room = await edge.create("alice", "tea")
        await edge.join("bob", "tea")
        await edge.join("carol", "tea")
    async with serve_rooms(tmp_path) as served:
        edge, admin = await served.edge(), await served.admin()
        await admin.RemoveMember(rooms_pb2.RemoveMemberRequest(room="tea", username="carol"))
        assert await online(edge, "alice") == set()
        sessions = [present(edge, "alice", room), present(edge, "bob"), present(edge, "carol", room)]
        async with edge.attach(sessions=sessions) as feed:
            await feed.until(lambda: feed.ended)
            assert [e.user_id for e in feed.ended] == [user_id("carol")]
            assert await online(edge, "alice") == {"alice"}


async def test_an_edge_that_stays_away_is_offline(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, presence_grace_s=0.3) as served:
        edge, other = await served.edge(), await served.edge("edge-2", "boot2")
        async with edge.attach() as watching:
            await watching.in_place()
            room = await edge.create("alice", "tea")
            async with other.attach() as lost:
                await lost.in_place()
                await other.join("bob", "tea")
                await watching.follow(room)
                await watching.say("alice", room.room_id, "ready")
                await watching.until_seq(room, 1)
                assert await online(edge, "alice") == {"alice", "bob"}
            await watching.until(lambda: watching.presence)
            change = watching.presence[0]
            assert (change.action, change.username) == (feed_pb2.PRESENCE_ACTION_OFFLINE, "bob")
            assert await online(edge, "alice") == {"alice"}


async def test_a_slow_reader_holds_nobody_up_and_misses_nothing(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, stream_bytes_max=100_000) as served:
        edge, other = await served.edge(), await served.edge("edge-2", "boot2")
        room = await edge.create("alice", "tea")
        follow = feed_pb2.Follow(room_id=room.room_id, epoch=room.epoch)
        async with edge.attach() as quick, other.attach(reads=False, follows=[follow]) as slow:
            await quick.follow(room)
            for n in range(40):
                await quick.say("alice", room.room_id, *(f"{n} {m} " + "x" * 3_000 for m in range(20)))
            await quick.until_seq(room, 800)
            slow.start_reading()
            await slow.until_seq(room, 800)
            assert slow.seqs(room) == list(range(1, 801))
            assert slow.largest < 1024 * 1024
            await quick.say("alice", room.room_id, "and on")
            await slow.until_seq(room, 801)


async def test_overload_is_refused_at_once(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, publish_queue_max=50) as served:
        edge = await served.edge()
        room = await edge.create("alice", "tea")
        async with edge.attach() as feed:
            results = await feed.say("alice", room.room_id, *(f"text {n}" for n in range(200)))
            stored = [result for result in results if not result.error_code]
            refused = [result for result in results if result.error_code]
            assert [result.seq for result in stored] == list(range(1, 51))
            assert {(result.error_code, result.retry_after_s > 0) for result in refused} == {("overloaded", True)}
            await feed.until(lambda: feed.is_over)  # nothing that came behind may be stored before it comes again
        async with edge.attach() as feed:
            assert (await feed.say("alice", room.room_id, "later"))[0].seq == 51


async def test_too_many_follows(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path, follows_max=2) as served:
        edge = await served.edge()
        rooms = [await edge.create("alice", f"room {n}") for n in range(3)]
        async with edge.attach() as feed:
            for room in (rooms[0], rooms[1], rooms[0]):
                await feed.follow(room)
            await feed.say("alice", rooms[0].room_id, "fine")
            await feed.follow(rooms[2])
            await feed.until(lambda: feed.error is not None)
            assert feed.error is not None
            assert feed.error.code is ErrorCode.QUOTA_EXCEEDED


async def test_stopping_answers_what_is_under_way(tmp_path: Path) -> None:
    async with serve_rooms(tmp_path) as served:
        edge = await served.edge()
        room = await edge.create("alice", "tea")
        async with edge.attach() as feed:
            await feed.say("alice", room.room_id, "ready")
            numbers = await feed.publish("alice", room.room_id, *(f"text {n}" for n in range(300)))
            await feed.until(lambda: numbers[0] in feed.results)
            served.stop.set()
            await feed.until(lambda: feed.is_over)
            assert feed.error is None or feed.error.code is ErrorCode.UNAVAILABLE
            answered = [feed.results[number].seq for number in numbers if number in feed.results]
            assert answered == list(range(2, 2 + len(answered)))
    async with serve_rooms(tmp_path) as served:
        edge = await served.edge(boot_id="boot2")
        assert (await edge.open("alice"))[0].last_seq >= 1 + len(answered)


@pytest.mark.parametrize("identity", ["auth", "metrics", "admin/alice"])
async def test_only_edges_may_attach(served: ServedRooms, identity: str) -> None:
    stub: feed_pb2_grpc.RoomFeedServiceAsyncStub = feed_pb2_grpc.RoomFeedServiceStub(await served.channel(identity))
    call = stub.Attach()
    assert dict(await call.trailing_metadata())["parley-code"] == "forbidden"
