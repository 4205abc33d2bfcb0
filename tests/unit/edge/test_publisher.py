from __future__ import annotations

from typing import Any

import pytest
from parley.rooms.v1 import feed_pb2

from services.common.clock import FakeClock
from services.common.wire.codes import ErrorCode
from services.edge import publisher
from services.edge.decisions import Text, Voucher
from services.edge.publisher import Publisher, refusal_text
from services.edge.qos.classes import QosClass
from services.edge.runs import Run
from tests.helpers import columns


class Connection:
    """What became of a connection's texts."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int, bool]] = []
        self.refused: list[tuple[str, str, float | None]] = []

    def text_stored(self, text: Text, epoch: str, seq: int, ts: int, duplicate: bool, now: float) -> None:
        assert (epoch, ts) == ("e001", 1_800)
        self.stored.append((text.text, seq, duplicate))

    def text_refused(self, text: Text, code: ErrorCode, message: str, retry_after_s: float | None, now: float) -> None:
        assert message
        self.refused.append((text.text, code.value, retry_after_s))


class World:
    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.connection = Connection()
        self.wakes = 0
        self.kicks = 0
        limits = {"texts_max": 100, "bytes_max": 1_000, "batches_max": 2, "timeout_s": 10.0, **changes}
        self.counted: list[tuple[float, int]] = []
        self.publisher = Publisher(
            boot_id="b007",
            wake_feed=self._wake,
            on_room=self._kick,
            count_stored=lambda *counted: self.counted.append(counted),
            **limits,
        )
        self.publisher.connected()

    def _wake(self) -> None:
        self.wakes += 1

    def _kick(self) -> None:
        self.kicks += 1

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def submit(self, *texts: str, key: str | None = None, room_id: str = "room0001", run: Run | None = None) -> None:
        for text in texts:
            made = Text(room_id, text, key, None, QosClass.NORMAL, "u1", "amy", self.now, self.connection)
            if run is not None:
                made.run, made.place = run, run.add()
            self.publisher.submit(made, self.now)

    def take(self) -> list[columns.PublishRow]:
        request = feed_pb2.AttachRequest()
        self.publisher.fill(request)
        return columns.publish_rows(request.publishes)

    def stored(self, *numbers: int) -> None:
        count = len(numbers)
        stored = feed_pb2.Stored(
            numbers=numbers,
            epochs=["e001"] * count,
            seqs=[number * 10 for number in numbers],
            sent_at_ms=[1_800] * count,
        )
        self.publisher.resolve(stored, [], self.now)

    def expire_after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.publisher.expire(self.now)


def texts(batch: list[columns.PublishRow]) -> list[str]:
    return [publish.text for publish in batch]


def test_what_has_queued_up_is_one_batch() -> None:
    world = World()
    world.submit("a", "b", "c")
    assert world.wakes == 1
    batch = world.take()
    assert [(one.number, one.text) for one in batch] == [(1, "a"), (2, "b"), (3, "c")]
    assert (batch[0].room_id, batch[0].user_id, batch[0].username) == ("room0001", "u1", "amy")
    assert world.take() == []
    world.stored(1, 2, 3)
    assert world.connection.stored == [("a", 10, False), ("b", 20, False), ("c", 30, False)]
    assert len(world.publisher) == 0
    assert world.kicks


def test_keys_of_clients_and_of_the_edge_cannot_meet() -> None:
    world = World()
    world.submit("a", key="eb007-2")
    world.submit("b")
    assert [one.key for one in world.take()] == ["ceb007-2", "eb007-2"]


def test_only_so_many_batches_are_under_way() -> None:
    world = World()
    for number in range(5):
        world.submit(f"t{number}")
        world.take()
    assert world.take() == []
    world.stored(1)
    assert texts(world.take()) == ["t2", "t3", "t4"]


def test_a_batch_ends_with_its_last_text() -> None:
    world = World()
    world.submit("a", "b")
    world.take()
    world.submit("c")
    world.take()
    world.submit("d")
    wakes = world.wakes
    world.stored(1)
    assert world.take() == []
    assert world.wakes == wakes
    world.stored(2)
    assert world.wakes == wakes + 1
    assert texts(world.take()) == ["d"]


def test_refusals_and_repetitions_are_passed_on() -> None:
    world = World()
    world.submit("a", "b", "c", "d")
    world.take()
    result = feed_pb2.PublishResult
    world.publisher.resolve(
        feed_pb2.Stored(),
        [
            result(number=1, error_code="not_a_member"),
            result(number=2, error_code="overloaded", retry_after_s=1.5),
            result(number=3, error_code="something new"),
            result(number=4, epoch="e001", seq=7, sent_at_ms=1_800, duplicate=True),
            result(number=99, epoch="e001", seq=8, sent_at_ms=1_800),
        ],
        world.now,
    )
    assert world.connection.refused == [
        ("a", "not_a_member", None),
        ("b", "overloaded", 1.5),
        ("c", "internal", None),
    ]
    assert world.connection.stored == [("d", 7, True)]


def test_a_new_stream_gets_everything_unresolved_in_order_with_its_keys() -> None:
    world = World()
    world.submit("a", "b")
    first = world.take()
    world.submit("c")
    world.stored(1)
    world.publisher.disconnected()
    assert world.take() == []
    world.submit("d")
    world.publisher.connected()
    again = world.take()
    assert [(one.number, one.text) for one in again] == [(2, "b"), (3, "c"), (4, "d")]
    assert again[0].key == first[1].key
    world.stored(2, 3, 4)
    assert [text for text, _, _ in world.connection.stored] == ["a", "b", "c", "d"]


def test_what_was_written_and_not_answered_has_an_unknown_outcome() -> None:
    world = World()
    world.submit("written")
    world.take()
    world.publisher.disconnected()
    world.submit("never written")
    world.expire_after(9.9)
    assert world.connection.refused == []
    world.expire_after(0.1)
    assert world.connection.refused == [
        ("written", "unknown_outcome", None),
        ("never written", "unavailable", None),
    ]
    world.publisher.connected()
    assert world.take() == []
    world.stored(1)  # too late: it was answered
    assert world.connection.stored == []


def test_what_was_written_once_stays_written_though_its_second_stream_took_nothing() -> None:
    world = World()
    world.submit("a")
    world.take()
    world.publisher.disconnected()
    world.publisher.connected()
    world.expire_after(10)
    assert world.connection.refused == [("a", "unknown_outcome", None)]


@pytest.mark.parametrize("code", ["unavailable", "overloaded", "internal"])
def test_a_refusal_says_nothing_of_what_an_earlier_stream_did(code: str) -> None:
    """Rooms may have stored it before that stream was lost, and cannot be asked now."""
    world = World()
    world.submit("a", key="k")
    world.take()
    world.publisher.disconnected()
    world.publisher.connected()
    assert texts(world.take()) == ["a"]
    world.submit("b")
    world.take()
    refuse(world, 1, code)
    refuse(world, 2, code)
    assert [(text, told) for text, told, _ in world.connection.refused] == [("a", "unknown_outcome"), ("b", code)]


def test_a_refusal_says_nothing_of_what_another_instance_did() -> None:
    """A text that moved was written to the instance that was lost."""
    lost, other = World(), World()
    lost.submit("a", key="k")
    lost.take()
    moved = lost.publisher.withdraw(lambda _: True)
    other.publisher.adopt(moved)
    other.take()
    refuse(other, 1, "unavailable")
    assert [told for _, told, _ in lost.connection.refused] == ["unknown_outcome"]


@pytest.mark.parametrize("code", ["not_a_member", "no_such_room", "conflict"])
def test_a_refusal_after_a_look_at_what_is_stored_stands(code: str) -> None:
    world = World()
    world.submit("a", key="k")
    world.take()
    world.publisher.disconnected()
    world.publisher.connected()
    world.take()
    refuse(world, 1, code)
    assert [told for _, told, _ in world.connection.refused] == [code]


def test_what_is_given_up_makes_way_for_the_next_batch() -> None:
    world = World(batches_max=1)
    world.submit("a")
    world.take()
    world.clock.advance(5)
    world.submit("b", room_id="room0002")
    assert world.take() == []
    world.expire_after(5)
    assert texts(world.take()) == ["b"]


def test_with_a_text_goes_what_came_behind_it_from_the_same_connection_to_the_same_room() -> None:
    world = World()
    world.submit("a")
    world.take()
    world.clock.advance(9)
    world.submit("b", "c")
    world.submit("elsewhere", room_id="room0002")
    others, world.connection = world.connection, Connection()
    world.submit("another's")
    world.expire_after(1)
    assert others.refused == [("a", "unknown_outcome", None), ("b", "unavailable", None), ("c", "unavailable", None)]
    assert texts(world.take()) == ["elsewhere", "another's"]


def refuse(world: World, number: int, code: str) -> None:
    world.publisher.resolve(
        feed_pb2.Stored(), [feed_pb2.PublishResult(number=number, error_code=code, retry_after_s=0.25)], world.now
    )


def test_what_follows_a_text_that_was_turned_away_is_not_written_any_more() -> None:
    world = World(batches_max=1)
    run = Run()
    world.submit("a", "b", run=run)
    world.take()
    world.submit("c", run=run)
    world.submit("alone")
    refuse(world, 2, "overloaded")
    assert world.connection.refused == [("b", "overloaded", 0.25), ("c", "unavailable", None)]
    world.submit("d", run=run)
    assert world.connection.refused[2:] == [("d", "unavailable", None)]
    world.stored(1)
    assert texts(world.take()) == ["alone"]


def test_what_follows_and_was_written_is_not_written_again() -> None:
    world = World()
    run = Run()
    world.submit("a", run=run)
    world.take()
    world.submit("b", run=run)
    world.take()
    refuse(world, 1, "unavailable")
    world.publisher.disconnected()
    world.publisher.connected()
    assert world.take() == []
    world.expire_after(1)
    assert world.connection.refused == [("a", "unavailable", 0.25), ("b", "unknown_outcome", None)]


def test_a_refusal_for_good_cuts_nothing_off() -> None:
    world = World(batches_max=1)
    run = Run()
    world.submit("a", run=run)
    world.take()
    world.submit("b", run=run)
    refuse(world, 1, "conflict")
    assert texts(world.take()) == ["b"]


def test_the_window_is_bounded_in_texts_and_in_bytes() -> None:
    world = World(texts_max=3)
    world.submit("a", "b")
    assert world.publisher.has_room
    world.submit("c")
    assert not world.publisher.has_room
    world.take()
    world.stored(1)
    assert world.publisher.has_room

    world = World(bytes_max=100)
    world.submit("\N{GRINNING FACE}" * 25)
    assert not world.publisher.has_room
    world.publisher.disconnected()
    world.expire_after(10)
    assert world.publisher.has_room


@pytest.mark.parametrize("code", ErrorCode)
def test_every_refusal_has_words(code: ErrorCode) -> None:
    assert refusal_text(code)


def test_what_waited_too_long_for_room_is_not_sent_at_all() -> None:
    world = World()
    text = Text("room0001", "late", None, None, QosClass.NORMAL, "u1", "amy", 0.0, world.connection)
    world.clock.advance(10)
    world.publisher.submit(text, world.now)
    assert world.connection.refused == [("late", "unavailable", None)]
    assert world.take() == []
    assert len(world.publisher) == 0


def test_what_is_stored_is_counted_with_the_time_it_took() -> None:
    world = World()
    world.submit("a", "b")
    world.clock.advance(0.5)
    world.submit("c")
    world.take()
    world.clock.advance(0.75)
    world.stored(1, 2, 3)
    world.stored(3)
    assert [one for one in world.counted if one[1]] == [(1.25, 2), (0.75, 1)]


def test_an_assertion_goes_with_its_persons_first_text_on_a_stream_and_when_it_was_renewed() -> None:
    world = World()
    word = Voucher(b"one")

    def sent() -> list[bytes]:
        item = Text(
            "room0001", "a", None, None, QosClass.NORMAL, "u1", "amy", world.now, world.connection, voucher=word
        )
        world.publisher.submit(item, world.now)
        request = feed_pb2.AttachRequest()
        world.publisher.fill(request)
        world.stored(item.number)
        return list(request.assertions)

    assert [sent(), sent()] == [[b"one"], []]
    word.assertion = b"two"
    assert [sent(), sent()] == [[b"two"], []]
    world.publisher.disconnected()
    world.publisher.connected()
    assert [sent(), sent()] == [[b"two"], []]


def test_how_many_assertions_rooms_is_known_to_have_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_VOUCHED_MAX", 3)
    world = World()
    for number in range(10):
        word = Voucher(b"%d" % number)
        user = f"u{number}"
        item = Text("room0001", "a", None, None, QosClass.NORMAL, user, user, world.now, world.connection, voucher=word)
        world.publisher.submit(item, world.now)
    request = feed_pb2.AttachRequest()
    world.publisher.fill(request)
    assert list(request.assertions) == [b"%d" % number for number in range(10)]
    assert len(world.publisher._vouched) <= 3


def test_a_text_whose_sender_rooms_does_not_believe_may_be_sent_again_soon() -> None:
    world = World()
    word = Voucher(b"one", renew_at=100.0)
    item = Text("room0001", "a", None, None, QosClass.NORMAL, "u1", "amy", world.now, world.connection, voucher=word)
    world.publisher.submit(item, world.now)
    world.take()
    refusal = feed_pb2.PublishResult(number=item.number, error_code="not_authenticated", retry_after_s=1.0)
    world.publisher.resolve(feed_pb2.Stored(), [refusal], world.now)
    assert world.connection.refused == [("a", "unavailable", 1.0)]
    assert word.renew_at < world.now
