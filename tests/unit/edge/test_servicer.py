from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from parley.edge.v1 import edge_pb2

from services.common.clock import FakeClock
from services.common.counters import Counter, Histogram
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import JoinRoom
from services.edge.decisions import Command, Reply, User
from services.edge.directory import Directory
from services.edge.qos.classes import DEFAULT_SETTINGS, QosClass
from services.edge.qos.pump import Pump
from services.edge.sampling import Sampler
from services.edge.servicer import EdgeAdminServicer


@dataclass(eq=False)
class Connection:
    id: int
    user: User | None = None
    address: str = "192.0.2.1"
    version: int = 2
    session: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(client="test/1"))
    connected_at: float = 1_800_000_000.5
    received_bytes: int = 10
    sent_bytes: int = 20
    waiting_bytes: int = 30
    room_ids: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    notices: list[tuple[str, str]] = field(default_factory=list)

    def close(self, reason: str) -> None:
        self.closed.append(reason)

    def reply(self, reply: Reply) -> None:
        self.notices.append((reply.type, reply.data["text"]))


class Context:
    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [b"spiffe://parley/admin/eve"]}


CONTEXT = cast("Any", Context())


class World:
    def __init__(self) -> None:
        self.directory: Directory[Any] = Directory()
        self.pump = Pump(
            DEFAULT_SETTINGS,
            concurrency=64,
            texts=cast("Any", None),
            start_command=lambda _, __: None,
            call_soon=lambda _: None,
            clock=FakeClock(),
            waits={qos_class: Histogram((1.0,)) for qos_class in QosClass},
            accepted={qos_class: Counter() for qos_class in QosClass},
            refused={qos_class: Counter() for qos_class in QosClass},
        )
        self.drained: list[float] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.clock = FakeClock()
        self.sampler = Sampler(ratio=0.01, rate_max=20.0, uniform=lambda: 0.5)
        self.servicer = EdgeAdminServicer(
            directory=self.directory, pump=self.pump, drain=self.drain, sampler=self.sampler, clock=self.clock
        )

    async def drain(self, grace_s: float) -> None:
        await self.may_end.wait()
        self.drained.append(grace_s)


async def test_connections_are_listed_in_pages() -> None:
    world = World()
    world.directory.add(Connection(1, User("u1", "amy", "s1", 0.0), room_ids=["a", "b"]))
    for number in range(2, 6):
        world.directory.add(Connection(number, version=0))
    page = await world.servicer.ListConnections(edge_pb2.ListConnectionsRequest(page_size=2), CONTEXT)
    assert [one.connection_id for one in page.connections] == ["1", "2"]
    first = page.connections[0]
    assert (first.user_id, first.username, first.protocol, first.room_count) == ("u1", "amy", 2, 2)
    assert (first.address, first.client, first.connected_at_ms) == ("192.0.2.1", "test/1", 1_800_000_000_500)
    assert (first.received_bytes, first.sent_bytes, first.waiting_bytes) == (10, 20, 30)
    assert page.connections[1].username == ""
    request = edge_pb2.ListConnectionsRequest(page_size=3, page_token=page.next_page_token)
    page = await world.servicer.ListConnections(request, CONTEXT)
    assert [one.connection_id for one in page.connections] == ["3", "4", "5"]
    assert page.next_page_token == ""


async def test_a_connection_is_closed() -> None:
    world = World()
    connection = Connection(7)
    world.directory.add(connection)
    await world.servicer.Disconnect(edge_pb2.DisconnectRequest(connection_id="7"), CONTEXT)
    assert connection.closed == ["revoked"]


@pytest.mark.parametrize("connection_id", ["", "8", "-1", "x", "9" * 30, "٣"])
async def test_there_is_no_such_connection(connection_id: str) -> None:
    with pytest.raises(ParleyError, match="bad_request: connection_id"):
        await World().servicer.Disconnect(edge_pb2.DisconnectRequest(connection_id=connection_id), CONTEXT)


@pytest.mark.parametrize("request_", [{"page_size": 1_001}, {"page_size": -1}, {"page_token": "x"}])
async def test_bad_pages_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ParleyError, match="bad_request"):
        await World().servicer.ListConnections(edge_pb2.ListConnectionsRequest(**request_), CONTEXT)


