from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from services.common.clock import FakeClock
from services.common.counters import Counter, Histogram
from services.common.wire.requests import Authenticate, History, JoinRoom, Logout, Request, Resume
from services.edge.decisions import Command, Text
from services.edge.qos.classes import ClassSettings, QosClass
from services.edge.qos.pump import ClassUpdate, Pump
from services.edge.qos.scheduler import PART_MAX

SETTINGS = {
    QosClass.CRITICAL: ClassSettings(target_s=0.0, share=50),
    QosClass.HIGH: ClassSettings(target_s=0.05, share=50),
    QosClass.NORMAL: ClassSettings(target_s=0.2, share=50),
    QosClass.LOW: ClassSettings(target_s=1.0, share=50),
}


@dataclass
class Connection:
    id: int = 1


@dataclass
class Sink:
    room: int = 1_000
    texts: list[str] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        return self.room > 0

    def submit(self, text: Text, now: float) -> None:
        self.room -= 1
        self.texts.append(text.text)


class World:
    def __init__(self, concurrency: int = 8, share: int = 50) -> None:
        self.clock = FakeClock()
        self.sink = Sink()
        self.running: list[tuple[Command, Callable[[], None]]] = []
        self.turns: list[Callable[[], None]] = []
        self.waits = {qos_class: Histogram((0.5,)) for qos_class in QosClass}
        self.accepted = {qos_class: Counter() for qos_class in QosClass}
        self.refused = {qos_class: Counter() for qos_class in QosClass}
        self.pump = Pump(
            {qos_class: ClassSettings(one.target_s, share) for qos_class, one in SETTINGS.items()},
            concurrency=concurrency,
            texts=self.sink,
            start_command=lambda command, done: self.running.append((command, done)),
            call_soon=self.turns.append,
            clock=self.clock,
            waits=self.waits,
            accepted=self.accepted,
            refused=self.refused,
        )

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for one in turns:
            one()

    def text(self, text: str, *, connection: int = 1, qos_class: QosClass = QosClass.NORMAL) -> float | None:
        item = Text("room", text, None, None, qos_class, "u", "amy", 0.0, Connection(connection))
        return self.pump.offer_text(item, self.clock.monotonic())

    def flood(self, connection: int) -> None:
        """Texts without an end from a connection, which goes on whenever it may."""
        while not self.pump.must_hold(connection):
            assert self.text(str(connection), connection=connection) is None
        self.pump.hold(connection, lambda: self.flood(connection))

    def command(self, request: Request, qos_class: QosClass = QosClass.HIGH, *, connection: int = 1) -> float | None:
        item = Command(request, None, qos_class, 0.0, Connection(connection))
        return self.pump.offer_command(item, self.clock.monotonic())

    @property
    def started(self) -> list[str]:
        return [command.request.type for command, _ in self.running]

    def end_all(self) -> None:
        ended, self.running[:] = list(self.running), []
        for _, done in ended:
            done()


LOGIN = Authenticate("amy", "secret")
JOIN = JoinRoom("lobby")


def test_a_text_starts_at_once_while_there_is_room() -> None:
    world = World()
    world.text("t1")
    world.text("t2", qos_class=QosClass.LOW)
    assert world.sink.texts == ["t1", "t2"]
    assert world.turns == []
    normal, low = world.pump.snapshot()[2:]
    assert (normal.accepted, normal.started, low.started) == (1, 1, 1)


def test_what_waits_is_ordered_before_anything_starts() -> None:
    world = World()
    world.sink.room = 0
    world.text("t1")
    world.text("low", connection=2, qos_class=QosClass.LOW)
    world.sink.room = 9
    world.text("t2", connection=3)
    world.command(JOIN)
    assert (world.sink.texts, world.started) == ([], [])
    assert len(world.turns) == 1
    world.turn()
    assert world.sink.texts == ["t1", "t2", "low"]
    assert world.started == ["join_room"]
    world.text("t3")
    assert world.sink.texts[-1] == "t3"


