"""Real gRPC servers on port 0 and channels as any identity, over mutual TLS, for tests.

    async with rpc.serve({"parley.auth.v1.AuthService": {"edge"}}, add) as server:
        async with rpc.channel(server, identity="edge") as channel:
            stub = auth_pb2_grpc.AuthServiceStub(channel)

where `add(grpc_server)` adds servicers, as in `lambda s: auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, s)`.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.common.rpc_client import open_channel
from services.common.rpc_server import RpcServer
from tests.helpers import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    import grpc.aio

HOME = Path(tempfile.mkdtemp(prefix="parley-test-rpc-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


@contextlib.asynccontextmanager
async def serve(
    allow: Mapping[str, Iterable[str]],
    add: Callable[[grpc.aio.Server], object],
    *,
    service: str = "auth",
    material: certificates.Material | None = None,
    home: Path = HOME,
    **options: Any,
) -> AsyncIterator[RpcServer]:
    """A server with the identity of `service`; `options` go to RpcServer. Its address is `server.address`."""
    config = (material or certificates.shared()).config(service, home)
    server = RpcServer(config, allow={name: frozenset(kinds) for name, kinds in allow.items()}, **options)
    add(server.grpc)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def channel(
    server: RpcServer | str,
    *,
    identity: str = "edge",
    service: str = "auth",
    material: certificates.Material | None = None,
    **options: Any,
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel as `identity` ("edge", "admin/alice") to a server (or "host:port") that must be `service`.

    With `certificates.foreign()` as `material` the caller shows, and trusts, a stranger's certificates.
    """
    target = server if isinstance(server, str) else server.address
    config = (material or certificates.shared()).config(identity, HOME)
    opened = open_channel(target, config=config, server=service, **options)
    try:
        yield opened
    finally:
        await opened.close()
