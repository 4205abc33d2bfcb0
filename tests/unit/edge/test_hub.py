from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.common.counters import Counter
from services.common.wire.events import Message
from services.edge.audience import is_replayable
from services.edge.decisions import User
from services.edge.hub import PENDING_MAX, Hub, Subscriber
from services.edge.outbox import Outbox

EPOCH = "e001"
NOW = 1_800_000_000.0


def message(seq: int, username: str = "zoe", text: str = "") -> Message:
    return Message(seq, username, text or f"text {seq}", 1_800_000_000_000 + seq)


def run(first: int, last: int, username: str = "zoe") -> list[Message]:
    return [message(seq, username) for seq in range(first, last + 1)]


class World:
    """A hub, and what its connections were sent."""

    def __init__(self, *, recipients_per_turn: int = 100) -> None:
        self.wakes = 0
        self.feed_wakes = 0
        self.delivered = Counter()
        self._number = 0
        self.sent_files: list[tuple[object, str, str, str]] = []
        self.hub = Hub(
            wake=self._wake,
            wake_feed=self._wake_feed,
            number=self._next,
            delivered=self.delivered,
            send_file=self._send_file,
            recipients_per_turn=recipients_per_turn,
        )
        self.now = 0.0

    def _wake(self) -> None:
        self.wakes += 1

    def _wake_feed(self) -> None:
        self.feed_wakes += 1

    def _send_file(self, *file: Any) -> None:
        self.sent_files.append(file)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def subscriber(self, username: str = "amy", *, version: int = 2) -> Subscriber:
        outbox = Outbox(None, lambda _: None)
        user = User(f"u-{username}", username, f"s-{username}", NOW)
        return Subscriber(object(), outbox, version=version, user=user)

    def receive(self, room_id: str, messages: list[Message], epoch: str = EPOCH) -> bool:
        return self.hub.receive(room_id, epoch, messages, self.now)

    def deliver(self) -> bool:
        return self.hub.deliver(NOW)