def test_texts_wait_for_room_and_commands_do_not_wait_for_texts() -> None:
    world = World()
    world.sink.room = 1
    for number in range(5):
        world.text(f"t{number}")
    world.command(Logout(), QosClass.CRITICAL)
    world.turn()
    assert world.sink.texts == ["t0"]
    assert world.started == ["logout"]
    assert not world.pump.is_idle
    assert world.pump.waiting(QosClass.NORMAL) == 4
    world.sink.room = 2
    world.pump.kick()
    world.turn()
    assert world.sink.texts == ["t0", "t1", "t2"]


def test_logins_pages_and_commands_have_bounds_of_their_own() -> None:
    world = World(concurrency=8)
    for number in range(9):
        world.command(LOGIN, QosClass.CRITICAL, connection=number)
        world.command(History("room"), QosClass.LOW, connection=number)
    world.turn()
    assert sorted(world.started) == ["auth_request"] * 9 + ["history"] * 2  # whose turn it is, auth decides
    for number in range(9):
        world.command(JOIN, connection=number)
    world.turn()
    assert world.started.count("join_room") == 4
    assert world.pump.running == 15
    for number in range(9, 80):
        world.command(LOGIN, QosClass.CRITICAL, connection=number)
        if number % 20 == 0:
            world.turn()
    world.turn()
    assert world.started.count("auth_request") == 64  # eight times the concurrency, and no more
    world.end_all()
    world.turn()
    assert sorted(world.started) == ["auth_request"] * 16 + ["history"] * 2 + ["join_room"] * 4


@pytest.mark.parametrize(("concurrency", "at_once"), [(4, 1), (64, 4), (1_000, 62)])
def test_resumes_are_under_way_a_few_at_a_time_and_nothing_waits_behind_them(concurrency: int, at_once: int) -> None:
    world = World(concurrency=concurrency, share=200)
    for number in range(100):
        world.command(Resume("token"), QosClass.CRITICAL, connection=number)
    world.command(LOGIN, QosClass.CRITICAL)
    world.command(JOIN)
    world.turn()
    assert sorted(world.started) == ["auth_request", "join_room"] + ["resume"] * at_once
    while world.running:
        world.end_all()
        world.turn()
        assert len(world.running) <= at_once
    assert world.pump.is_idle


def test_a_full_share_refuses_with_a_time() -> None:
    world = World()
    world.sink.room = 0
    answers = [world.text(f"t{number}", connection=number) for number in range(51)]
    assert answers[:50] == [None] * 50
    assert answers[50] is not None
    assert answers[50] > 0


def test_a_command_wished_low_waits_among_the_low() -> None:
    world = World(concurrency=4)
    for number in range(3):
        world.command(JOIN, QosClass.LOW, connection=number)
    world.turn()
    assert world.started == ["join_room"]


def test_a_connection_that_goes_takes_its_commands_but_not_its_texts() -> None:
    world = World()
    world.sink.room = 0
    world.text("accepted")
    world.command(JOIN)
    world.command(JOIN, connection=2)
    world.pump.discard(1)
    world.sink.room = 1
    world.turn()
    assert [command.connection.id for command, _ in world.running] == [2]
    assert world.sink.texts == ["accepted"]


def test_waiting_times_are_observed() -> None:
    world = World()
    world.sink.room = 0
    world.text("a")
    world.command(JOIN)
    world.clock.advance(2)
    world.sink.room = 1
    world.turn()
    assert world.waits[QosClass.NORMAL].sum == 2
    assert world.waits[QosClass.HIGH].count == 1


def test_counts_and_age_are_kept_by_class() -> None:
    world = World()
    world.text("at once")
    world.sink.room = 0
    assert [world.pump.oldest(qos_class) for qos_class in QosClass] == [0, 0, 0, 0]
    for number in range(51):
        world.text(f"t{number}", connection=number)
        world.clock.advance(0.125)
    world.command(JOIN)
    world.clock.advance(1)
    assert world.pump.oldest(QosClass.NORMAL) == 51 * 0.125 + 1
    assert world.pump.oldest(QosClass.HIGH) == 1
    assert world.pump.oldest(QosClass.LOW) == 0
    assert {one.label: (world.accepted[one].value, world.refused[one].value) for one in QosClass} == {
        "low": (0, 0),
        "normal": (51, 1),
        "high": (1, 0),
        "critical": (0, 0),
    }


