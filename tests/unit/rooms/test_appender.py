"""One batch in one transaction: numbers without gaps, keys once, and nobody's failure is anybody else's."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from services.common.db import migrate
from services.common.db.engines import make_engine
from services.common.wire.codes import ErrorCode
from services.rooms.appender import KEY_CHARS_MAX, Appender
from services.rooms.messages import Outcome, Publish
from services.rooms.tables import members, messages, rooms
from tests.helpers.rooms_world import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

NOW_MS = 1_800_000_000_000


class Bench:
    """An appender on a database with rooms a, b (private) and c; alice and bob are members of a, b and c."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now_ms = NOW_MS
        self.batches: list[int] = []
        self.appender = Appender(lambda: self.now_ms / 1000, self.batches.append)
        self.reset()

    def reset(self) -> None:
        for table in (messages, members, rooms):
            self.connection.execute(table.delete())
        for number, name in enumerate("abc", 1):
            self.add_room(number, f"room{name}", is_private=name == "b")
            for user in ("alice", "bob"):
                self.add_member(number, user)
        self.connection.commit()

    def add_room(self, number: int, room_id: str, *, is_private: bool = False) -> None:
        row = {
            "number": number,
            "room_id": room_id,
            "name": room_id,
            "name_key": room_id,
            "topic": "",
            "is_private": is_private,
            "epoch": room_id.replace("room", "epoch"),
            "last_seq": 0,
            "last_sent_at_ms": 0,
            "members_version": random.getrandbits(62),
            "member_count": 2,
            "join_count": 2,
            "created_at_ms": NOW_MS,
        }
        self.connection.execute(insert(rooms).values(row))

    def add_member(self, number: int, user: str) -> None:
        values = {"role": "member", "join_order": 1, "joined_at_ms": NOW_MS}
        self.connection.execute(insert(members).values(room_number=number, user_id=user, username=user, **values))

    def remove_member(self, number: int, user: str, version: int) -> None:
        self.connection.execute(members.delete().where(members.c.room_number == number, members.c.user_id == user))
        self.connection.execute(rooms.update().where(rooms.c.number == number).values(members_version=version))
        self.connection.commit()

    def append(self, *items: list[Publish]) -> list[list[Outcome]]:
        outcomes = self.appender(self.connection, list(items))
        self.connection.commit()
        return outcomes

    def one(self, publish: Publish) -> Outcome:
        return self.append([publish])[0][0]

    def log(self, number: int = 1) -> list[tuple[int, str]]:
        query = select(messages.c.seq, messages.c.text).where(messages.c.room_number == number)
        return [(row[0], row[1]) for row in self.connection.execute(query.order_by(messages.c.seq))]

    def last_seq(self, number: int = 1) -> int:
        return self.connection.execute(select(rooms.c.last_seq).where(rooms.c.number == number)).scalar_one()


@contextlib.contextmanager
def make_bench(folder: Path) -> Iterator[Bench]:
    url = f"sqlite:///{folder / 'rooms.db'}"
    migrate(url, MIGRATIONS)
    engine = make_engine(url, pool_size=1, is_reader=False)
    with engine.connect() as connection:
        yield Bench(connection)
    engine.dispose()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with make_bench(tmp_path) as made:
        yield made


def say(text: str, *, key: str | None = None, user: str = "alice", room: str = "a", number: int = 0) -> Publish:
    return Publish(number, f"room{room}", user, user, text, text if key is None else key)


def seqs(outcomes: list[Outcome]) -> list[int | str]:
    return [f"={o.seq}" if o.is_duplicate else o.seq if o.code is None else o.code.value for o in outcomes]


def test_messages_are_numbered_in_order_per_room(bench: Bench) -> None:
    first, second = bench.append([say("1"), say("2", room="c")], [say("3", user="bob"), say("4")])
    assert [(o.epoch, o.seq, o.sent_at_ms) for o in first] == [("epocha", 1, NOW_MS), ("epochc", 1, NOW_MS)]
    assert seqs(second) == [2, 3]
    assert bench.log() == [(1, "1"), (2, "3"), (3, "4")]
    assert bench.last_seq() == 3
    assert seqs(bench.append([say("5")])[0]) == [4]
    assert bench.batches == [4, 1]


