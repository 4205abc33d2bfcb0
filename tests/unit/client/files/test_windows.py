from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from client.files.windows import EARNED_PER, FIRST_BYTES, Allowance, Incoming, Outgoing
from services.common.wire import limits
from services.edge.files import windows as edge


@given(st.integers(0, 500), st.integers(20, 40), st.integers(40, 200), st.data())
def test_what_this_end_sends_the_edge_takes(size: int, block: int, window: int, data: st.DataObject) -> None:
    ours = Outgoing(size=size, offset=0, window=window)
    theirs = edge.Incoming(size=size, offset=0, window=window)
    while not ours.is_sent:
        count = ours.room(block)
        if count and (ours.sent == ours.stored or data.draw(st.booleans())):
            assert theirs.receive(ours.send(count), b"x" * count) is None
        else:
            stored = data.draw(st.integers(ours.stored + 1, ours.sent))
            theirs.store(stored)
            assert ours.store(stored) is None
        assert ours.sent - ours.stored <= window
    assert theirs.is_received


@given(st.integers(1, 500), st.integers(50, 200), st.data())
def test_what_the_edge_sends_this_end_takes(size: int, window: int, data: st.DataObject) -> None:
    ours = Incoming(size=size, offset=0, window=window)
    theirs = edge.Outgoing(offset=0, window=window)
    while not ours.is_written:
        room = min(theirs.room, size - theirs.sent)
        if room and (ours.received == ours.written or data.draw(st.booleans())):
            count = data.draw(st.integers(min(room, 40), room))
            assert ours.receive(theirs.send(count), count) is None
        else:
            assert theirs.acknowledge(ours.write(ours.received - ours.written))


def test_chunks_that_do_not_belong_there() -> None:
    window = Incoming(size=100, offset=10, window=50)
    for offset, count, why in [
        (0, 10, "next"),
        (11, 5, "next"),
        (10, 0, "without a byte"),
        (10, 91, "behind the end"),
        (10, 51, "not acknowledged"),
        (2**64 - 1, 5, "next"),
    ]:
        assert why in (window.receive(offset, count) or "")
        assert window.received == 10
    assert window.receive(10, 50) is None
    assert window.receive(10, 50) is not None  # twice
    assert window.receive(60, 1) is not None
    window.write(50)
    assert window.receive(60, 40) is None


def test_an_acknowledgement_of_what_was_not_sent() -> None:
    window = Outgoing(size=100, offset=0, window=50)
    window.send(20)
    assert window.store(21) is not None
    assert window.store(20) is None
    assert window.store(5) is None  # old news
    assert window.stored == 20
    assert window.room(40) == 40
    assert window.room(60) == 0


@given(st.lists(st.tuples(st.integers(0, 60_000_000), st.floats(0, 1)), max_size=60), st.booleans())
def test_cuts_cost_no_more_than_is_allowed_wherever_they_fall(runs: list[tuple[int, float]], is_new: bool) -> None:
    allowance = Allowance(is_new=is_new)
    offset = lost = 0
    for progress, share in runs:
        allowance.begin(offset)
        assert limits.MAX_CHUNK_BYTES <= allowance.window(FIRST_BYTES) <= FIRST_BYTES
        offset += progress
        allowance.reached(offset)
        ahead = round(allowance.window(FIRST_BYTES) * share)
        allowance.went(offset + ahead)
        lost += ahead
    assert lost <= FIRST_BYTES * is_new + offset // EARNED_PER + limits.MAX_CHUNK_BYTES * len(runs)


def test_fifty_cuts_of_a_gigabyte_cost_less_than_a_hundredth_at_their_worst() -> None:
    allowance = Allowance()
    size, cuts, offset, lost = 1_000_000_000, 50, 0, 0
    for _ in range(cuts):
        allowance.begin(offset)
        offset += size // (cuts + 1)
        allowance.reached(offset)
        window = allowance.window(FIRST_BYTES)
        allowance.went(offset + window)  # all of it is lost
        lost += window
    assert lost < size // 100


def test_a_link_that_holds_has_the_whole_window_and_gets_it_back_after_a_cut() -> None:
    allowance = Allowance()
    allowance.begin(0)
    assert allowance.window(FIRST_BYTES) == FIRST_BYTES
    allowance.went(FIRST_BYTES)
    allowance.begin(0)
    assert allowance.window(FIRST_BYTES) == limits.MAX_CHUNK_BYTES
    allowance.reached(FIRST_BYTES * EARNED_PER)
    assert allowance.window(FIRST_BYTES) == FIRST_BYTES