async def test_the_scheduler_is_shown_and_changed() -> None:
    world = World()
    command = Command(JoinRoom("lobby"), None, QosClass.HIGH, 0.0, Connection(1))
    world.pump.offer_command(command, 0.0)
    response = await world.servicer.GetQos(edge_pb2.GetQosRequest(), CONTEXT)
    assert response.qos.concurrency == 64
    assert [one.name for one in response.qos.classes] == ["critical", "high", "normal", "low"]
    assert (response.qos.classes[1].waiting, response.qos.classes[1].target_ms) == (1, 50)
    update = edge_pb2.UpdateQosRequest(
        concurrency=16, classes=[edge_pb2.QosClassUpdate(name="low", target_ms=500, share=9)]
    )
    changed = (await world.servicer.UpdateQos(update, CONTEXT)).qos
    assert changed.concurrency == 16
    assert (changed.classes[3].target_ms, changed.classes[3].share) == (500, 9)
    assert changed.classes[2] == response.qos.classes[2]


@pytest.mark.parametrize(
    "update",
    [
        edge_pb2.UpdateQosRequest(concurrency=1),
        edge_pb2.UpdateQosRequest(concurrency=-1),
        edge_pb2.UpdateQosRequest(classes=[edge_pb2.QosClassUpdate(name="urgent")]),
        edge_pb2.UpdateQosRequest(classes=[edge_pb2.QosClassUpdate(name="low", share=0)]),
        edge_pb2.UpdateQosRequest(classes=[edge_pb2.QosClassUpdate(name="low", target_ms=-1)]),
    ],
)
async def test_what_makes_no_sense_is_refused(update: edge_pb2.UpdateQosRequest) -> None:
    with pytest.raises(ParleyError, match="bad_request"):
        await World().servicer.UpdateQos(update, CONTEXT)


async def test_a_notice_goes_to_everyone_whose_version_has_it() -> None:
    world = World()
    amy = User("u1", "amy", "s1", 0.0)
    connections = [Connection(1, amy), Connection(2), Connection(3, amy, version=1)]
    for connection in connections:
        world.directory.add(connection)
    response = await world.servicer.SendNotice(edge_pb2.SendNoticeRequest(text="down at ten"), CONTEXT)
    assert response.recipient_count == 1
    assert [connection.notices for connection in connections] == [[("notice", "down at ten")], [], []]


@pytest.mark.parametrize("text", ["", "x" * 4_001, "red \x1b[31m"])
async def test_a_notice_is_clean_text(text: str) -> None:
    with pytest.raises(ParleyError) as caught:
        await World().servicer.SendNotice(edge_pb2.SendNoticeRequest(text=text), CONTEXT)
    assert caught.value.code is ErrorCode.BAD_REQUEST


async def test_an_edge_is_drained() -> None:
    world = World()
    for number in range(3):
        world.directory.add(Connection(number))
    world.directory.open_count = 1
    response = await world.servicer.Drain(edge_pb2.DrainRequest(grace_s=60), CONTEXT)
    assert (response.told_count, response.left_count) == (3, 1)
    assert world.drained == [60]


async def test_an_edge_is_drained_whole_even_if_nobody_waits_for_it() -> None:
    world = World()
    world.may_end.clear()
    call = asyncio.ensure_future(world.servicer.Drain(edge_pb2.DrainRequest(grace_s=5), CONTEXT))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    world.may_end.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.drained == [5]


@pytest.mark.parametrize("grace_s", [0.0, -1.0, 60.1, float("inf"), float("nan")])
async def test_a_time_to_drain_that_cannot_be(grace_s: float) -> None:
    world = World()
    with pytest.raises(ParleyError, match="bad_request"):
        await world.servicer.Drain(edge_pb2.DrainRequest(grace_s=grace_s), CONTEXT)
    assert world.drained == []


async def test_sampling_is_changed_while_running() -> None:
    world = World()
    request = edge_pb2.UpdateTracingRequest
    changed = (await world.servicer.UpdateTracing(request(ratio=1.0, rate_max=2.0), CONTEXT)).tracing
    assert (changed.ratio, changed.rate_max) == (1.0, 2.0)
    changed = (await world.servicer.UpdateTracing(request(ratio=0.0), CONTEXT)).tracing
    assert (changed.ratio, changed.rate_max) == (0.0, 2.0)
    assert (await world.servicer.UpdateTracing(request(), CONTEXT)).tracing == changed


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": -0.1}, {"ratio": 1.1}, {"ratio": float("nan")}, {"rate_max": 0.0}, {"rate_max": 1001.0}],
)
async def test_sampling_that_makes_no_sense_changes_nothing(wrong: dict[str, float]) -> None:
    world = World()
    before = (await world.servicer.GetTracing(edge_pb2.GetTracingRequest(), CONTEXT)).tracing
    with pytest.raises(ParleyError) as raised:
        await world.servicer.UpdateTracing(edge_pb2.UpdateTracingRequest(**wrong), CONTEXT)
    assert raised.value.code is ErrorCode.BAD_REQUEST
    assert (await world.servicer.GetTracing(edge_pb2.GetTracingRequest(), CONTEXT)).tracing == before