def test_a_key_that_was_stored_before_is_found(bench: Bench) -> None:
    stored = bench.one(say("hello", key="k"))
    bench.now_ms += 5_000
    again = bench.one(say("hello", key="k"))
    assert again == Outcome(stored.epoch, stored.seq, stored.sent_at_ms, is_duplicate=True)
    assert bench.one(say("other", key="k")).code is ErrorCode.CONFLICT
    assert bench.log() == [(1, "hello")]


def test_a_key_belongs_to_its_sender_and_room(bench: Bench) -> None:
    outcomes = bench.append([say("x", key="k"), say("x", key="k", user="bob"), say("x", key="k", room="c")])[0]
    assert seqs(outcomes) == [1, 2, 1]


def test_duplicates_inside_one_batch(bench: Bench) -> None:
    outcomes = bench.append([say("x", key="k"), say("y"), say("x", key="k")], [say("z", key="k"), say("x", key="k")])
    assert [seqs(part) for part in outcomes] == [[1, 2, "=1"], ["conflict", "=1"]]
    assert bench.log() == [(1, "x"), (2, "y")]


def test_a_duplicate_leaves_no_gap_and_spoils_no_other(bench: Bench) -> None:
    bench.append([say("1"), say("2")])
    batch = [say("3"), say("1"), say("4"), say("changed", key="2"), say("other room", room="c"), say("5")]
    assert seqs(bench.append(batch)[0]) == [3, "=1", 4, "conflict", 1, 5]
    assert bench.log() == [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5")]
    assert bench.last_seq() == 5
    assert bench.last_seq(3) == 1


def test_a_batch_of_nothing_but_duplicates(bench: Bench) -> None:
    bench.append([say("1"), say("2")])
    assert seqs(bench.append([say("2"), say("1")])[0]) == ["=2", "=1"]
    assert bench.last_seq() == 2


@pytest.mark.parametrize(
    ("publish", "code"),
    [
        (say("x", room="z"), "no_such_room"),
        (say("x", user="eve"), "not_a_member"),
        (say("x", user="eve", room="b"), "no_such_room"),  # private: eve must not know that it exists
        (say("x", key=""), "bad_request"),
        (say("x", key="k" * (KEY_CHARS_MAX + 1)), "bad_request"),
        (say("x" * 4_001, key="k"), "too_large"),
    ],
)
def test_a_refused_message_leaves_no_gap(bench: Bench, publish: Publish, code: str) -> None:
    assert seqs(bench.append([say("1"), publish, say("2")])[0]) == [1, code, 2]
    assert bench.log() == [(1, "1"), (2, "2")]
    # The same on the careful way.
    assert seqs(bench.append([say("1"), publish, say("3")])[0]) == ["=1", code, 3]


def test_the_longest_text_and_key_are_stored(bench: Bench) -> None:
    longest = "\U0001f600" * 4_000
    assert bench.one(say(longest, key="k" * KEY_CHARS_MAX)).seq == 1
    assert bench.log() == [(1, longest)]


def test_who_is_no_member_any_more_still_learns_what_was_stored(bench: Bench) -> None:
    bench.one(say("hello", key="k", user="bob"))
    bench.remove_member(1, "bob", version=77)
    outcomes = bench.append([say("hello", key="k", user="bob"), say("more", user="bob"), say("x", key="k", user="bob")])
    assert seqs(outcomes[0]) == ["=1", "not_a_member", "not_a_member"]


def test_the_end_of_a_membership_counts_at_once(bench: Bench) -> None:
    assert bench.one(say("1", user="bob")).seq == 1
    bench.remove_member(1, "bob", version=77)
    assert bench.one(say("2", user="bob")).code is ErrorCode.NOT_A_MEMBER
    assert bench.one(say("3")).seq == 2


def test_who_joins_can_publish_at_once(bench: Bench) -> None:
    assert bench.one(say("1", user="eve")).code is ErrorCode.NOT_A_MEMBER
    bench.add_member(1, "eve")  # without a new version: what is cached is who is a member, never who is not
    assert bench.one(say("2", user="eve")).seq == 1


def test_time_does_not_go_back_within_a_room(bench: Bench) -> None:
    first = bench.one(say("1"))
    bench.now_ms -= 60_000
    second = bench.one(say("2"))
    assert second.sent_at_ms == first.sent_at_ms
    assert bench.one(say("other", room="c")).sent_at_ms == NOW_MS - 60_000
    bench.now_ms = NOW_MS + 1
    assert bench.one(say("3")).sent_at_ms == NOW_MS + 1


def test_many_rooms_in_one_batch(bench: Bench) -> None:
    for number in range(10, 310):
        bench.add_room(number, f"many{number}")
        bench.add_member(number, "alice")
    bench.connection.commit()
    publishes = [Publish(0, f"many{number}", "alice", "alice", "x", "k") for number in range(10, 310)]
    assert seqs(bench.append(publishes)[0]) == [1] * 300


def test_the_cache_of_members_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rooms.appender._CACHED_MEMBERS_MAX", 1)
    for n in range(5):
        assert seqs(bench.append([say(f"{n}"), say(f"b{n}", user="bob"), say(f"c{n}", room="c")])[0])[2] == n + 1
    assert bench.appender._cached_count <= 3


def test_a_broken_log_is_noticed(bench: Bench) -> None:
    bench.append([say("1"), say("2")])
    bench.connection.execute(rooms.update().where(rooms.c.number == 1).values(last_seq=1))
    bench.connection.commit()
    with pytest.raises(Exception, match=r"UNIQUE constraint failed: messages\.room_number, messages\.seq"):
        bench.append([say("3")])


USERS = st.sampled_from(["alice", "bob", "eve"])
PUBLISHES = st.builds(
    say,
    st.sampled_from(["x", "y"]),
    key=st.sampled_from(["", "k1", "k2", "k3", "k4", "k5"]),
    user=USERS,
    room=st.sampled_from("abcz"),
)


def expected(model: dict[tuple[str, str, str], tuple[int, str]], ends: dict[str, int], publish: Publish) -> Any:
    """What a log that looks at one message after the other would say."""
    if not publish.key:
        return "bad_request"
    if publish.room_id == "roomz":
        return "no_such_room"
    if publish.user_id == "eve":
        return "no_such_room" if publish.room_id == "roomb" else "not_a_member"
    place = (publish.room_id, publish.user_id, publish.key)
    if place in model:
        seq, text = model[place]
        return f"={seq}" if text == publish.text else "conflict"
    ends[publish.room_id] = ends.get(publish.room_id, 0) + 1
    model[place] = (ends[publish.room_id], publish.text)
    return ends[publish.room_id]


BATCHES = st.lists(st.lists(st.lists(PUBLISHES, min_size=1, max_size=6), min_size=1, max_size=3), max_size=6)


def test_batches_are_as_good_as_one_after_the_other(bench: Bench) -> None:
    @given(BATCHES)
    @settings(max_examples=80, deadline=None)
    def check(batches: list[list[list[Publish]]]) -> None:
        model: dict[tuple[str, str, str], tuple[int, str]] = {}
        ends: dict[str, int] = {}
        bench.reset()
        for items in batches:
            wanted = [[expected(model, ends, publish) for publish in item] for item in items]
            assert [seqs(outcomes) for outcomes in bench.append(*items)] == wanted
        for number, name in enumerate("abc", 1):
            end = ends.get(f"room{name}", 0)
            assert [seq for seq, _ in bench.log(number)] == list(range(1, end + 1))
            assert bench.last_seq(number) == end

    check()