def frames(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Everything that waits, as the client would see it."""
    found = []
    while subscriber.outbox.waiting_bytes:
        data, _ = subscriber.outbox.take(1 << 30)
        while data:
            size = int.from_bytes(data[:4], "big")
            found.append(json.loads(data[4 : 4 + size]))
            data = data[4 + size :]
    return found


def seqs(subscriber: Subscriber, room_id: str = "room") -> list[int]:
    found = []
    for frame in frames(subscriber):
        if frame["type"] == "messages" and frame["room_id"] == room_id:
            found += [one["seq"] for one in frame["data"]["messages"]]
        elif frame["type"] == "text_message" and frame["room_id"] == room_id:
            found.append(frame["data"]["seq"])
    return found


def test_the_first_who_comes_has_the_room_followed_from_there() -> None:
    world = World()
    amy = world.subscriber()
    assert world.hub.attach(amy, "room", epoch=EPOCH, last_seq=7) == 7
    assert world.feed_wakes
    assert world.hub.take_follows() == ([("room", EPOCH, 7)], [])
    assert world.hub.take_follows() == ([], [])
    world.receive("room", run(8, 9))
    assert frames(amy) == []  # until the turn ends
    assert world.wakes
    world.deliver()
    assert seqs(amy) == [8, 9]


def test_all_members_get_the_same_bytes_and_one_frame_a_turn() -> None:
    world = World()
    people = [world.subscriber(name) for name in ("amy", "ben", "cleo")]
    for one in people:
        world.hub.attach(one, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 2))
    world.receive("room", run(3, 3))
    world.deliver()
    sent = [one.outbox.take(1 << 20) for one in people]
    assert {count for _, count in sent} == {1}
    assert sent[0][0] is sent[1][0] is sent[2][0]
    assert world.delivered.value == 9


def fill(world: World, count: int, room_id: str = "room") -> list[Subscriber]:
    members = [world.subscriber(f"{room_id}-{number}") for number in range(count)]
    for member in members:
        world.hub.attach(member, room_id, epoch=EPOCH, last_seq=0)
    return members


def waiting(members: list[Subscriber]) -> list[int]:
    return [index for index, member in enumerate(members) if member.outbox.waiting_bytes]


def test_a_large_room_is_served_over_several_turns_with_the_same_bytes() -> None:
    world = World(recipients_per_turn=2)
    members = fill(world, 5)
    world.receive("room", run(1, 2))
    assert world.deliver()
    assert waiting(members) == [0, 1]
    assert world.delivered.value == 4
    world.receive("room", run(3, 3))
    assert world.deliver()
    assert waiting(members) == [0, 1, 2, 3]
    assert world.deliver()  # the last of them, and the first of the next sweep
    first, last = members[0].outbox.take(1 << 30)[0], members[4].outbox.take(1 << 30)[0]
    assert first.startswith(last)
    while world.deliver():
        pass
    assert [seqs(member) for member in members[1:4]] == [[1, 2, 3]] * 3
    assert seqs(members[4]) == [3]
    assert world.delivered.value == 15


def test_what_comes_during_a_sweep_goes_out_together_in_the_next() -> None:
    world = World(recipients_per_turn=1)
    amy, ben = fill(world, 2)
    world.receive("room", run(1, 1))
    world.deliver()
    for seq in (2, 3, 4):
        world.receive("room", run(seq, seq))
    while world.deliver():
        pass
    assert [len(frame["data"]["messages"]) for frame in frames(amy)] == [1, 3]
    assert [len(frame["data"]["messages"]) for frame in frames(ben)] == [1, 3]


def test_who_leaves_during_a_sweep_gets_nothing_and_who_comes_back_begins_behind_it() -> None:
    world = World(recipients_per_turn=1)
    members = fill(world, 4)
    world.receive("room", run(1, 1))
    world.deliver()
    world.hub.detach(members[2], "room")
    world.hub.detach(members[3], "room")
    assert world.hub.attach(members[3], "room", epoch=EPOCH, last_seq=0) == 1
    late = world.subscriber("late")
    assert world.hub.attach(late, "room", epoch=EPOCH, last_seq=0) == 1
    while world.deliver():
        pass
    assert [seqs(member) for member in members] == [[1], [1], [], []]
    world.receive("room", run(2, 2))
    while world.deliver():
        pass
    assert (seqs(members[3]), seqs(late), seqs(members[2])) == ([2], [2], [])


def test_a_bookmark_during_a_sweep_promises_nothing_that_may_be_missing() -> None:
    world = World(recipients_per_turn=1)
    amy, ben = fill(world, 2)
    world.receive("room", run(1, 3))
    world.deliver()
    assert world.hub.bookmarks(ben) == {"room": 0}
    cat = world.subscriber("cat")
    assert world.hub.attach(cat, "room", epoch=EPOCH, last_seq=3) == 3
    assert world.hub.bookmarks(cat) == {"room": 3}
    world.deliver()
    assert seqs(amy) == seqs(ben) == [1, 2, 3]
    assert world.hub.bookmarks(ben) == {"room": 3}


def test_rooms_take_turns() -> None:
    world = World(recipients_per_turn=2)
    large, small = fill(world, 6, "large"), fill(world, 2, "small")
    world.receive("large", run(1, 1))
    world.receive("small", run(1, 1))
    world.deliver()
    world.deliver()
    assert (waiting(large), waiting(small)) == ([0, 1], [0, 1])
    assert world.deliver()
    assert not world.deliver()
    assert waiting(large) == [0, 1, 2, 3, 4, 5]


def test_a_room_with_too_much_waiting_is_served_at_once() -> None:
    world = World(recipients_per_turn=1)
    members = fill(world, 3)
    world.receive("room", run(1, 1))
    world.deliver()
    world.receive("room", run(2, 1 + PENDING_MAX))
    world.deliver()
    assert [seqs(member) for member in members] == [[1]] * 3


def test_a_new_epoch_gives_out_the_rest_of_a_sweep_first() -> None:
    world = World(recipients_per_turn=1)
    members = fill(world, 3)
    world.receive("room", run(1, 1))
    world.deliver()
    world.receive("room", run(1, 1), epoch="e002")
    while world.deliver():
        pass
    epochs = [[frame["data"]["epoch"] for frame in frames(member)] for member in members]
    assert epochs == [[EPOCH, "e002"]] * 3


def test_a_room_that_everybody_leaves_during_a_sweep_and_comes_back_to_begins_anew() -> None:
    world = World(recipients_per_turn=1)
    amy, ben = fill(world, 2)
    world.receive("room", run(1, 2))
    world.deliver()
    for member in (amy, ben):
        world.hub.detach_all(member)
    assert world.hub.attach(ben, "room", epoch=EPOCH, last_seq=2) == 2
    while world.deliver():
        pass
    world.receive("room", run(3, 3))
    world.deliver()
    assert (seqs(amy), seqs(ben)) == ([1, 2], [3])


def test_a_frame_that_would_be_too_large_is_split() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", [message(seq, text="x" * 4_000) for seq in range(1, 41)])
    world.deliver()
    assert amy.outbox.first_waiting() == {"room": 1}
    assert world.hub.bookmarks(amy) == {"room": 0}
    assert seqs(amy) == list(range(1, 41))


def test_who_comes_when_the_hub_is_further_begins_there() -> None:
    world = World()
    world.hub.attach(world.subscriber("amy"), "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 5))
    world.deliver()
    ben = world.subscriber("ben")
    assert world.hub.attach(ben, "room", epoch=EPOCH, last_seq=3) == 5
    world.receive("room", run(6, 6))
    world.deliver()
    assert seqs(ben) == [6]


def test_who_comes_when_the_hub_is_behind_waits_for_it() -> None:
    world = World()
    amy, ben = world.subscriber("amy"), world.subscriber("ben")
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    assert world.hub.attach(ben, "room", epoch=EPOCH, last_seq=3) == 3
    assert world.hub.bookmarks(ben) == {"room": 3}
    world.receive("room", run(1, 2))
    world.deliver()
    world.receive("room", run(3, 5))
    world.deliver()
    world.receive("room", run(6, 6))
    world.deliver()
    assert seqs(amy) == [1, 2, 3, 4, 5, 6]
    assert seqs(ben) == [4, 5, 6]


def test_messages_of_the_turn_in_which_somebody_comes_are_theirs_if_they_were_not_told_of_them() -> None:
    world = World()
    world.hub.attach(world.subscriber("amy"), "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 2))
    ben = world.subscriber("ben")
    assert world.hub.attach(ben, "room", epoch=EPOCH, last_seq=1) == 1
    world.deliver()
    assert seqs(ben) == [2]


def test_repetitions_are_dropped() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 3))
    world.receive("room", run(1, 3))
    world.receive("room", run(2, 5))
    world.deliver()
    world.receive("room", run(4, 5))
    world.deliver()
    assert seqs(amy) == [1, 2, 3, 4, 5]


def test_a_gap_is_refused_and_asked_for_once_a_second() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 2))
    world.hub.take_follows()
    assert not world.receive("room", run(5, 6))
    assert world.hub.take_follows() == ([("room", EPOCH, 2)], [])
    assert not world.receive("room", run(7, 7))
    assert world.hub.take_follows() == ([], [])
    world.now = 1.0
    assert not world.receive("room", run(8, 8))
    assert world.hub.take_follows() == ([("room", EPOCH, 2)], [])
    assert world.receive("room", run(3, 8))
    world.deliver()
    assert seqs(amy) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert world.hub.gap_count == 3


def test_a_new_stream_follows_every_room_from_its_position() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "a", epoch=EPOCH, last_seq=1)
    world.hub.attach(amy, "b", epoch=EPOCH, last_seq=2)
    world.hub.take_follows()
    world.receive("a", run(2, 4))
    world.hub.follow_all()
    assert world.hub.take_follows() == ([("a", EPOCH, 4), ("b", EPOCH, 2)], [])


def test_a_room_without_connections_is_let_go() -> None:
    world = World()
    amy, ben = world.subscriber("amy"), world.subscriber("ben")
    for one in (amy, ben):
        world.hub.attach(one, "room", epoch=EPOCH, last_seq=0)
    world.hub.take_follows()
    world.receive("room", run(1, 1))
    world.hub.detach(amy, "room")
    world.hub.detach(amy, "room")
    assert world.hub.take_follows() == ([], [])
    world.hub.detach_all(ben)
    assert world.hub.room_count == 0
    world.deliver()
    assert seqs(amy) == seqs(ben) == []
    assert world.hub.take_follows() == ([], ["room"])
    assert world.receive("room", run(2, 2))  # was on its way


def test_leaving_and_coming_back_at_once_follows_anew() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    world.hub.take_follows()
    world.hub.detach(amy, "room")
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=4)
    assert world.hub.take_follows() == ([("room", EPOCH, 4)], [])


def test_attaching_twice_changes_nothing() -> None:
    world = World()
    amy = world.subscriber()
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", run(1, 2))
    world.deliver()
    assert world.hub.attach(amy, "room", epoch=EPOCH, last_seq=2) == 2
    assert world.hub.joined_at(amy, "room") == 0
    world.receive("room", run(3, 3))
    world.deliver()
    assert seqs(amy) == [1, 2, 3]


def test_a_new_epoch_begins_with_its_first_message() -> None:
    world = World()
    amy, ben = world.subscriber("amy"), world.subscriber("ben")
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=9)
    world.hub.attach(ben, "room", epoch=EPOCH, last_seq=12)
    world.receive("room", run(5, 6), epoch="e002")
    world.deliver()
    assert seqs(amy) == seqs(ben) == [5, 6]
    assert world.hub.bookmarks(ben) == {"room": 6}


def test_who_is_told_of_a_new_epoch_first_brings_it() -> None:
    world = World()
    amy, ben = world.subscriber("amy"), world.subscriber("ben")
    world.hub.attach(amy, "room", epoch=EPOCH, last_seq=9)
    world.hub.take_follows()
    assert world.hub.attach(ben, "room", epoch="e002", last_seq=3) == 3
    assert world.hub.take_follows() == ([("room", "e002", 3)], [])
    world.receive("room", run(4, 4), epoch="e002")
    world.deliver()
    assert seqs(amy) == seqs(ben) == [4]


def test_version_1_gets_single_messages_and_not_its_own() -> None:
    world = World()
    amy, ben = world.subscriber("amy", version=1), world.subscriber("ben", version=1)
    for one in (amy, ben):
        world.hub.attach(one, "room", epoch=EPOCH, last_seq=0)
    world.receive("room", [message(1, "amy"), message(2, "zoe")])
    world.deliver()
    to_ben = frames(ben)
    assert [frame["data"]["seq"] for frame in to_ben] == [1, 2]
    assert {frame["type"] for frame in to_ben} == {"text_message"}
    assert len({frame["id"] for frame in to_ben}) == 2
    assert seqs(amy) == [2]
    assert world.hub.bookmarks(amy) == {"room": 2}
    assert world.delivered.value == 3


def test_presence_is_told_to_the_others() -> None:
    world = World()
    amy, ben, old = world.subscriber("amy"), world.subscriber("ben"), world.subscriber("old", version=1)
    for one in (amy, ben, old):
        world.hub.attach(one, "room", epoch=EPOCH, last_seq=0)

    def announce(action: str, username: str = "", online: int = 0) -> None:
        world.hub.announce("room", action, username=username, online=online, now=NOW)

    announce("online", "amy")
    assert frames(amy) == []
    (event,) = frames(ben)
    assert (event["type"], event["data"], event["room_id"]) == (
        "user_list",
        {"action": "online", "username": "amy"},
        "room",
    )
    assert frames(old)[0]["data"] == {"action": "join", "username": "amy"}
    announce("leave", "amy")  # removed by somebody else: they are told, because nothing else tells them
    assert frames(amy)[0]["data"]["action"] == "leave"
    frames(ben), frames(old)
    announce("count", online=120)
    assert frames(ben)[0]["data"] == {"action": "count", "online": 120}
    assert frames(old) == []
    world.hub.announce("nowhere", "online", username="amy", online=1, now=NOW)


def test_a_replay_is_whole_or_none() -> None:
    world = World()
    for after, recovered in ((0, False), (200, False), (201, True), (1200, True), (1201, True), (1202, False)):
        subscriber = world.subscriber(f"p{after}")
        assert world.hub.attach(subscriber, "room", epoch=EPOCH, last_seq=1201, after=after) == 1201
        assert is_replayable(after, 1201) is recovered
        assert (world.hub.missing(subscriber, "room") is not None) is (recovered and after < 1201)


def test_live_messages_go_past_a_replay_and_come_after_it() -> None:
    world = World()
    other, back = world.subscriber("zoe"), world.subscriber()
    world.hub.attach(other, "room", epoch=EPOCH, last_seq=10)
    assert world.hub.attach(back, "room", epoch=EPOCH, last_seq=10, after=7) == 10
    world.receive("room", run(11, 12))
    world.deliver()
    assert seqs(other) == [11, 12]
    assert world.hub.bookmarks(back) == {"room": 7}
    assert world.hub.missing(back, "room") == (7, 12)
    assert world.hub.replay(back, "room", run(8, 9))
    assert world.hub.bookmarks(back) == {"room": 7}  # they wait in the outbox
    assert seqs(back) == [8, 9]
    assert world.hub.bookmarks(back) == {"room": 9}
    assert world.hub.replay(back, "room", run(10, 12))
    world.receive("room", run(13, 13))
    world.deliver()
    assert seqs(back) == [10, 11, 12, 13]


def test_the_tail_closes_what_a_page_left_open() -> None:
    world = World()
    back, live = world.subscriber(), world.subscriber("zoe")
    world.hub.attach(live, "room", epoch=EPOCH, last_seq=10)
    world.hub.attach(back, "room", epoch=EPOCH, last_seq=10, after=8)
    world.hub.keep_tail("room")
    world.receive("room", run(11, 13))
    world.deliver()
    assert world.hub.tail(back, "room") == []  # 9 and 10 are not in it
    world.hub.replay(back, "room", run(9, 10))
    assert world.hub.tail(back, "room") == run(11, 13)
    world.hub.replay(back, "room", world.hub.tail(back, "room"))
    assert world.hub.missing(back, "room") is None
    assert seqs(back) == [9, 10, 11, 12, 13]
    world.hub.keep_tail("room")  # nobody replays: nothing is kept
    world.receive("room", run(14, 14))
    world.deliver()
    assert world.hub.tail(back, "room") == []
    assert seqs(back) == [14]


def test_a_replay_ahead_of_the_feed_waits_for_it() -> None:
    world = World()
    live, back = world.subscriber("zoe"), world.subscriber()
    world.hub.attach(live, "room", epoch=EPOCH, last_seq=5)
    assert world.hub.attach(back, "room", epoch=EPOCH, last_seq=9, after=5) == 9
    assert world.hub.replay(back, "room", run(6, 9))
    world.receive("room", run(6, 10))
    world.deliver()
    assert seqs(back) == [6, 7, 8, 9, 10]


def test_a_new_epoch_ends_a_replay() -> None:
    world = World()
    back = world.subscriber()
    world.hub.attach(back, "room", epoch=EPOCH, last_seq=9, after=5)
    world.receive("room", run(3, 3), epoch="e002")
    world.deliver()
    assert world.hub.missing(back, "room") is None
    assert not world.hub.replay(back, "room", run(6, 9))
    assert seqs(back) == [3]


class HubMachine(RuleBasedStateMachine):
    """Any interleaving keeps I7, I8 and I15: each connection sees start+1, start+2, …, whether it begins with a replay
    or with live messages, and bookmarks never promise more.

    The room's log only grows; the stream below repeats, skips, restarts, and begins wherever it was last told to.
    """

    ROOM = "room"

    @initialize()
    def begin(self) -> None:
        self.world = World(recipients_per_turn=2)
        self.log_length = 0
        self.stream_at: int | None = None  # what the stream shows next - 1; None while the room is not followed
        self.watchers: dict[Subscriber, list[int]] = {}  # what each has been given, with its start first
        self.pages: dict[Subscriber, tuple[int, int]] = {}  # what replays have asked the log for
        self.count = 0

    def _read(self, subscriber: Subscriber, budget: int) -> None:
        seen = self.watchers[subscriber]
        data, _ = subscriber.outbox.take(budget)
        while data:
            size = int.from_bytes(data[:4], "big")
            for one in json.loads(data[4 : 4 + size])["data"].get("messages", ()):
                assert one["seq"] == seen[-1] + 1
                seen.append(one["seq"])
            data = data[4 + size :]

    @rule(count=st.integers(1, 5))
    def messages_are_stored(self, count: int) -> None:
        self.log_length += count

    @rule(behind=st.integers(0, 3))
    def somebody_comes(self, behind: int) -> None:
        self.count += 1
        subscriber = self.world.subscriber(f"p{self.count}")
        told = self.world.hub.attach(subscriber, self.ROOM, epoch=EPOCH, last_seq=max(0, self.log_length - behind))
        assert told <= self.log_length
        self.watchers[subscriber] = [told]

    @rule(behind=st.integers(0, 3), missed=st.integers(0, 12))
    def somebody_resumes(self, behind: int, missed: int) -> None:
        self.count += 1
        subscriber = self.world.subscriber(f"p{self.count}")
        hub, last_seq = self.world.hub, max(0, self.log_length - behind)
        after = max(0, last_seq - missed)
        told = hub.attach(subscriber, self.ROOM, epoch=EPOCH, last_seq=last_seq, after=after)
        assert last_seq <= told <= self.log_length
        assert hub.attach(subscriber, self.ROOM, epoch=EPOCH, last_seq=self.log_length) >= last_seq  # joins again
        assert (hub.missing(subscriber, self.ROOM) is None) == (after >= told)
        assert hub.joined_at(subscriber, self.ROOM) == told
        self.watchers[subscriber] = [after]

    @precondition(lambda self: self.watchers)
    @rule(which=st.integers(0, 100), keeps_tail=st.booleans())
    def a_replay_asks(self, which: int, keeps_tail: bool) -> None:
        subscriber = list(self.watchers)[which % len(self.watchers)]
        missing = self.world.hub.missing(subscriber, self.ROOM)
        if missing is None:
            return
        after, last = missing
        assert after < last <= self.log_length
        if tail := self.world.hub.tail(subscriber, self.ROOM):
            assert self.world.hub.replay(subscriber, self.ROOM, tail)
            assert self.world.hub.missing(subscriber, self.ROOM) is None
            self.pages.pop(subscriber, None)
            return
        if keeps_tail:
            self.world.hub.keep_tail(self.ROOM)
        self.pages[subscriber] = missing

    @precondition(lambda self: self.pages)
    @rule(which=st.integers(0, 100), count=st.integers(1, 6))
    def a_page_comes(self, which: int, count: int) -> None:
        subscriber = list(self.pages)[which % len(self.pages)]
        after, last = self.pages.pop(subscriber)
        if subscriber in self.watchers:
            assert self.world.hub.replay(subscriber, self.ROOM, run(after + 1, min(last, after + count)))
            assert not self.world.hub.replay(subscriber, self.ROOM, run(after + 1, after + 1))  # the same once more
        else:
            assert not self.world.hub.replay(subscriber, self.ROOM, run(after + 1, last))

    @precondition(lambda self: self.watchers)
    @rule(which=st.integers(0, 100))
    def somebody_goes(self, which: int) -> None:
        subscriber = list(self.watchers)[which % len(self.watchers)]
        self.world.hub.detach_all(subscriber)
        self._read(subscriber, 1 << 30)
        del self.watchers[subscriber]

    @rule()
    def the_feed_writes(self) -> None:
        follows, unfollows = self.world.hub.take_follows()
        if unfollows:
            self.stream_at = None
        for _, _, after in follows:
            self.stream_at = after

    @rule()
    def the_stream_is_lost(self) -> None:
        self.stream_at = None
        self.world.hub.follow_all()

    @precondition(lambda self: self.stream_at is not None)
    @rule(count=st.integers(1, 4), repeat=st.integers(0, 3), skip=st.sampled_from([0, 0, 0, 1, 3]))
    def the_stream_brings(self, count: int, repeat: int, skip: int) -> None:
        assert self.stream_at is not None
        first = max(1, self.stream_at + 1 - repeat + skip)
        last = min(self.log_length, first + count - 1)
        if first <= last:
            self.world.now += 2.0
            self.world.receive(self.ROOM, run(first, last))
            self.stream_at = max(self.stream_at, last)

    @rule()
    def the_turn_ends(self) -> None:
        self.world.deliver()

    @precondition(lambda self: self.watchers)
    @rule(which=st.integers(0, 100), budget=st.integers(1, 1000), first_hold=st.booleans())
    def somebody_reads(self, which: int, budget: int, first_hold: bool) -> None:
        subscriber = list(self.watchers)[which % len(self.watchers)]
        if first_hold:
            subscriber.outbox.hold()
        self._read(subscriber, budget)

    @invariant()
    def bookmarks_are_true(self) -> None:
        for subscriber, seen in self.watchers.items():
            assert self.world.hub.bookmarks(subscriber)[self.ROOM] <= seen[-1]

    def teardown(self) -> None:
        """I12: once the stream works, everybody gets everything."""
        if not hasattr(self, "world"):
            return
        self.world.hub.follow_all()
        for _, _, after in self.world.hub.take_follows()[0]:
            self.world.receive(self.ROOM, run(after + 1, self.log_length))
        while self.world.deliver():
            pass
        for subscriber, seen in self.watchers.items():
            while (missing := self.world.hub.missing(subscriber, self.ROOM)) is not None:
                assert self.world.hub.replay(subscriber, self.ROOM, run(missing[0] + 1, missing[1]))
            self._read(subscriber, 1 << 30)
            assert seen[-1] == self.log_length
            assert self.world.hub.bookmarks(subscriber) == {self.ROOM: self.log_length}


TestHubMachine: Callable[..., Any] = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]
