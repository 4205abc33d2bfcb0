"""One room on one stream: contiguous, whatever the order in which live events, heads and pages come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from services.rooms.follow import Follow

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Span:
    """Messages first..last."""

    first_seq: int
    last_seq: int
    epoch: str = "e1"

    @property
    def size(self) -> int:
        return self.last_seq - self.first_seq + 1

    def after(self, seq: int) -> Span:
        assert self.first_seq <= seq < self.last_seq
        return Span(seq + 1, self.last_seq, self.epoch)


def live_at(seq: int) -> Follow[Span]:
    follow: Follow[Span] = Follow("r", "e1", seq)
    assert follow.resolve("e1", seq) == []
    assert follow.is_live
    return follow


def test_live_messages_go_straight_through() -> None:
    follow = live_at(3)
    assert follow.offer(Span(4, 6)) == Span(4, 6)
    assert follow.offer(Span(7, 7)) == Span(7, 7)
    assert follow.position == 7


def test_a_position_without_messages_leaves_the_room_behind() -> None:
    follow = live_at(5)
    follow.announce("e1", 4)
    assert follow.is_live
    follow.announce("e1", 8)
    assert (follow.is_live, follow.target) == (False, 8)
    assert follow.offer(Span(9, 9)) is None
    assert follow.add_page("e1", [Span(6, 8)]) == [Span(6, 8), Span(9, 9)]


def test_a_position_before_the_first_answer_counts_in_it() -> None:
    follow: Follow[Span] = Follow("r", "e1", 2)
    follow.announce("e1", 9)
    follow.announce("e1", 8)
    follow.resolve("e1", 7)
    assert (follow.position, follow.target) == (2, 9)


def test_a_position_in_another_life_is_asked_for() -> None:
    follow = live_at(5)
    follow.announce("e2", 3)
    assert not follow.is_resolved
    assert follow.resolve("e2", 3) == []
    assert (follow.is_live, follow.epoch, follow.position) == (True, "e2", 3)


def test_what_is_known_is_not_repeated() -> None:
    follow = live_at(5)
    assert follow.offer(Span(2, 5)) is None
    assert follow.offer(Span(4, 8)) == Span(6, 8)
    assert follow.is_live


def test_a_jump_is_a_loss() -> None:
    follow = live_at(5)
    assert follow.offer(Span(8, 9)) is None
    assert not follow.is_live
    assert (follow.position, follow.target) == (5, 9)
    assert follow.add_page("e1", [Span(6, 7)]) == [Span(6, 7), Span(8, 9)]
    assert follow.is_live
    assert follow.held_bytes == 0


def test_the_gap_is_read_before_the_live_messages() -> None:
    follow: Follow[Span] = Follow("r", "e1", 2)
    assert follow.offer(Span(11, 12)) is None
    assert follow.resolve("e1", 10) == []
    assert follow.offer(Span(13, 13)) is None
    assert follow.held_bytes == 3
    assert follow.add_page("e1", [Span(3, 6)]) == [Span(3, 6)]
    assert not follow.is_live
    assert follow.add_page("e1", [Span(7, 10)]) == [Span(7, 10), Span(11, 12), Span(13, 13)]
    assert follow.is_live


def test_a_page_may_reach_into_what_is_held() -> None:
    follow: Follow[Span] = Follow("r", "e1", 0)
    follow.resolve("e1", 4)
    follow.offer(Span(5, 8))
    assert follow.add_page("e1", [Span(1, 6)]) == [Span(1, 6), Span(7, 8)]


def test_a_full_stream_leaves_the_room_behind() -> None:
    follow = live_at(5)
    assert follow.offer(Span(6, 7), is_full=True) is None
    assert not follow.is_live
    assert follow.held_bytes == 0
    assert follow.add_page("e1", [Span(6, 7)]) == [Span(6, 7)]
    assert follow.is_live


def test_a_message_that_was_announced_before_the_head_is_not_forgotten() -> None:
    follow: Follow[Span] = Follow("r", "e1", 5)
    assert follow.offer(Span(6, 6), is_full=True) is None
    follow.resolve("e1", 5)  # read before message 6 was committed
    assert not follow.is_live
    assert follow.target == 6


def test_another_life_of_the_log_begins_at_its_end() -> None:
    follow: Follow[Span] = Follow("r", "old", 70)
    follow.offer(Span(9, 9))
    assert follow.resolve("e1", 8) == [Span(9, 9)]
    assert follow.epoch == "e1"
    assert follow.is_live


def test_an_edge_that_knows_more_than_there_is_begins_at_the_end() -> None:
    follow: Follow[Span] = Follow("r", "e1", 70)
    follow.resolve("e1", 8)
    assert follow.is_live
    assert follow.offer(Span(9, 9)) == Span(9, 9)


def test_a_new_life_while_following_goes_through() -> None:
    follow = live_at(5)
    assert follow.offer(Span(3, 4, "e2")) == Span(3, 4, "e2")
    assert (follow.epoch, follow.position) == ("e2", 4)


def test_a_page_of_another_life_asks_where_the_room_is() -> None:
    follow = live_at(5)
    follow.offer(Span(9, 9))
    assert follow.add_page("e2", [Span(6, 8, "e2")]) == []
    assert not follow.is_resolved
    assert not follow.is_live
    assert follow.resolve("e2", 8) == []
    assert follow.is_live


def test_a_log_that_lacks_what_was_announced_does_not_stop_the_room() -> None:
    follow = live_at(5)
    follow.offer(Span(8, 9))
    follow.drop_held()
    assert follow.add_page("e1", []) == []
    assert follow.is_live
    assert follow.offer(Span(10, 10)) == Span(10, 10)


def test_the_end() -> None:
    follow = live_at(5)
    follow.offer(Span(8, 9))
    follow.end()
    assert follow.is_ended
    assert follow.held_bytes == 0


class Race:
    """A log, a bus that lags and loses, reads that answer late, and the stream that they feed."""

    def __init__(self, after: int, stored: int) -> None:
        self.follow: Follow[Span] = Follow("r", "e1", after)
        self.log_end = stored  # committed
        self.bus: list[Span] = []  # announced, not delivered
        self.reading: tuple[int, int] | None = None  # a page under way: from behind, up to
        self.sent: list[int] = []
        # An edge that is ahead of the log begins at its end, wherever that is when somebody looks.
        self.start: int | None = after if after <= stored else None

    def send(self, spans: list[Span]) -> None:
        for span in spans:
            self.sent.extend(range(span.first_seq, span.last_seq + 1))

    def commit(self, count: int) -> None:
        self.bus.append(Span(self.log_end + 1, self.log_end + count))
        self.log_end += count

    def announce(self, count: int) -> None:
        """Every fifth time the stream is full."""
        if self.bus:
            ready = self.follow.offer(self.bus.pop(0), is_full=count == 5)
            self.send([ready] if ready is not None else [])

    def lose(self, _count: int) -> None:
        if self.bus:
            self.bus.pop(0)

    def head(self, _count: int) -> None:
        if not self.follow.is_resolved:
            ready = self.follow.resolve("e1", self.log_end)
            if self.start is None:
                self.start = ready[0].first_seq - 1 if ready else self.follow.position
            self.send(ready)

    def read(self, count: int) -> None:
        if self.follow.is_resolved and not self.follow.is_live and self.reading is None:
            self.reading = (self.follow.position, min(self.follow.position + count, self.follow.target))

    def answer(self, _count: int) -> None:
        if self.reading is not None:
            low, high = self.reading
            self.send(self.follow.add_page("e1", [Span(seq, seq) for seq in range(low + 1, high + 1)]))
            self.reading = None

    def drop(self, _count: int) -> None:
        self.follow.drop_held()

    def heal(self) -> None:
        """One more message comes, the bus delivers, and all reads are answered."""
        self.answer(0)
        self.commit(1)
        self.head(0)
        while self.bus:
            self.announce(0)
        for _ in range(200):
            self.read(3)
            self.answer(0)


STEPS = st.tuples(
    st.sampled_from(
        [Race.commit, Race.announce, Race.announce, Race.lose, Race.head, Race.read, Race.answer, Race.drop]
    ),
    st.integers(1, 5),
)


@given(after=st.integers(0, 6), stored=st.integers(0, 6), steps=st.lists(STEPS, max_size=60))
@settings(max_examples=500, deadline=None)
def test_whatever_the_order_the_stream_is_contiguous_and_complete(
    after: int, stored: int, steps: list[tuple[Callable[[Race, int], None], int]]
) -> None:
    race = Race(after, stored)
    for step, count in steps:
        step(race, count)
        assert race.follow.held_bytes >= 0
        if race.sent:
            assert race.sent == list(range(race.sent[0], race.sent[-1] + 1))
    race.heal()
    assert race.follow.is_live
    assert race.start is not None
    assert race.sent == list(range(race.start + 1, race.log_end + 1))
    assert race.follow.held_bytes == 0
