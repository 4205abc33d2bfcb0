"""Starts the rooms service: `python -m services.rooms [--config FILE]`. Wires, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from parley.rooms.v1 import feed_pb2_grpc, files_pb2_grpc, rooms_pb2_grpc

from services.common.clock import SystemClock
from services.common.config import load_from_command_line
from services.common.db import Database, migrate
from services.common.process import Stop, run, write_ready
from services.common.rpc_server import RpcServer
from services.common.tasks import TaskSet
from services.common.telemetry import Telemetry
from services.rooms.admin_servicer import RoomsAdminServicer
from services.rooms.attendance import Attendance
from services.rooms.config import RoomsConfig
from services.rooms.counts import RoomsCounts
from services.rooms.directory import Directory, Quotas
from services.rooms.feed import EncodedRun, FeedServicer
from services.rooms.files.library import Library
from services.rooms.files.local_contents import LocalContents
from services.rooms.files.servicer import FileServicer
from services.rooms.log import MessageLog
from services.rooms.message_spans import MessageSpans
from services.rooms.operators.desk import Desk
from services.rooms.presence import Presence
from services.rooms.redis_bus import open_bus
from services.rooms.repair import Repair
from services.rooms.servicer import RoomsServicer
from services.rooms.store import count_rooms
from services.rooms.stream import Stream
from services.rooms.streams import Streams
from services.rooms.vouchers import open_vouchers

_EDGES: Final = ("parley.rooms.v1.RoomsService", "parley.rooms.v1.RoomFeedService", "parley.rooms.v1.FileService")
_ALLOW: Final = dict.fromkeys(_EDGES, frozenset({"edge"})) | {"parley.rooms.v1.RoomsAdminService": frozenset({"admin"})}


async def serve(config: RoomsConfig, stop: Stop) -> None:
    """Builds the service, serves until `stop`, and takes it down in order."""
    clock, tasks = SystemClock(), TaskSet()
    telemetry, spans, vouchers = Telemetry(config, "rooms"), MessageSpans(clock), open_vouchers(config, clock)
    counts = RoomsCounts(telemetry.counters, on_commit=spans.on_commit)
    migrate(config.url, Path(__file__).with_name("migrations"), access=config.access)
    database = Database(config.url, access=config.access, on_commit=counts.on_commit, on_read=counts.reads.add)
    contents, bus = LocalContents(config.files_path), open_bus(config.redis_access, clock=clock, counts=counts.bus)
    try:
        counts.room_count = await database.read(count_rooms)
        presence = Presence(grace_s=config.presence_grace_s, crowd=config.presence_crowd)
        attendance = Attendance(presence, bus=bus, clock=clock)
        log = MessageLog(database, bus=bus, clock=clock, counts=counts, pending_max=config.publish_queue_max)
        quotas = Quotas(owned_max=config.rooms_per_owner_max, joined_max=config.rooms_per_member_max)
        directory = Directory(database, attendance=attendance, bus=bus, clock=clock, quotas=quotas, counts=counts)
        streams = Streams(bus=bus, encode=lambda run: EncodedRun(run, spans.take(run)))
        repair = Repair(database, log=log, streams=streams, attendance=attendance, bus=bus, clock=clock, counts=counts)
        open_stream = partial(
            Stream, log=log, encode=EncodedRun, clock=clock, counts=counts, bytes_max=config.stream_bytes_max
        )
        feed = FeedServicer(
            log=log,
            directory=directory,
            attendance=attendance,
            streams=streams,
            open_stream=open_stream,
            vouchers=vouchers,
            follows_max=config.follows_max,
            spans=spans,
        )
        library = Library(
            database, contents=contents, log=log, bus=bus, clock=clock, limits=config.file_limits, counts=counts.files
        )
        server = RpcServer(config, allow=_ALLOW)
        rooms = RoomsServicer(directory=directory, online_count=attendance.online_count, vouchers=vouchers)
        desk = Desk(database, attendance=attendance, bus=bus, clock=clock, counts=counts)
        admin = RoomsAdminServicer(directory=directory, desk=desk, online_count=attendance.online_count)
        rooms_pb2_grpc.add_RoomsServiceServicer_to_server(rooms, server.grpc)
        rooms_pb2_grpc.add_RoomsAdminServiceServicer_to_server(admin, server.grpc)
        feed_pb2_grpc.add_RoomFeedServiceServicer_to_server(feed, server.grpc)
        files_pb2_grpc.add_FileServiceServicer_to_server(FileServicer(library, counts.files, vouchers), server.grpc)
        for worker in (bus, attendance, library, desk):
            worker.start(tasks)
        repair.start(tasks, is_shared=config.is_shared)
        await server.start()
        write_ready(config, {"grpc": server.address, "prometheus": telemetry.start()})
        await stop.wait()
        streams.stop()
        await server.stop()
    finally:
        for part in (tasks, bus, contents, database):  # in this order
            await part.close()
        await telemetry.shutdown()


if __name__ == "__main__":
    _config = load_from_command_line(RoomsConfig, service="rooms")
    run(lambda stop: serve(_config, stop), service="rooms", config=_config)
