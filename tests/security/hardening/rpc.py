"""gRPC abuse by somebody who has an edge's identity: huge messages, floods of pings, thousands of streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc_client import name_options
from tests.security.hardening.world import Finding

if TYPE_CHECKING:
    from tests.helpers.stack import Stack

SERVICES = ("auth", "rooms")
HUGE_BYTES = 100 * 1024 * 1024
STREAMS = 10_000
PINGS = 20_000
MEMORY_MIB_MAX = 150
ANSWER_S_MAX = 1.0
_METHODS = {
    "auth": "/parley.auth.v1.AuthService/RenewLease",
    "rooms": "/parley.rooms.v1.RoomsService/CloseSessions",
}


class Abuser:
    """Channels and sockets with the edge's identity."""

    def __init__(self, stack: Stack, service: str, exits: AsyncExitStack) -> None:
        self._folder = stack.home / "certificates"
        self._port = int(stack.processes()[f"{service}-1"]["grpc"].rpartition(":")[2])
        self._service = service
        self._exits = exits

    async def channel(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            (self._folder / "grpc-ca-cert.pem").read_bytes(),
            (self._folder / "edge-key.pem").read_bytes(),
            (self._folder / "edge-cert.pem").read_bytes(),
        )
        options = [
            *name_options(self._service),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self._port}", credentials, options=options)
        return await self._exits.enter_async_context(channel)

    def connect(self) -> ssl.SSLSocket:
        """HTTP/2 by hand, past the preface and the settings."""
        context = ssl.create_default_context(cafile=str(self._folder / "grpc-ca-cert.pem"))
        context.check_hostname = False
        context.load_cert_chain(self._folder / "edge-cert.pem", self._folder / "edge-key.pem")
        context.set_alpn_protocols(["h2"])
        wrapped = context.wrap_socket(socket.create_connection(("127.0.0.1", self._port), 10))
        wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, b""))
        return wrapped


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    """A frame of the connection (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + b"\0\0\0\0" + payload


async def huge_messages(stack: Stack, service: str) -> list[Finding]:
    """A message of 100 MiB where 4 are allowed."""
    before, peak = stack.memory_kib(f"{service}-1"), 0
    async with AsyncExitStack() as exits:
        channel = await Abuser(stack, service, exits).channel()
        call = asyncio.ensure_future(_status(channel.unary_unary(_METHODS[service])(b"\0" * HUGE_BYTES, timeout=60)))
        while not call.done():
            peak = max(peak, stack.memory_kib(f"{service}-1"))
            await asyncio.wait([call], timeout=0.02)
        status = call.result()
    added = (max(peak, before) - before) / 1024
    return [
        Finding(f"{service}: a message of 100 MiB", status.name, status is grpc.StatusCode.RESOURCE_EXHAUSTED),
        Finding(f"{service}: memory that it took", f"{added:.0f} MiB", added <= MEMORY_MIB_MAX),
        await _lives(stack, service),
    ]


async def _status(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def pings(stack: Stack, service: str) -> list[Finding]:
    """20,000 pings on one connection without a call."""
    async with AsyncExitStack() as exits:
        answer = await asyncio.to_thread(_ping, Abuser(stack, service, exits))
    return [
        Finding(f"{service}: a flood of pings", answer, "ended" in answer),
        await _lives(stack, service),
    ]


def _ping(abuser: Abuser) -> str:
    connection = abuser.connect()
    connection.settimeout(10)
    sent = 0
    with contextlib.closing(connection):
        try:
            for _ in range(PINGS // 100):
                connection.sendall(_frame(6, 0, b"pingpong") * 100)
                sent += 100
            while connection.recv(65_536):
                pass
        except TimeoutError:
            return f"{sent} pings were answered"
        except OSError:
            pass
    return f"the connection was ended within {sent} pings"


async def streams(stack: Stack, service: str) -> list[Finding]:
    """10,000 streams on one connection, of which 1,024 are allowed at one time."""
    before, peak, open_count = stack.memory_kib(f"{service}-1"), 0, 0
    async with AsyncExitStack() as exits:
        channel = await Abuser(stack, service, exits).channel()
        watch = health_pb2_grpc.HealthStub(channel).Watch
        calls = [watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(STREAMS)]

        async def first(call: Any) -> None:
            nonlocal open_count
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                if await call.read() is not grpc.aio.EOF:
                    open_count += 1

        reading = [asyncio.create_task(first(call)) for call in calls]
        lives = []
        for _ in range(20):
            await asyncio.sleep(0.25)
            peak = max(peak, stack.memory_kib(f"{service}-1"))
        lives.append(await _lives(stack, service))
        for call in calls:
            call.cancel()
        await asyncio.wait(reading)
    added = (max(peak, before) - before) / 1024
    return [
        Finding(f"{service}: of 10,000 streams on a connection", f"{open_count} were opened", 0 < open_count <= 1_024),
        Finding(f"{service}: memory that they took", f"{added:.0f} MiB", added <= MEMORY_MIB_MAX),
        *lives,
        await _lives(stack, service),
    ]


async def _lives(stack: Stack, service: str) -> Finding:
    async with AsyncExitStack() as exits:
        channel = await Abuser(stack, service, exits).channel()
        began = time.monotonic()
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        seconds = time.monotonic() - began
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Finding(
        f"{service}: answers somebody else", f"in {seconds * 1e3:.0f} ms", is_serving and seconds <= ANSWER_S_MAX
    )


async def abuse(stack: Stack) -> list[Finding]:
    """All of it, against each service."""
    pids = stack.pids()
    found: list[Finding] = []
    for service in SERVICES:
        for work in (huge_messages, pings, streams):
            found += await work(stack, service)
    return [*found, Finding("processes that ended", "none" if stack.pids() == pids else "some", stack.pids() == pids)]
