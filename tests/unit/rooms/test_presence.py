"""Presence: who is seen where, against a model that recounts everything each time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.rooms.presence import ANNOUNCE_RACE_S, Action, Change, Presence, Session

ALICE = Session("s1", "u1", "alice", "boot-1")
ALICE_2 = Session("s2", "u1", "alice", "boot-2")
BOB = Session("s3", "u2", "bob", "boot-1")


def actions(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.action.value, change.username, change.room_id) for change in changes]


@pytest.fixture
def presence() -> Presence:
    presence = Presence(grace_s=5, crowd=3, count_interval_s=1)
    presence.attach("boot-1", "edge-1", 0)
    presence.attach("boot-2", "edge-2", 0)
    return presence


def test_a_person_comes_and_goes(presence: Presence) -> None:
    assert actions(presence.open(ALICE, ["r", "q"], 0)) == [("online", "alice", "r"), ("online", "alice", "q")]
    assert presence.online("r") == {"u1": "alice"}
    assert actions(presence.close(["s1", "unknown"], 1)) == [("offline", "alice", "q"), ("offline", "alice", "r")]
    assert presence.online("r") == {}
    assert presence.session_count == 0


def test_opening_again_changes_nothing(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    assert presence.open(ALICE, ["r"], 1) == []
    assert presence.online_count("r") == 1


def test_two_sessions_are_one_person(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    assert presence.open(ALICE_2, ["r"], 0) == []
    assert presence.online_count("r") == 1
    assert presence.close(["s1"], 1) == []
    assert actions(presence.close(["s2"], 1)) == [("offline", "alice", "r")]


def test_a_newcomer_is_shown_as_joining(presence: Presence) -> None:
    changes = presence.enter(ALICE, "r", 0, is_exclusive=False, is_newcomer=True)
    assert changes == [Change("r", Action.JOIN, "alice", 1)]
    assert presence.enter(ALICE, "r", 0, is_exclusive=False, is_newcomer=False) == []


def test_an_exclusive_session_is_in_one_room(presence: Presence) -> None:
    presence.open(ALICE, ["a", "b"], 0)
    changes = presence.enter(ALICE, "c", 0, is_exclusive=True, is_newcomer=False)
    assert actions(changes) == [("offline", "alice", "a"), ("offline", "alice", "b"), ("online", "alice", "c")]
    assert presence.room_ids("s1") == {"c"}


def test_being_exclusive_leaves_other_sessions_alone(presence: Presence) -> None:
    presence.open(ALICE_2, ["a"], 0)
    presence.open(ALICE, ["a"], 0)
    assert actions(presence.enter(ALICE, "c", 0, is_exclusive=True, is_newcomer=False)) == [("online", "alice", "c")]
    assert presence.online("a") == {"u1": "alice"}


def test_the_end_of_a_membership_takes_all_sessions_out(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    presence.open(ALICE_2, ["r"], 0)
    assert presence.remove("u1", "alice", "r", 1) == [Change("r", Action.LEAVE, "alice", 0)]
    assert presence.close(["s1", "s2"], 2) == []


def test_someone_who_is_not_here_can_leave(presence: Presence) -> None:
    presence.open(BOB, ["r"], 0)
    assert presence.remove("u1", "alice", "r", 1) == [Change("r", Action.LEAVE, "alice", 1)]


def test_an_edge_may_be_away_for_the_grace_period(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    presence.detach("boot-1", 10)
    assert presence.next_tick_at() == 15
    assert presence.tick(14.9) == []
    presence.attach("boot-1", "edge-1", 14.9)
    assert presence.next_tick_at() is None
    assert presence.tick(100) == []
    assert presence.online_count("r") == 1


def test_an_edge_that_stays_away_takes_its_people_along(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    presence.open(ALICE_2, ["q"], 0)
    presence.detach("boot-1", 10)
    assert actions(presence.tick(15)) == [("offline", "alice", "r")]
    assert presence.online_count("q") == 1
    assert presence.next_tick_at() is None


def test_who_was_given_up_and_is_heard_of_again_is_here_again(presence: Presence) -> None:
    eve = Session("s9", "u9", "eve", "boot-x")
    presence.lease("boot-x", "edge-x", until=106, now=100)
    presence.open(eve, ["r"], 100)
    assert presence.tick(105.9) == []
    assert actions(presence.tick(106)) == [("offline", "eve", "r")]
    assert not presence.has_ended("s9")  # nobody has said so
    presence.open(eve, ["r"], 107)
    presence.close(["s9"], 108)
    assert presence.has_ended("s9")


def test_a_second_stream_of_an_edge_keeps_it_present(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    presence.attach("boot-1", "edge-1", 1)
    presence.detach("boot-1", 2)
    assert presence.next_tick_at() is None
    presence.detach("boot-1", 3)
    assert presence.next_tick_at() == 8


def test_a_new_boot_ends_what_the_lost_one_left(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    presence.detach("boot-1", 10)
    assert actions(presence.attach("boot-9", "edge-1", 11)) == [("offline", "alice", "r")]


def test_a_new_boot_leaves_a_living_one_alone(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    assert presence.attach("boot-9", "edge-1", 11) == []
    assert presence.online_count("r") == 1


def test_sessions_of_an_edge_that_never_attaches_end(presence: Presence) -> None:
    presence.open(Session("s9", "u9", "eve", "boot-x"), ["r"], 100)
    assert actions(presence.tick(105)) == [("offline", "eve", "r")]


def test_an_edge_announces_everyone_again(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    changes = presence.announce("boot-1", [(BOB, ["r"])], ANNOUNCE_RACE_S + 1)
    assert actions(changes) == [("online", "bob", "r"), ("offline", "alice", "r")]
    assert presence.online("r") == {"u2": "bob"}


def test_a_session_that_is_newer_than_the_announcement_stays(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 5)
    assert presence.announce("boot-1", [], ANNOUNCE_RACE_S) == []
    assert presence.online_count("r") == 1


def test_an_announcement_concerns_its_own_edge_only(presence: Presence) -> None:
    presence.open(ALICE_2, ["r"], 0)
    assert presence.announce("boot-1", [], 1000) == []


def test_a_session_id_that_now_means_someone_else(presence: Presence) -> None:
    presence.open(ALICE, ["r"], 0)
    changes = presence.open(ALICE._replace(user_id="u2", username="bob"), ["r"], 1)
    assert actions(changes) == [("offline", "alice", "r"), ("online", "bob", "r")]


def people(count: int, boot_id: str = "boot-1") -> list[Session]:
    return [Session(f"p{n}", f"person{n}", f"name{n}", boot_id) for n in range(count)]


def test_a_crowd_is_counted_at_most_once_a_second(presence: Presence) -> None:
    for session in people(3):
        assert len(presence.open(session, ["r"], 0)) == 1
    assert presence.open(people(4)[3], ["r"], 0) == []
    assert presence.tick(0) == [Change("r", Action.COUNT, "", 4)]
    presence.open(people(5)[4], ["r"], 0.3)
    presence.close(["p1"], 0.5)
    presence.open(people(6)[5], ["r"], 0.6)
    assert presence.tick(0.9) == []
    assert presence.next_tick_at() == 1.0
    assert presence.tick(1.0) == [Change("r", Action.COUNT, "", 5)]
    assert presence.tick(5) == []


def test_a_crowd_that_shrinks_is_named_again(presence: Presence) -> None:
    for session in people(4):
        presence.open(session, ["r"], 0)
    presence.tick(0)
    assert presence.close(["p0"], 2) == []  # of four: still a crowd
    assert presence.tick(2) == [Change("r", Action.COUNT, "", 3)]
    assert actions(presence.close(["p1"], 3)) == [("offline", "name1", "r")]


def test_an_empty_crowd_is_counted_once_more_and_forgotten(presence: Presence) -> None:
    for session in people(4):
        presence.open(session, ["r"], 0)
    presence.close(["p0", "p1", "p2", "p3"], 0)
    assert presence.tick(0)[-1] == Change("r", Action.COUNT, "", 0)
    for session in people(4):  # the same crowd again, at once
        presence.open(session, ["r"], 0.1)
    assert presence.tick(0.9) == []
    assert presence.tick(1.0) == [Change("r", Action.COUNT, "", 4)]
    presence.close(["p0", "p1", "p2", "p3"], 5)
    assert presence.tick(5)[-1] == Change("r", Action.COUNT, "", 0)
    assert presence.tick(6) == []
    assert presence.next_tick_at() is None
    assert presence._rooms == {}


NAMES = st.sampled_from("abcde")
ROOMS = st.sampled_from(["r1", "r2", "r3"])
BOOTS = st.sampled_from(["boot-1", "boot-2"])


class PresenceMachine(RuleBasedStateMachine):
    """Any order of calls: what the changes say adds up to what is there."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.presence = Presence(grace_s=5, crowd=2, count_interval_s=1)
        self.seen: dict[str, set[str]] = {}
        self.model: dict[tuple[str, str], tuple[str, set[str]]] = {}  # (boot, name) -> (user, rooms)
        self.streams = {"boot-1": 0, "boot-2": 0}
        self.lost: dict[str, float] = {}
        self.counted: dict[str, list[float]] = {}

    def session(self, name: str, boot: str) -> Session:
        return Session(f"{boot}/{name}", name, name, boot)

    def note(self, changes: list[Change]) -> None:
        for change in changes:
            seen = self.seen.setdefault(change.room_id, set())
            if change.action in {Action.JOIN, Action.ONLINE}:
                seen.add(change.username)
            elif change.action in {Action.LEAVE, Action.OFFLINE}:
                seen.discard(change.username)
            else:
                self.counted.setdefault(change.room_id, []).append(self.now)
                self.seen[change.room_id] = set(self.present(change.room_id))
            assert change.online_count >= 0

    def present(self, room: str) -> set[str]:
        return {user for user, rooms in self.model.values() if room in rooms}

    def known(self, boot: str) -> None:
        if self.streams[boot] == 0:
            self.lost.setdefault(boot, self.now)

    @rule(name=NAMES, boot=BOOTS, rooms=st.sets(ROOMS))
    def open(self, name: str, boot: str, rooms: set[str]) -> None:
        self.known(boot)
        user, before = self.model.get((boot, name), (name, set()))
        self.model[boot, name] = (user, before | rooms)
        self.note(self.presence.open(self.session(name, boot), sorted(rooms), self.now))

    @rule(name=NAMES, boot=BOOTS)
    def close(self, name: str, boot: str) -> None:
        self.model.pop((boot, name), None)
        self.note(self.presence.close([f"{boot}/{name}"], self.now))

    @rule(name=NAMES, boot=BOOTS, room=ROOMS, exclusive=st.booleans(), newcomer=st.booleans())
    def enter(self, name: str, boot: str, room: str, exclusive: bool, newcomer: bool) -> None:
        self.known(boot)
        _, before = self.model.get((boot, name), (name, set()))
        self.model[boot, name] = (name, {room} if exclusive else before | {room})
        session = self.session(name, boot)
        self.note(self.presence.enter(session, room, self.now, is_exclusive=exclusive, is_newcomer=newcomer))

    @rule(name=NAMES, room=ROOMS)
    def remove(self, name: str, room: str) -> None:
        for user, rooms in self.model.values():
            if user == name:
                rooms.discard(room)
        self.note(self.presence.remove(name, name, room, self.now))

    @rule(boot=BOOTS)
    def attach(self, boot: str) -> None:
        self.streams[boot] += 1
        self.lost.pop(boot, None)
        self.note(self.presence.attach(boot, f"edge of {boot}", self.now))

    @rule(boot=BOOTS)
    def detach(self, boot: str) -> None:
        if self.streams[boot]:
            self.streams[boot] -= 1
            if not self.streams[boot]:
                self.lost[boot] = self.now
            self.presence.detach(boot, self.now)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for boot, lost_at in list(self.lost.items()):
            if lost_at + 5 <= self.now:
                del self.lost[boot]
                self.model = {key: value for key, value in self.model.items() if key[0] != boot}
        self.note(self.presence.tick(self.now))

    @invariant()
    def who_is_there_is_who_should_be(self) -> None:
        for room in ("r1", "r2", "r3"):
            assert set(self.presence.online(room)) == self.present(room)
            assert self.presence.online_count(room) == len(self.present(room))

    @invariant()
    def small_rooms_are_seen_as_they_are_unless_a_count_is_due(self) -> None:
        if self.presence.next_tick_at() is None or not self.presence._counts_due:
            for room in ("r1", "r2", "r3"):
                assert self.seen.get(room, set()) == self.present(room)

    @invariant()
    def counts_are_a_second_apart(self) -> None:
        for times in self.counted.values():
            assert all(later - earlier >= 1 - 1e-9 for earlier, later in itertools.pairwise(times))


PresenceMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPresenceMachine = PresenceMachine.TestCase
