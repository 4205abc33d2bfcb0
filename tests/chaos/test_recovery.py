"""The figures that a log gives: how long it took until things went on."""

from __future__ import annotations

from tests.chaos import events as e
from tests.chaos.recovery import measure


def send(at: float, acknowledged_at: float, req: int, room: str = "r1") -> list[e.AnyEvent]:
    about = {"c": "ann", "conn": "ann#1", "room": room, "key": f"k{req}", "h": "00", "req": req}
    return [
        e.Invoke(t=at, **about),  # type: ignore[arg-type]
        e.Ok(t=acknowledged_at, epoch="e1", seq=req, **about),  # type: ignore[arg-type]
    ]


def fault(kind: str, target: str, t0: float, t1: float) -> e.Fault:
    return e.Fault(t=t1, kind=kind, target=target, t0=t0, t1=t1)


def test_what_was_sent_after_the_kill_counts_and_what_was_under_way_does_not() -> None:
    events = [
        *send(9.9, 10.3, 1),
        *send(10.1, 12.0, 2),
        *send(10.2, 11.5, 3, "r2"),
        fault("kill", "rooms-1", 10.0, 12.1),
    ]
    assert measure(events).acknowledged == {"kill": [2.0, 1.5]}


def test_clients_of_a_killed_edge_are_back_with_their_next_login_anywhere() -> None:
    events: list[e.AnyEvent] = [
        e.Open(t=1.0, c="ann", conn="ann#1", edge="edge-1"),
        e.Open(t=1.0, c="bob", conn="bob#1", edge="edge-2"),
        e.Close(t=20.1, c="ann", conn="ann#1"),
        e.Close(t=20.1, c="bob", conn="bob#1"),
        e.Open(t=21.0, c="ann", conn="ann#2", edge="edge-2"),
        e.Open(t=25.0, c="bob", conn="bob#2", edge="edge-2"),
        fault("kill", "edge-1", 20.0, 22.0),
    ]
    assert measure(events).back == {"kill": [1.0]}


def test_faults_that_strike_together_are_left_out() -> None:
    events = [*send(10.1, 12.0, 2), fault("pause", "edge-1", 8.0, 9.5), fault("kill", "rooms-1", 10.0, 12.1)]
    assert measure(events).acknowledged == {"kill": []}
    assert measure([*send(30.0, 30.1, 3), fault("delay", "edge-1", 30.0, 31.0)]).acknowledged == {}
