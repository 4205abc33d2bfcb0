from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from services.edge.outbox import Frame, Outbox
from services.edge.qos.classes import QosClass


class World:
    """An outbox, and how often it asked to be written."""

    def __init__(self) -> None:
        self.marks: list[object] = []
        self.outbox = Outbox("owner", self.marks.append)

    def post(self, data: str, lane: QosClass = QosClass.NORMAL, room: str | None = None, seq: int = 0) -> None:
        self.outbox.post((data.encode(), lane, room, seq))


def test_a_turns_frames_go_out_together_in_order() -> None:
    world = World()
    world.post("a")
    world.post("b", QosClass.CRITICAL)
    world.post("c", QosClass.LOW)
    assert world.marks == ["owner"]
    assert world.outbox.take(100) == (b"abc", 3)
    assert world.outbox.waiting_bytes == 0
    world.post("d")
    assert len(world.marks) == 2


def test_nothing_waits() -> None:
    assert World().outbox.take(100) == (b"", 0)


def test_a_critical_frame_passes_a_backlog() -> None:
    world = World()
    for number in range(10):
        world.post(f"h{number}", QosClass.LOW)
    world.outbox.hold()
    world.post("n", QosClass.NORMAL)
    world.post("!", QosClass.CRITICAL)
    assert world.outbox.take(4)[0].startswith(b"!nh0")


def test_what_is_held_is_marked_again_by_the_next_frame() -> None:
    world = World()
    world.post("a")
    world.outbox.hold()
    world.post("b")
    assert len(world.marks) == 2


def test_at_least_one_frame_is_taken_however_small_the_budget() -> None:
    world = World()
    world.post("large")
    world.post("next")
    assert world.outbox.take(1) == (b"large", 1)
    assert world.outbox.take(1) == (b"next", 1)


def test_a_low_frame_is_not_starved_by_higher_ones() -> None:
    world = World()
    world.post("L", QosClass.LOW)
    world.outbox.hold()
    taken = b""
    for _ in range(8):
        for _ in range(4):
            world.post("n")
        taken += world.outbox.take(4)[0]
    assert b"L" in taken


def test_the_first_waiting_seq_of_each_room_is_known() -> None:
    world = World()
    world.post("r", QosClass.HIGH)
    world.post("a5", room="a", seq=5)
    world.post("a6", room="a", seq=6)
    world.post("b1", room="b", seq=1)
    assert world.outbox.first_waiting() == {"a": 5, "b": 1}
    world.outbox.take(3)  # the reply and a5
    assert world.outbox.first_waiting() == {"a": 6, "b": 1}
    world.post("a7", room="a", seq=7)
    assert world.outbox.first_waiting() == {"a": 6, "b": 1}
    world.outbox.take(100)
    assert world.outbox.first_waiting() == {}


def test_closing_drops_everything() -> None:
    world = World()
    world.post("a", room="a", seq=1)
    world.outbox.hold()
    world.post("b")
    world.outbox.close()
    assert world.outbox.waiting_bytes == 0
    assert world.outbox.take(10) == (b"", 0)
    assert world.outbox.first_waiting() == {}


_POST = st.tuples(st.just("post"), st.sampled_from(QosClass), st.integers(1, 30))
_STEPS = st.lists(
    st.one_of(_POST, st.tuples(st.just("take"), st.integers(1, 120)), st.tuples(st.just("hold"))), max_size=120
)


@given(_STEPS)
def test_every_frame_goes_once_and_in_order_within_its_lane(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    world = World()
    outbox = world.outbox
    waiting: dict[QosClass, deque[Frame]] = {lane: deque() for lane in QosClass}
    number = 0
    seq = 0
    for step in steps:
        if step[0] == "post":
            number += 1
            _, lane, size = step
            data = f"{number}:{lane.value}".encode().ljust(size, b".") + b"|"
            room = "room" if lane is QosClass.NORMAL else None
            seq += room is not None
            frame = (data, lane, room, seq if room else 0)
            outbox.post(frame)
            waiting[lane].append(frame)
        elif step[0] == "hold":
            outbox.hold()
        else:
            _take(outbox, waiting, step[1])
        assert outbox.waiting_bytes == sum(len(frame[0]) for lane in waiting.values() for frame in lane)
        normal = waiting[QosClass.NORMAL]
        assert outbox.first_waiting() == ({"room": normal[0][3]} if normal else {})
    while outbox.waiting_bytes:
        _take(outbox, waiting, 1_000)
    assert not any(waiting.values())


def _take(outbox: Outbox, waiting: dict[QosClass, deque[Frame]], budget: int) -> None:
    data, count = outbox.take(budget)
    pieces = [piece + b"|" for piece in data.split(b"|")[:-1]]
    assert len(pieces) == count
    for piece in pieces:
        lane = QosClass(int(piece.split(b":")[1][:1]))
        assert waiting[lane].popleft()[0] == piece
    assert len(b"".join(pieces[:-1])) < budget or count <= 2  # the last one, or the lowest first, may exceed it
