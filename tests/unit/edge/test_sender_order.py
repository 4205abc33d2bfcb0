"""A sender's texts are stored in the order in which they were written, whatever becomes of them on the way.

The client's outbox, the session, the queue and the publisher are the real ones, of two edges; the wires between them
and rooms are lists. Rooms does what it promises: it stores each key once and in the order of each stream, and turns
nothing away without ending the stream and whatever came behind on it.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from parley.rooms.v1 import feed_pb2

from client.errors import RequestError
from client.outbox import REFUSALS_MAX, Outbox
from services.common.wire.codes import ErrorCode
from services.edge.decisions import Reply, Text, User
from services.edge.publisher import Publisher
from services.edge.session import Rules, Session
from services.edge.token_bucket import TokenBucket
from tests.helpers import columns

ROOM = "room0001"
RULES = Rules(server_info={}, command_rate=0, command_burst=0, faults_per_minute=1_000, held_max=8, texts_max=6)


class Edge:
    """One edge: its publisher, and what waits in front of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: deque[Text] = deque()
        self.stream: deque[list[columns.PublishRow]] = deque()  # what rooms has not read
        self.publisher = Publisher(
            boot_id="b007",
            texts_max=4,
            bytes_max=1_000_000,
            batches_max=2,
            timeout_s=10.0,
            wake_feed=lambda: None,
            on_room=self.start_texts,
            count_stored=lambda *_: None,
        )

    def start_texts(self) -> None:
        while self.queue and self.publisher.has_room:
            self.publisher.submit(self.queue.popleft(), self.world.now)

    def lose_stream(self, *, rooms_reads: int) -> None:
        """The stream ends, after rooms has read some more of it."""
        for _ in range(min(rooms_reads, len(self.stream))):
            self.world.store(self.stream.popleft())
        self.stream.clear()
        self.publisher.disconnected()


