from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.edge.files.windows import Incoming, Outgoing

SIZE, WINDOW = 500, 90


class IncomingMachine(RuleBasedStateMachine):
    """Chunks, takes and acknowledgements in any order: the bytes come out as they went in, within the window."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytes(number % 251 for number in range(SIZE))
        self.window = Incoming(size=SIZE, offset=7, window=WINDOW)
        self.taken = bytearray(self.data[:7])

    @rule(count=st.integers(1, 40))
    def next_chunk(self, count: int) -> None:
        window = self.window
        at, data = window.received, self.data[window.received : window.received + count]
        fits = bool(data) and at + len(data) - window.stored <= WINDOW
        assert (window.receive(at, data) is None) == fits
        assert window.received == (at + len(data) if fits else at)

    @rule(offset=st.integers(0, 2 * SIZE), count=st.integers(0, 40))
    def any_chunk(self, offset: int, count: int) -> None:
        if offset != self.window.received:
            before = self.window.received
            assert self.window.receive(offset, b"x" * count) is not None
            assert self.window.received == before

    @rule(bytes_max=st.integers(1, 100))
    @precondition(lambda self: self.window.waiting_bytes)
    def take(self, bytes_max: int) -> None:
        offset, data = self.window.take(bytes_max)
        assert offset == len(self.taken)
        assert data
        self.taken += data

    @rule(more=st.integers(-50, 50))
    def store(self, more: int) -> None:
        before = self.window.stored
        self.window.store(before + more)
        assert before <= self.window.stored <= self.window.received

    @invariant()
    def nothing_is_lost(self) -> None:
        window = self.window
        assert bytes(self.taken) == self.data[: window.taken]
        assert window.waiting_bytes == window.received - window.taken
        assert window.received - window.stored <= WINDOW
        assert window.is_received == (window.received == SIZE)
        assert window.is_taken == (window.taken == SIZE)


TestIncoming = IncomingMachine.TestCase


def test_whole_chunks_are_taken_together() -> None:
    window = Incoming(size=100, offset=0, window=100)
    for start in range(0, 100, 25):
        assert window.receive(start, bytes(25)) is None
    assert [len(window.take(60)[1]), len(window.take(10)[1]), len(window.take(10)[1])] == [50, 25, 25]


@given(st.lists(st.integers(-20, 200), max_size=50))
def test_only_what_was_sent_is_acknowledged(offsets: list[int]) -> None:
    window = Outgoing(offset=10, window=100)
    window.send(50)
    for offset in offsets:
        before = window.acknowledged
        assert window.acknowledge(offset) == (before < offset <= 60)
        assert before <= window.acknowledged <= 60
        assert window.room == 100 - (60 - window.acknowledged)
