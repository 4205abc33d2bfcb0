"""How much memory series are taken to need, and that no more of it is given than there is."""

from __future__ import annotations

import tracemalloc

import pytest

from services.metrics.instance import Instance
from services.metrics.points import Attributes, Point
from services.metrics.room import Room, size_of


def test_no_more_is_given_than_there_is() -> None:
    room = Room(100)
    assert [room.take(60), room.take(41), room.take(40), room.take(1)] == [True, False, True, False]
    room.give_back(60)
    assert room.taken == 40
    assert room.take(60)


def text(seed: str, number: int) -> str:
    return f"{seed}{number}".ljust(128, seed)


@pytest.mark.parametrize(
    ("pairs", "seed"), [(0, "a"), (2, "a"), (8, "a"), (8, "ß"), (8, "ж"), (8, "\N{DESERET CAPITAL LETTER EW}")]
)
@pytest.mark.parametrize("is_sum", [True, False])
def test_series_take_about_what_they_are_said_to(pairs: int, seed: str, is_sum: bool) -> None:
    """Never much more, whatever is in them; or the bound would be none."""
    count = 500
    room = Room(10**9)
    instance = Instance(max_series=count, room=room)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        attributes: Attributes = tuple((text(seed, pair), text(seed, number * 8 + pair)) for pair in range(pairs))
        point = Point(f"metric-{number}", attributes, is_sum, float(number), 10**18 + number, 10**18 + number)
        instance.ingest([point], watched="", monotonic=1.0, interval_from=0.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 * taken < room.taken < 3 * taken
    assert taken < 1.15 * room.taken
    assert room.taken >= count * size_of(Point("metric-0", (), is_sum, 0, 0, 0))
