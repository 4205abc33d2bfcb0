from __future__ import annotations

from services.auth.orphans import Orphans
from services.auth.revocations import EdgeBoot

EDGE = EdgeBoot("edge-1", "boot-a")
REBORN = EdgeBoot("edge-1", "boot-b")
OTHER = EdgeBoot("edge-2", "boot-c")
OPEN = frozenset({"s1", "s2"})


def find(orphans: Orphans, now: float, named: list[str], edge: EdgeBoot = EDGE) -> list[str]:
    return sorted(orphans.find(edge, open_ids=OPEN, named=named, now=now))


def test_a_session_that_was_not_named_for_long_enough_is_an_orphan() -> None:
    orphans = Orphans(60.0)
    assert find(orphans, 1_000.0, ["s2"]) == []
    assert find(orphans, 1_059.0, ["s2"]) == []
    assert find(orphans, 1_060.0, ["s2"]) == ["s1"]


def test_who_is_named_meanwhile_is_counted_anew() -> None:
    orphans = Orphans(60.0)
    assert find(orphans, 0.0, ["s2"]) == []
    assert find(orphans, 50.0, ["s1"]) == []
    assert find(orphans, 60.0, ["s1"]) == []
    assert find(orphans, 110.0, []) == ["s2"]
    assert find(orphans, 170.0, []) == ["s1", "s2"]


def test_another_boot_and_another_edge_have_a_time_of_their_own() -> None:
    orphans = Orphans(60.0)
    assert find(orphans, 0.0, []) == []
    assert find(orphans, 100.0, [], REBORN) == []
    assert find(orphans, 100.0, [], OTHER) == []
    assert find(orphans, 160.0, [], REBORN) == ["s1", "s2"]


def test_it_remembers_only_what_the_last_renewals_left_unnamed() -> None:
    orphans = Orphans(60.0)
    for number in range(1_000):
        find(orphans, float(number), [], EdgeBoot("edge-1", f"boot-{number}"))
    assert len(orphans._missed) == 1
    find(orphans, 1_000.0, ["s1", "s2"], EdgeBoot("edge-1", "boot-999"))
    assert orphans._missed == {}
