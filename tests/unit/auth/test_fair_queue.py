"""The queue of the hash pool: one of each source in turn, and nothing is lost or served twice."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.fair_queue import FairQueue

A, B, C = b"a", b"b", b"c"


def filled(*items: tuple[bytes, int]) -> FairQueue[tuple[bytes, int]]:
    queue: FairQueue[tuple[bytes, int]] = FairQueue()
    for item in items:
        queue.push(item[0], item)
    return queue


def drain(queue: FairQueue[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    return [queue.pop() for _ in range(len(queue))]


def test_sources_take_turns() -> None:
    queue = filled((A, 1), (A, 2), (A, 3), (B, 1), (C, 1), (B, 2))
    assert drain(queue) == [(A, 1), (B, 1), (C, 1), (A, 2), (B, 2), (A, 3)]
    with pytest.raises(IndexError):
        queue.pop()


def test_who_comes_once_is_served_before_the_second_of_any_other() -> None:
    queue = filled(*[(A, n) for n in range(1_000)])
    assert queue.ahead_of(B) == 1
    assert queue.ahead_of(A) == 1_000
    queue.push(B, (B, 1))
    assert queue.pop() == (A, 0)
    assert queue.pop() == (B, 1)


def test_the_one_with_most_gives_way() -> None:
    queue = filled((A, 1), (A, 2), (A, 3), (B, 1))
    assert queue.would_make_room(C)
    assert len(queue) == 4
    assert queue.make_room(C) == (A, 3)
    queue.push(C, (C, 1))
    assert queue.make_room(B) is None  # it would have two, as A has
    assert queue.make_room(A) is None
    assert not queue.would_make_room(A)
    assert FairQueue[int]().make_room(A) is None
    assert drain(queue) == [(A, 1), (B, 1), (C, 1), (A, 2)]


def test_an_item_is_taken_out_once() -> None:
    queue = filled((A, 1), (A, 2), (B, 1))
    assert queue.remove(A, (A, 1))
    assert not queue.remove(A, (A, 1))
    assert queue.remove(B, (B, 1))
    assert not queue.remove(B, (B, 1))
    assert drain(queue) == [(A, 2)]


def test_everything_is_taken_out() -> None:
    queue = filled((A, 1), (B, 1), (A, 2))
    assert sorted(queue.clear()) == [(A, 1), (A, 2), (B, 1)]
    assert len(queue) == 0


@given(st.lists(st.one_of(st.sampled_from([A, B, C]), st.none()), max_size=200))
def test_each_source_keeps_its_order_and_none_waits_for_two_of_another(steps: list[bytes | None]) -> None:
    queue: FairQueue[tuple[bytes, int]] = FairQueue()
    pushed: dict[bytes, int] = defaultdict(int)
    popped: dict[bytes, int] = defaultdict(int)
    waits: dict[bytes, dict[bytes, int]] = {}  # source -> what others got while its first item waited
    for source in steps:
        if source is not None:
            ahead = queue.ahead_of(source)
            assert 0 <= ahead <= len(queue)
            if pushed[source] == popped[source]:
                waits[source] = defaultdict(int)
            queue.push(source, (source, pushed[source]))
            pushed[source] += 1
        elif len(queue):
            name, number = queue.pop()
            assert number == popped[name]
            popped[name] += 1
            waits[name] = defaultdict(int)
            for waiting, got in waits.items():
                if waiting != name and pushed[waiting] > popped[waiting]:
                    got[name] += 1
                    assert got[name] <= 1
    assert len(queue) == sum(pushed.values()) - sum(popped.values())
