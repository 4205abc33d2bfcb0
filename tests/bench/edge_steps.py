"""What a message costs in the edge's own code: `python -m tests.bench.edge_steps`.

No TLS, no gRPC, no network: real connections on transports that take everything, results made outside of the measured
time. Prints microseconds a message for the way in (frames to publisher), the batch (to bytes), and the way out
(response to transports); the best of many rounds, because the machine does other things as well.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from parley.rooms.v1 import feed_pb2

from services.common.clock import SystemClock
from services.common.counters import Counters
from services.edge import connection as connection_module
from services.edge.client_tls import ClientTls
from services.edge.connection import Connection
from services.edge.decisions import User
from services.edge.edge import Edge
from services.edge.ports import Room
from services.edge.publisher import Publisher
from tests.helpers import columns
from tests.helpers.edge_world import FakeAuth, FakeRooms, edge_config

WORKLOADS = ((1, 200, 64), (1, 200, 1), (50, 4, 10), (20, 20, 1))  # rooms, members, texts of each sender in a turn
ROUNDS = 60
TEXT = "x" * 100


class Transport:
    """Takes everything."""

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass


def frame(**envelope: Any) -> bytes:
    payload = json.dumps(envelope, separators=(",", ":")).encode()
    return len(payload).to_bytes(4, "big") + payload


class Workload:
    """Rooms full of members, of whom one in a large room and all in a small one talk."""

    def __init__(self, rooms: int, members: int, texts: int) -> None:
        self.turns: list[Callable[[], None]] = []
        config = edge_config(Path(tempfile.gettempdir()), text_rate=0.0, command_rate=0.0, connections_max=0)
        self.edge = Edge(
            config,
            auth=FakeAuth(),
            rooms=FakeRooms(),
            files=cast("Any", None),
            traces=cast("Any", None),
            open_stream=cast("Any", lambda _: None),
            tls=ClientTls(config.client_certificate, config.client_key),
            counters=Counters(),
            clock=SystemClock(),
            boot_id="0123456789abcdef",
        )
        core = self.edge._core
        assert isinstance(core.publisher, Publisher)  # one rooms instance has one
        self.publisher = core.publisher
        (self.feed,) = self.edge._feeds._feeds.values()
        core.flusher._call_soon = core.pump._call_soon = self.turns.append
        self.seqs: dict[str, int] = {}
        self.inputs: list[tuple[Connection, bytes]] = []
        for number in range(rooms * members):
            room_id = f"room{number // members:08}"
            connection = self._member(number, room_id)
            if members <= 20 or number % members == 0:
                text = frame(type="text_message", id=number, room_id=room_id, data={"text": TEXT})
                self.inputs.append((connection, text * texts))
        self.publisher.connected()
        self._run_turns()

    def _member(self, number: int, room_id: str) -> Connection:
        shared = self.edge._listener._shared
        connection = Connection(shared, connection_id=number + 1, address="192.0.2.1")
        shared.admission.arrive(connection, str(number))
        connection.connection_made(cast("Any", Transport()))
        self._feed(connection, frame(type="hello", data={"protocol": 2}))
        connection.log_in(User(f"user{number:08}", f"name{number}", f"session{number}", 0.0))
        connection.enter(Room(room_id, room_id, "", "member", "epoch1", 0))
        return connection

    @staticmethod
    def _feed(connection: Connection, data: bytes) -> None:
        connection_module._BUFFER[: len(data)] = data
        connection.buffer_updated(len(data))

    def _run_turns(self) -> None:
        while self.turns:
            turns, self.turns[:] = list(self.turns), []
            for turn in turns:
                turn()

    def round(self) -> tuple[float, float, float]:
        """One turn in, one batch, one turn out; microseconds a message."""
        began = time.perf_counter()
        for connection, data in self.inputs:
            self._feed(connection, data)
        self._run_turns()
        queued = time.perf_counter()
        request = feed_pb2.AttachRequest()
        self.publisher.fill(request)
        request.SerializeToString()
        sent = time.perf_counter()
        response = self._stored(request).SerializeToString()
        answered = time.perf_counter()
        self.feed._process(feed_pb2.AttachResponse.FromString(response))
        self._run_turns()
        ended = time.perf_counter()
        scale = 1e6 / len(request.publishes.numbers)
        return (queued - began) * scale, (sent - queued) * scale, (ended - answered) * scale

    def _stored(self, request: feed_pb2.AttachRequest) -> feed_pb2.AttachResponse:
        response = feed_pb2.AttachResponse()
        rooms: dict[str, feed_pb2.RoomMessages] = {}
        for text in columns.publish_rows(request.publishes):
            room_id = text.room_id
            seq = self.seqs[room_id] = self.seqs.get(room_id, 0) + 1
            response.stored.numbers.append(text.number)
            response.stored.epochs.append("epoch1")
            response.stored.seqs.append(seq)
            response.stored.sent_at_ms.append(1_800_000_000_000)
            if room_id not in rooms:
                rooms[room_id] = response.rooms.add(room_id=room_id, epoch="epoch1")
            columns.append(rooms[room_id], [columns.MessageRow(seq, text.username, text.text, 1_800_000_000_000)])
        return response


async def main(rounds: int = ROUNDS) -> None:
    print("rooms x members, texts a turn:   in    batch     out     sum  (us a message)   us a delivery")
    for rooms, members, texts in WORKLOADS:
        workload = Workload(rooms, members, texts)
        best = [min(step) for step in zip(*(workload.round() for _ in range(rounds)), strict=True)]
        shown = "".join(f"{value:8.2f}" for value in (*best, sum(best)))
        print(f"{rooms:5} x {members:3}, {texts:3}          {shown}{sum(best) / members:24.3f}")


if __name__ == "__main__":
    asyncio.run(main())