class Connection:
    """The client's connection at an edge. `down` is what the client has not read yet."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.is_open = True
        self.up: deque[bytes] = deque()
        self.down: deque[tuple[str, str | None, float | None]] = deque()
        self.session = Session(RULES)
        self.session.receive(b'{"type":"hello","data":{"protocol":2,"client":"t/1"}}', 0.0)
        self.session.log_in(User("u1", "amy", "s1", 0.0), TokenBucket(rate=5, burst=8))

    def read(self) -> None:
        now = self.edge.world.now
        frame = self.up.popleft()
        for decision in self.session.receive(frame, now):
            if isinstance(decision, Text):
                decision.connection = self
                self.edge.queue.append(decision)
                self.edge.start_texts()
            else:
                assert isinstance(decision, Reply)
                self.down.append((str(decision.re), decision.data["code"], decision.data.get("retry_after_s")))

    def text_stored(self, text: Text, *_: Any) -> None:
        if self.is_open:
            self.session.finish_text(0.0)
            self.down.append((str(text.re), None, None))

    def text_refused(self, text: Text, code: ErrorCode, _: str, retry_after_s: float | None, __: float) -> None:
        if self.is_open:
            self.session.finish_text(0.0)
            self.down.append((str(text.re), code.value, retry_after_s))


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.posted: list[str] = []
        self.log: list[str] = []
        self.outbox = Outbox()
        self.edges = [Edge(self), Edge(self)]
        self.connection: Connection | None = None
        for edge in self.edges:
            edge.publisher.connected()

    def store(self, batch: list[columns.PublishRow]) -> list[str]:
        for publish in batch:
            if publish.key not in self.log:
                self.log.append(publish.key)
        return [publish.key for publish in batch]

    def pump_client(self) -> None:
        if self.connection is not None:
            for text in self.outbox.take_due(self.now):
                data = {"text": text.text, "key": text.key, "follows": text.follows}
                frame = {"type": "text_message", "id": text.key, "room_id": ROOM, "data": data}
                self.connection.up.append(json.dumps(frame, separators=(",", ":")).encode())

    @rule(count=st.integers(1, 5))
    def post(self, count: int) -> None:
        for _ in range(count):
            key = f"{len(self.posted):04d}"
            self.posted.append(key)
            self.outbox.add(key=key, room_id=ROOM, text=f"text {key}")
        self.pump_client()

    @precondition(lambda self: self.connection is None)
    @rule(which=st.integers(0, 1))
    def connect(self, which: int) -> None:
        self.connection = Connection(self.edges[which])
        self.pump_client()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def disconnect(self) -> None:
        assert self.connection is not None
        self.connection.is_open = False
        self.connection = None
        self.outbox.disconnect()

    @precondition(lambda self: self.connection is not None)
    @rule(count=st.integers(1, 10))
    def edge_reads(self, count: int) -> None:
        assert self.connection is not None
        for _ in range(min(count, len(self.connection.up))):
            self.connection.read()

    @precondition(lambda self: self.connection is not None)
    @rule(count=st.integers(1, 10))
    def client_reads(self, count: int) -> None:
        assert self.connection is not None
        for _ in range(min(count, len(self.connection.down))):
            key, code, retry_after_s = self.connection.down.popleft()
            if code is None:
                self.outbox.acknowledge(key)
            else:
                self.outbox._lanes[ROOM].texts[key].refusals %= REFUSALS_MAX  # nobody gives up here
                assert self.outbox.refuse(key, RequestError(code, "no", retry_after_s=retry_after_s), self.now) is None
            self.pump_client()

    @rule(which=st.integers(0, 1))
    def feed_connects(self, which: int) -> None:
        edge = self.edges[which]
        edge.lose_stream(rooms_reads=0)
        edge.publisher.connected()

    @rule(which=st.integers(0, 1), rooms_reads=st.integers(0, 2))
    def feed_is_lost(self, which: int, rooms_reads: int) -> None:
        self.edges[which].lose_stream(rooms_reads=rooms_reads)

    @rule(which=st.integers(0, 1))
    def feed_writes(self, which: int) -> None:
        request = feed_pb2.AttachRequest()
        self.edges[which].publisher.fill(request)
        if request.HasField("publishes"):
            self.edges[which].stream.append(columns.publish_rows(request.publishes))

    @rule(which=st.integers(0, 1))
    def rooms_stores(self, which: int) -> None:
        edge = self.edges[which]
        if edge.stream:
            batch = edge.stream.popleft()
            self.store(batch)
            numbers = [publish.number for publish in batch]
            same = [1] * len(numbers)
            stored = feed_pb2.Stored(numbers=numbers, epochs=["e"] * len(numbers), seqs=same, sent_at_ms=same)
            edge.publisher.resolve(stored, [], self.now)

    @rule(which=st.integers(0, 1))
    def rooms_fails(self, which: int) -> None:
        edge = self.edges[which]
        if edge.stream:
            batch = edge.stream.popleft()
            results = [feed_pb2.PublishResult(number=one.number, error_code="unavailable") for one in batch]
            edge.publisher.resolve(feed_pb2.Stored(), results, self.now)
            edge.lose_stream(rooms_reads=0)

    @rule(which=st.integers(0, 1))
    def everything_flows(self, which: int) -> None:
        self.edge_reads(99) if self.connection else None
        self.feed_writes(which)
        self.rooms_stores(which)
        self.client_reads(99) if self.connection else None

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for edge in self.edges:
            edge.publisher.expire(self.now)
        self.pump_client()

    @invariant()
    def the_log_is_in_order(self) -> None:
        assert self.log == [f"c{key}" for key in self.posted[: len(self.log)]]


World.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestSenderOrder = World.TestCase


def test_what_waits_while_rooms_is_away_for_too_long() -> None:
    """Texts that came in the course of ten seconds without rooms: the first are given up, the last are young."""
    world = World()
    world.connect(0)
    world.feed_is_lost(0, rooms_reads=0)
    for _ in range(2):
        world.post(2)
        world.edge_reads(9)
        world.time_passes(6.0)
    world.feed_connects(0)
    for _ in range(6):
        world.everything_flows(0)
        world.the_log_is_in_order()
        world.time_passes(1.0)
    assert len(world.log) == 4


def test_what_is_on_its_way_when_a_text_is_turned_away() -> None:
    """The edge reads the second text after it has turned the first away, and before the client has heard of it."""
    world = World()
    world.connect(0)
    world.post(1)
    world.edge_reads(1)
    world.feed_writes(0)
    world.post(1)
    world.rooms_fails(0)
    world.feed_connects(0)
    for _ in range(3):
        world.everything_flows(0)
        world.the_log_is_in_order()
        world.time_passes(1.0)
    assert len(world.log) == 2


def test_what_waits_in_the_queue_when_a_text_is_turned_away() -> None:
    """More texts than fit into the publisher, of which the first is turned away."""
    world = World()
    world.connect(0)
    world.post(5)
    world.edge_reads(9)
    world.feed_writes(0)
    world.rooms_fails(0)
    world.feed_connects(0)
    for _ in range(9):
        world.everything_flows(0)
        world.the_log_is_in_order()
        world.time_passes(1.0)
    assert len(world.log) == 5
