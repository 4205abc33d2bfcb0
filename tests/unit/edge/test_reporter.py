"""The names that dashboards and the metrics service know."""

from __future__ import annotations

from pathlib import Path

from services.common.counters import Counters, Kind
from services.edge.qos.classes import QosClass
from services.edge.traffic import Traffic
from tests.helpers.edge_world import edge_world

NAMES = {
    "parley.edge.connections": Kind.GAUGE,
    "parley.edge.connections.accepted": Kind.COUNTER,
    "parley.edge.connections.refused": Kind.COUNTER,
    "parley.edge.sessions": Kind.GAUGE,
    "parley.edge.frames.received": Kind.COUNTER,
    "parley.edge.frames.sent": Kind.COUNTER,
    "parley.edge.bytes.received": Kind.COUNTER,
    "parley.edge.bytes.sent": Kind.COUNTER,
    "parley.edge.messages.received": Kind.COUNTER,
    "parley.edge.messages.acknowledged": Kind.COUNTER,
    "parley.edge.messages.delivered": Kind.COUNTER,
    "parley.edge.errors": Kind.COUNTER,
    "parley.edge.request.duration": Kind.HISTOGRAM,
    "parley.edge.queue.wait": Kind.HISTOGRAM,
    "parley.edge.queue.waiting": Kind.GAUGE,
    "parley.edge.queue.age": Kind.GAUGE,
    "parley.edge.queue.accepted": Kind.COUNTER,
    "parley.edge.queue.refused": Kind.COUNTER,
    "parley.edge.publish.duration": Kind.HISTOGRAM,
    "parley.edge.loop.lateness": Kind.HISTOGRAM,
    "parley.edge.loop.lateness.max": Kind.GAUGE,
}


async def test_all_names_are_there_and_count(tmp_path: Path) -> None:
    async with edge_world(tmp_path) as world:
        families = {family.name: family for family in world.counters.families()}
        assert {name: families[name].kind for name in NAMES} == NAMES
        for name in (name for name in NAMES if name.startswith("parley.edge.queue.")):
            assert {dict(key)["qos_class"] for key in families[name].members} == {one.label for one in QosClass}
        client = await world.user("amy")
        room_id = (await client.expect("create_room", {"name": "lobby"}))["room_id"]
        await client.say(room_id, "hi")
        await client.messages(room_id, 1)
        assert {name: world.value(name) for name, kind in NAMES.items() if kind is not Kind.HISTOGRAM} == {
            "parley.edge.connections": 1,
            "parley.edge.connections.accepted": 1,
            "parley.edge.connections.refused": 0,
            "parley.edge.sessions": 1,
            "parley.edge.frames.received": 4,
            "parley.edge.frames.sent": 5,
            "parley.edge.bytes.received": world.value("parley.edge.bytes.received"),
            "parley.edge.bytes.sent": world.value("parley.edge.bytes.sent"),
            "parley.edge.messages.received": 1,
            "parley.edge.messages.acknowledged": 1,
            "parley.edge.messages.delivered": 1,
            "parley.edge.errors": 0,
            "parley.edge.queue.waiting": 0,
            "parley.edge.queue.age": 0,
            "parley.edge.queue.accepted": 3,
            "parley.edge.queue.refused": 0,
            "parley.edge.loop.lateness.max": world.value("parley.edge.loop.lateness.max"),
        }
        (duration,) = families["parley.edge.request.duration"].members.values()
        assert duration.count == 3  # type: ignore[union-attr]  # login, room and text


def test_texts_count_as_requests_too() -> None:
    traffic = Traffic(Counters())
    traffic.count_stored(0.01, 3)
    assert traffic.acknowledged.value == 3
    assert traffic.publish_duration.count == traffic.request_duration.count == 3
