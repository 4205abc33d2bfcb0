"""Starts the edge: `python -m services.edge [--config FILE]`. Wires, and nothing else."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from functools import partial
from typing import Final

from parley.edge.v1 import edge_pb2_grpc

from services.common.clock import SystemClock
from services.common.config import ConfigError, load_from_command_line
from services.common.process import Stop, run, write_ready
from services.common.rpc_server import RpcServer
from services.common.telemetry import Telemetry
from services.edge.allocator import keep_large_blocks_apart, spare_the_old
from services.edge.backends import GrpcAuth, GrpcRooms, GrpcTraces
from services.edge.client_tls import ClientTls
from services.edge.config import EdgeConfig
from services.edge.edge import Edge
from services.edge.files.backends import files_of
from services.edge.files.routed import RoutedFiles
from services.edge.routed_rooms import RoutedRooms
from services.edge.routes import Routes
from services.edge.upstreams import Upstreams

_ALLOW: Final = {"parley.edge.v1.EdgeAdminService": frozenset({"admin"})}


async def serve(config: EdgeConfig, stop: Stop) -> None:
    """Builds the service, serves until `stop`, and takes it down in order."""
    keep_large_blocks_apart()
    boot_id = secrets.token_hex(8)
    telemetry = Telemetry(config, "edge")
    upstreams = Upstreams(config, SystemClock())
    rooms = {
        target: GrpcRooms(channel, boot_id=boot_id, timeout_s=config.call_timeout_s)
        for target, channel in upstreams.rooms.items()
    }
    routes = Routes(config.rooms_targets)
    edge = Edge(
        config,
        auth=GrpcAuth(
            upstreams.auth,
            edge_name=config.name,
            boot_id=boot_id,
            timeout_s=config.call_timeout_s,
            login_timeout_s=config.login_call_timeout_s,
        ),
        rooms=RoutedRooms(rooms, routes, SystemClock()),
        files=RoutedFiles(files_of(upstreams.files, timeout_s=config.call_timeout_s), routes, SystemClock()),
        traces=GrpcTraces(upstreams.metrics, timeout_s=config.call_timeout_s),
        open_stream=lambda target: rooms[target].open_stream(),
        tls=_client_tls(config),
        counters=telemetry.counters,
        clock=SystemClock(),
        boot_id=boot_id,
        routes=routes,
    )
    for target, vigil in upstreams.vigils.items():
        vigil.on_silent = partial(edge.rooms_silent, target)
    server = RpcServer(config, allow=_ALLOW)
    edge_pb2_grpc.add_EdgeAdminServiceServicer_to_server(edge.servicer, server.grpc)
    spare_the_old()  # takes some 50 ms, so before anybody can be kept waiting
    working = asyncio.create_task(edge.run(), name="edge")
    watching = asyncio.create_task(upstreams.watch(), name="upstreams")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await server.start()
        port = edge.start()
        write_ready(config, {"grpc": server.address, "prometheus": telemetry.start(), "client_port": port})
        await asyncio.wait([working, watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (working, watching):
            if task.done():
                task.result()  # raises: it ends by failing only
        server.set_serving(False)
        await edge.drain(config.stop_grace_s)
    finally:
        stopping.cancel()
        watching.cancel()
        working.cancel()
        await asyncio.wait([stopping, watching, working])
        await edge.close()
        await server.stop(0)
        await upstreams.close()
        await telemetry.shutdown()


def _client_tls(config: EdgeConfig) -> ClientTls:
    try:
        return ClientTls(config.client_certificate, config.client_key)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError("client_certificate", f"cannot be used with client_key: {error}") from error


if __name__ == "__main__":
    _config = load_from_command_line(EdgeConfig, service="edge")
    run(lambda stop: serve(_config, stop), service="edge", config=_config)
