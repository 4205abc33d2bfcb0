from __future__ import annotations

from services.edge.routes import Routes, ranked

TARGETS = ("a:1", "b:1", "c:1")
ROOMS = [f"room{number:04}" for number in range(300)]


def test_all_edges_agree_whatever_the_order_of_their_configuration() -> None:
    one, other = Routes(TARGETS), Routes(TARGETS[::-1])
    assert [one.owner(room) for room in ROOMS] == [other.owner(room) for room in ROOMS]


def test_rooms_are_spread() -> None:
    routes = Routes(TARGETS)
    owners = [routes.owner(room) for room in ROOMS]
    assert min(owners.count(target) for target in TARGETS) > 60


def test_only_the_rooms_of_who_goes_move_and_they_come_back() -> None:
    routes = Routes(TARGETS)
    for target in TARGETS:
        routes.set_live(target, True)
    before = {room: routes.owner(room) for room in ROOMS}
    assert routes.set_live("b:1", False)
    for room, owner in before.items():
        assert routes.owner(room) == (owner if owner != "b:1" else ranked(room, ("a:1", "c:1"))[0])
    assert routes.set_live("b:1", True)
    assert {room: routes.owner(room) for room in ROOMS} == before


def test_while_nobody_is_there_rooms_stay_where_they_were() -> None:
    routes = Routes(TARGETS)
    assert routes.set_live("a:1", True)
    assert not routes.set_live("a:1", False)
    assert {routes.owner(room) for room in ROOMS} == {"a:1"}
    assert routes.candidates("x") == ["a:1"]
    assert routes.live_count == 0
    assert routes.set_live("c:1", True)
    assert {routes.owner(room) for room in ROOMS} == {"c:1"}
