from __future__ import annotations

from typing import Any, cast

from services.edge.qos.classes import QosClass
from services.edge.sender import WRITE_BYTES, Sender


class Transport:
    """Takes `takes` bytes, then says stop."""

    def __init__(self, takes: int = 1 << 30) -> None:
        self.takes = takes
        self.data = b""
        self.is_closed = False
        self.buffer_size = 0
        self.sender: Sender | None = None

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low > 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.data += data
        self.takes -= len(data)
        if self.takes <= 0 and self.sender is not None:
            self.sender.pause(0.0)

    def get_write_buffer_size(self) -> int:
        return self.buffer_size

    def close(self) -> None:
        self.is_closed = True


class World:
    def __init__(self, takes: int = 1 << 30, waiting_max: int = 1_000_000) -> None:
        self.marks: list[Sender] = []
        self.slow = 0
        self.sender = Sender(self.marks.append, waiting_max=waiting_max, on_slow=self._on_slow)
        self.transport = Transport(takes)
        self.transport.sender = self.sender
        self.sender.open(cast("Any", self.transport))

    def _on_slow(self) -> None:
        self.slow += 1

    def post(self, *datas: bytes, lane: QosClass = QosClass.NORMAL) -> None:
        for data in datas:
            self.sender.post((data, lane, None, 0))


def test_a_turn_is_one_write() -> None:
    world = World()
    world.post(b"a", b"b")
    assert world.marks == [world.sender]
    assert world.sender.flush() == (2, 2)
    assert world.transport.data == b"ab"
    assert world.sender.sent_bytes == 2


def test_what_the_transport_does_not_take_stays_and_can_be_passed() -> None:
    world = World(takes=WRITE_BYTES)
    piece = b"n" * 10_000
    world.post(*[piece] * 20)
    frames, size = world.sender.flush()
    assert WRITE_BYTES <= size < WRITE_BYTES + 10_000
    assert frames == 7
    world.post(b"!", lane=QosClass.CRITICAL)
    assert world.sender.flush() == (0, 0)
    world.transport.takes = 1 << 30
    world.marks.clear()
    world.sender.resume()
    assert world.marks == [world.sender]
    assert world.sender.flush() == (14, 200_001 - size)
    assert world.sender.flush() == (0, 0)
    assert world.transport.data[size : size + 2] == b"!n"
    assert len(world.transport.data) == 200_001
    assert world.sender.outbox.waiting_bytes == 0
    assert world.slow == 0


def test_resuming_with_nothing_to_say_says_nothing() -> None:
    world = World()
    world.sender.pause(0.0)
    world.sender.resume()
    assert world.marks == []


def test_too_much_waiting_is_slow() -> None:
    world = World(takes=1, waiting_max=1_000)
    world.post(b"x" * 500)
    world.sender.flush()
    world.post(b"x" * 1_000)
    world.sender.flush()
    assert world.slow == 0
    world.post(b"x")
    world.sender.flush()
    assert world.slow == 1


def test_more_than_the_bound_in_one_turn_is_fine_for_who_reads() -> None:
    world = World(waiting_max=1_000)
    world.post(*[b"x" * 1_000] * 500)
    world.sender.flush()
    assert (world.slow, len(world.transport.data)) == (0, 500_000)


def test_stuck_is_who_takes_nothing() -> None:
    world = World()
    assert world.sender.stuck_since(5.0) is None
    world.transport.buffer_size = 100
    world.sender.pause(10.0)
    assert world.sender.stuck_since(15.0) == 10.0
    world.transport.buffer_size = 90
    assert world.sender.stuck_since(16.0) == 16.0
    assert world.sender.stuck_since(20.0) == 16.0
    world.sender.resume()
    assert world.sender.stuck_since(21.0) is None


def test_finishing_says_everything_and_then_the_last_word() -> None:
    world = World()
    world.post(b"a", b"b")
    world.sender.finish(b"bye")
    assert world.transport.data == b"abbye"
    assert world.transport.is_closed
    world.post(b"late")
    assert world.sender.flush() == (0, 0)
    world.sender.finish(b"again")
    assert world.transport.data == b"abbye"


def test_who_does_not_read_is_told_the_last_word_only() -> None:
    world = World(takes=1)
    world.post(b"a")
    world.sender.flush()
    world.post(b"b")
    world.sender.finish(b"bye")
    assert world.transport.data == b"abye"
    assert world.sender.outbox.waiting_bytes == 0


def test_before_and_after_the_connection_nothing_is_kept() -> None:
    sender = Sender(lambda _: None, waiting_max=1, on_slow=lambda: None)
    sender.post((b"early", QosClass.HIGH, None, 0))
    assert sender.outbox.waiting_bytes == 0
    world = World()
    world.post(b"a")
    world.sender.lost()
    assert world.sender.flush() == (0, 0)
    assert world.transport.data == b""
