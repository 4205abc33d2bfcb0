from __future__ import annotations

from typing import Any

from client.errors import ClientError
from client.events import MessageArrived, TextAcknowledged, TextFailed
from client.own_traces import UNDER_WAY_MAX, OwnTraces
from client.replies import Message
from client.rooms import Room
from services.common.wire.trace_context import parse_traceparent

ROOM: Any = type("ARoom", (), {"room_id": "r1"})()


class World:
    def __init__(self) -> None:
        self.at = 1_000.0
        self.told: list[dict[str, object]] = []
        self.traces = OwnTraces(now=lambda: self.at, tell=self.told.append)

    def arrive(self, seq: int, *, is_own: bool = True, room: Room = ROOM) -> None:
        self.traces.on_event(MessageArrived(room, Message(seq, "ada", "hi"), is_own=is_own, is_late=False))


def test_a_message_is_measured_until_it_comes_back_and_told_of_once() -> None:
    world = World()
    traceparent = world.traces.begin("k1")
    assert traceparent is not None
    assert parse_traceparent(traceparent) is not None
    world.at += 0.010
    world.traces.on_event(TextAcknowledged("r1", "k1", "e", 7))
    world.at += 0.005
    world.arrive(6)
    world.arrive(7, is_own=False)
    assert not world.told
    world.arrive(7)
    world.arrive(7)
    assert world.told == [
        {
            "traceparent": traceparent,
            "sent_at_us": 1_000_000_000,
            "acknowledged_at_us": 1_000_010_000,
            "shown_at_us": 1_000_015_000,
        }
    ]


def test_one_a_second_is_enough_and_a_repetition_keeps_its_trace() -> None:
    world = World()
    first = world.traces.begin("k1")
    assert world.traces.begin("k2") is None
    assert world.traces.begin("k1") == first
    world.at += 1.0
    assert world.traces.begin("k2") not in (None, first)
    world.at -= 3_600  # somebody has set the clock back
    assert world.traces.begin("k3") is not None


def test_what_fails_or_never_comes_back_is_forgotten() -> None:
    world = World()
    world.traces.begin("k0")
    world.traces.on_event(TextFailed("r1", "k0", "hi", ClientError("no")))
    for number in range(1, UNDER_WAY_MAX + 10):
        world.at += 1.0
        world.traces.begin(f"k{number}")
    assert len(world.traces._by_key) == UNDER_WAY_MAX
    world.traces.on_event(TextAcknowledged("r1", "k1", "e", 7))
    world.arrive(7)
    assert not world.told
