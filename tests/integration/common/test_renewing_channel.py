"""Channels whose certificates are renewed under their calls, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from deploy.local import renewal
from services.common import renewing_channel
from services.common.rpc_client import open_channel
from services.common.rpc_server import RpcServer
from tests.helpers import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "parley.test.v1.SerialService"
WAIT_S = 20.0


class Serials:
    """Answers with the serial number of the certificate that the caller shows."""

    @staticmethod
    def _serial(context: Any) -> bytes:
        (pem,) = context.auth_context()["x509_pem_cert"]
        return str(x509.load_pem_x509_certificate(pem).serial_number).encode()

    async def unary(self, _: bytes, context: Any) -> bytes:
        return self._serial(context)

    async def stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield self._serial(context)


class World:
    """A server `auth` and an edge's channel to it, each with files of its own."""

    def __init__(self, tmp_path: Path) -> None:
        material = certificates.shared()
        self.theirs = shutil.copytree(material.directory, tmp_path / "theirs")
        self.ours = shutil.copytree(material.directory, tmp_path / "ours")
        self.server = RpcServer(self._config("auth", self.theirs), allow={NAME: frozenset({"edge"})})
        service = Serials()
        handlers: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
            "Stream": grpc.stream_stream_rpc_method_handler(service.stream),
        }
        self.server.grpc.add_registered_method_handlers(NAME, handlers)

    @staticmethod
    def _config(name: str, directory: Path) -> Any:
        return certificates.shared().config(
            name,
            directory,
            certificate=directory / f"{name}-cert.pem",
            private_key=directory / f"{name}-key.pem",
            ca=directory / "grpc-ca-cert.pem",
        )

    def open(self) -> grpc.aio.Channel:
        return open_channel(self.server.address, config=self._config("edge", self.ours), server="auth")

    def serial(self) -> bytes:
        """Of the certificate that the edge has in its directory."""
        pem = (self.ours / "edge-cert.pem").read_bytes()
        return str(x509.load_pem_x509_certificate(pem).serial_number).encode()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(renewing_channel, "CHECK_S", 0.0)
    world = World(tmp_path)
    await world.server.start()
    yield world
    await world.server.stop(0)


async def until_shown(call: Any, serial: bytes) -> int:
    """Calls until the server sees that certificate; returns how many calls there were. None may fail."""
    async with asyncio.timeout(WAIT_S):
        for count in range(100_000):
            if await call(b"", timeout=WAIT_S) == serial:
                return count
    raise AssertionError("unreachable")


async def test_new_calls_show_the_renewed_certificate_and_streams_go_on(world: World) -> None:
    async with world.open() as channel:
        call = channel.unary_unary(f"/{NAME}/Unary")
        first = world.serial()
        assert await call(b"", timeout=WAIT_S) == first
        stream = channel.stream_stream(f"/{NAME}/Stream")()
        await stream.write(b"")
        assert await stream.read() == first
        for _ in range(3):
            renewal.renew(world.ours, ["edge"])
            await until_shown(call, world.serial())
        await stream.write(b"")
        assert await stream.read() == first  # on its own connection, as long as it wants
        again = channel.stream_stream(f"/{NAME}/Stream")()
        await again.write(b"")
        assert await again.read() == world.serial()
        for each in (stream, again):
            await each.done_writing()
            assert await each.read() is grpc.aio.EOF


async def test_a_channel_is_closed_when_its_last_call_has_ended(world: World) -> None:
    channel = world.open()
    call = channel.unary_unary(f"/{NAME}/Unary")
    old = channel._current  # type: ignore[attr-defined]
    stream = channel.stream_stream(f"/{NAME}/Stream")()
    await stream.write(b"")
    await stream.read()
    renewal.renew(world.ours, ["edge"])
    await until_shown(call, world.serial())
    assert old.channel.get_state() is grpc.ChannelConnectivity.READY
    stream.cancel()
    async with asyncio.timeout(WAIT_S):
        while old.channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
    await channel.close()


async def test_an_authority_is_replaced_under_calls_that_never_fail(world: World) -> None:
    """Each side learns of each step at another time, and both orders occur."""
    stop = asyncio.Event()
    counts = {"calls": 0}

    async def load(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(f"/{NAME}/Unary")
        while not stop.is_set():
            await call(b"", timeout=WAIT_S)
            counts["calls"] += 1

    async with world.open() as channel:
        loads = [asyncio.create_task(load(channel)) for _ in range(4)]
        call = channel.unary_unary(f"/{NAME}/Unary")
        renewal.renew_authority(world.ours, "grpc")
        for name in ("grpc-ca-cert.pem", "grpc-ca-key.pem"):
            shutil.copy(world.ours / name, world.theirs / name)
        renewal.renew(world.ours, ["edge"])
        await until_shown(call, world.serial())
        renewal.renew(world.theirs, ["auth"])
        renewal.renew(world.ours, ["edge"])
        await until_shown(call, world.serial())
        for directory in (world.theirs, world.ours):
            renewal.renew(directory, [each.name for each in renewal.identities(directory)])
            assert renewal.retire(directory, "grpc") == 1
        renewal.renew(world.ours, ["edge"])
        await until_shown(call, world.serial())
        stop.set()
        await asyncio.gather(*loads)
    assert counts["calls"] > 10


async def test_certificates_that_do_not_get_through_leave_the_old_ones_in_use(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing_channel, "CONNECT_S", 0.3)
    monkeypatch.setattr(renewing_channel, "_RETRY_S", 0.0)
    async with world.open() as channel:
        call = channel.unary_unary(f"/{NAME}/Unary")
        first = world.serial()
        assert await call(b"", timeout=WAIT_S) == first
        foreign = certificates.foreign()
        with capture_logs() as logs:
            for name in ("edge-key.pem", "edge-cert.pem"):  # a stranger's, which fit together
                shutil.copy(foreign.directory / name, world.ours / name)
            async with asyncio.timeout(WAIT_S):
                while not any("do not get through" in line["event"] for line in logs):
                    assert await call(b"", timeout=WAIT_S) == first
                    await asyncio.sleep(0.01)
        shutil.copytree(certificates.shared().directory, world.ours, dirs_exist_ok=True)
        renewal.renew(world.ours, ["edge"])
        await until_shown(call, world.serial())


async def test_new_certificates_are_taken_also_where_the_service_is_down(world: World) -> None:
    channel = world.open()
    call = channel.unary_unary(f"/{NAME}/Unary")
    await call(b"", timeout=WAIT_S)
    old = channel._current  # type: ignore[attr-defined]
    await world.server.stop(0)
    renewal.renew(world.ours, ["edge"])
    async with asyncio.timeout(2 * WAIT_S):
        while channel._current is old:  # type: ignore[attr-defined]
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(b"", timeout=0.1)
            await asyncio.sleep(0.01)
    await channel.close()


async def test_a_channel_that_is_closed_meanwhile_leaves_nothing_behind(world: World) -> None:
    channel = world.open()
    call = channel.unary_unary(f"/{NAME}/Unary")
    await call(b"", timeout=WAIT_S)
    renewal.renew(world.ours, ["edge"])
    await call(b"", timeout=WAIT_S)
    await channel.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "certificates" in task.get_name()] == ["certificates"]