def test_it_can_be_looked_at_and_changed_while_running() -> None:
    world = World(concurrency=4)
    for number in range(6):
        world.command(JOIN, connection=number)
    world.turn()
    world.clock.advance(1)
    high = world.pump.snapshot()[1]
    assert (high.qos_class, high.waiting, high.accepted, high.started, high.oldest_s) == (QosClass.HIGH, 4, 6, 2, 1.0)
    world.pump.configure(concurrency=12, updates=[ClassUpdate(QosClass.NORMAL, target_s=0.5, share=1)])
    world.turn()
    assert len(world.running) == 6
    world.sink.room = 0
    assert world.text("a", connection=1) is None
    assert world.text("b", connection=2) is not None
    normal = world.pump.snapshot()[2]
    assert (normal.target_s, normal.share, normal.refused) == (0.5, 1, 1)


@pytest.mark.parametrize(
    ("concurrency", "update"),
    [(3, []), (1_001, []), (8, [ClassUpdate(QosClass.LOW, share=0)]), (8, [ClassUpdate(QosClass.LOW, target_s=-1)])],
)
def test_what_makes_no_sense_changes_nothing(concurrency: int, update: list[ClassUpdate]) -> None:
    world = World(concurrency=4)
    good = ClassUpdate(QosClass.HIGH, share=7)
    with pytest.raises(ValueError, match=r"concurrency|share|target_s"):
        world.pump.configure(concurrency=concurrency, updates=[good, *update])
    assert world.pump.concurrency == 4
    assert world.pump.snapshot()[1].share == 50


def test_nobody_is_held_back_while_texts_start_at_once() -> None:
    world = World()
    for number in range(200):
        world.text(f"t{number}")
        assert not world.pump.must_hold(1)


def test_who_has_a_part_of_the_places_is_held_back_until_texts_start() -> None:
    world = World()
    world.sink.room = 0
    accepted = 0
    while not world.pump.must_hold(1):
        assert world.text("t") is None
        accepted += 1
    assert accepted == PART_MAX
    assert not world.pump.must_hold(2)
    assert world.text("other", connection=2) is None
    world.sink.room = 30
    world.turn()
    assert not world.pump.must_hold(1)


def test_those_who_are_held_go_on_in_turn_and_nobody_is_refused() -> None:
    world = World(share=4_096)
    world.sink.room = 0
    for connection in range(250):
        world.flood(connection)
    for _ in range(200):
        world.sink.room = 300
        world.pump.kick()
        world.turn()
    started = Counts(world.sink.texts)
    assert set(started) == {str(connection) for connection in range(250)}
    assert max(started.values()) - min(started.values()) <= 2 * PART_MAX
    assert world.refused[QosClass.NORMAL].value == 0


def test_who_is_held_goes_on_only_when_little_waits() -> None:
    world = World(share=4_096)
    world.sink.room = 0
    for connection in range(100):
        world.flood(connection)
    world.sink.room = 100 * PART_MAX - 600
    world.turn()
    assert all(world.pump.is_held(connection) for connection in range(100))
    world.sink.room = 200
    world.pump.kick()
    world.turn()
    assert world.pump.waiting(QosClass.NORMAL) > 400


@pytest.mark.parametrize("share", [1, 10, 50, 1_000])
def test_while_nothing_starts_there_is_nothing_to_do_for_those_who_are_held(share: int) -> None:
    world = World(share=share)
    world.sink.room = 0
    for connection in range(3):
        if not world.pump.must_hold(connection) and world.text("t", connection=connection) is None:
            world.flood(connection)
    for _ in range(10):
        world.turn()
    assert world.turns == []


def test_whose_turn_it_is_and_has_no_text_does_not_stop_those_behind() -> None:
    world = World(share=4_096)
    world.sink.room = 0
    world.flood(1)
    gone_on = []
    for connection in range(2, 300):
        world.pump.hold(connection, lambda connection=connection: gone_on.append(connection))  # type: ignore[misc]
    for _ in range(300):
        world.turn()
    assert gone_on == list(range(2, 300))
    assert world.turns == []


def test_who_leaves_has_no_turn() -> None:
    world = World(share=4_096)
    world.sink.room = 0
    world.flood(1)
    world.pump.hold(2, pytest.fail)
    world.pump.discard(2)
    assert not world.pump.is_held(2)
    world.turn()
