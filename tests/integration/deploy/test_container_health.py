"""The health check by hand against the real gRPC server over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from deploy.container import health
from tests.helpers import certificates, rpc

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return _secrets(tmp_path, certificates.shared())


def _secrets(directory: Path, material: certificates.Material) -> Path:
    certificate, key = material.pair("auth")
    for name, path in {"certificate.pem": certificate, "key.pem": key, "ca.pem": material.grpc_ca}.items():
        (directory / name).write_bytes(path.read_bytes())
    return directory


async def _ask(service: str, port: int, secrets: Path) -> bool:
    return await asyncio.to_thread(health.is_serving, service, port, secrets=secrets)


async def test_a_service_that_serves(secrets: Path) -> None:
    async with rpc.serve({}, lambda _: None) as server:
        assert await _ask("auth", server.port, secrets)


async def test_a_service_that_drains_does_not_serve(secrets: Path) -> None:
    async with rpc.serve({}, lambda _: None) as server:
        await server.set_serving(False)
        assert not await _ask("auth", server.port, secrets)


async def test_another_service_at_this_port_does_not_count(secrets: Path) -> None:
    async with rpc.serve({}, lambda _: None, service="rooms") as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask("auth", server.port, secrets)


async def test_a_strangers_certificate_is_refused_at_either_end(tmp_path: Path) -> None:
    foreign = _secrets(tmp_path, certificates.foreign())
    async with rpc.serve({}, lambda _: None) as server:
        with pytest.raises(OSError, match=r"certificate|CERTIFICATE"):
            await _ask("auth", server.port, foreign)


def test_a_port_where_nobody_listens_is_a_reason(secrets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert health.main(["auth", str(taken.getsockname()[1]), "--secrets", str(secrets)]) == 1
    assert "auth: " in capsys.readouterr().out


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4, b"\xff" * 64, b"\0" * 400])
def test_whatever_answers_with_something_else_does_not_serve(secrets: Path, answer: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(secrets / "certificate.pem", secrets / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            # Who asked may have gone, where this took longer than it waits.
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert not _serves(listener.getsockname()[1], secrets)
        finally:
            thread.join()


def _serves(port: int, secrets: Path) -> bool:
    try:
        return health.is_serving("auth", port, secrets=secrets)
    except OSError:
        return False
