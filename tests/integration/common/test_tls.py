"""TLS 1.3 only on both ends of gRPC, and certificates that are replaced while the server runs."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from structlog.testing import capture_logs

from deploy.local import certificates as make
from services.common.rpc_server import RpcServer
from tests.helpers import certificates, rpc
from tests.integration.common import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    certificate, key = certificates.shared().pair("auth")
    command = [sys.executable, "-m", "tests.integration.common.tls_server", certificate, key]
    with subprocess.Popen(
        [*map(str, command), str(certificates.shared().grpc_ca)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(20) == 0


def context(purpose: int, version: ssl.TLSVersion) -> ssl.SSLContext:
    certificate, key = certificates.shared().pair("auth")
    context = ssl.SSLContext(purpose)
    context.load_verify_locations(certificates.shared().grpc_ca)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    return context


def dial(port: int, version: ssl.TLSVersion) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        context(ssl.PROTOCOL_TLS_CLIENT, version).wrap_socket(raw, server_hostname="auth.parley.internal") as wrapped,
    ):
        assert wrapped.recv(9)  # the server's first HTTP/2 frame: it has accepted our certificate
        return wrapped.version()


def test_the_server_speaks_tls_1_3(process: tuple[subprocess.Popen[str], int]) -> None:
    assert dial(process[1], V13) == "TLSv1.3"


def test_the_server_does_not_speak_tls_1_2(process: tuple[subprocess.Popen[str], int]) -> None:
    with pytest.raises(OSError, match=r"EOF|alert|reset"):
        dial(process[1], V12)


def accept(process: subprocess.Popen[str], version: ssl.TLSVersion) -> str | None:
    assert process.stdin is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        print(listener.getsockname()[1], file=process.stdin, flush=True)
        raw, _ = listener.accept()
        raw.settimeout(10)
        try:
            with raw, context(ssl.PROTOCOL_TLS_SERVER, version).wrap_socket(raw, server_side=True) as wrapped:
                return wrapped.version()
        finally:
            print("next", file=process.stdin, flush=True)


def test_a_channel_speaks_tls_1_3(process: tuple[subprocess.Popen[str], int]) -> None:
    assert accept(process[0], V13) == "TLSv1.3"


def test_a_channel_does_not_speak_tls_1_2(process: tuple[subprocess.Popen[str], int]) -> None:
    with pytest.raises(ssl.SSLError, match=r"NO_SHARED_CIPHER|no shared cipher"):
        accept(process[0], V12)


async def certificate_of(server: RpcServer) -> str:
    """The serial number of the certificate that a new connection sees."""
    import asyncio

    from cryptography import x509

    client = context(ssl.PROTOCOL_TLS_CLIENT, V13)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return str(x509.load_der_x509_certificate(der).serial_number)


async def test_new_certificates_are_used_for_new_connections_without_a_restart(tmp_path: Path) -> None:
    material = certificates.shared()
    paths = shutil.copytree(material.directory, tmp_path / "certificates")
    config = material.config("auth", tmp_path, certificate=paths / "auth-cert.pem", private_key=paths / "auth-key.pem")
    service = echo.Echo()
    server = RpcServer(config, allow={echo.NAME: frozenset({"edge"})})
    echo.add(service, server.grpc)
    await server.start()
    try:
        async with rpc.channel(server) as old:
            assert await echo.call(old, "Unary", b"before") == b"before"
            first = await certificate_of(server)
            (paths / "auth-cert.pem").unlink()
            with capture_logs() as logs:
                assert await certificate_of(server) == first
            assert logs[0]["log_level"] == "warning"
            make.ensure_stack(paths)
            second = await certificate_of(server)
            assert second != first
            assert await certificate_of(server) == second
            assert await echo.call(old, "Unary", b"after") == b"after"
            async with rpc.channel(server) as new:
                assert await echo.call(new, "Unary", b"new") == b"new"
    finally:
        await server.stop(0)


async def test_an_authority_that_is_replaced_lets_its_old_identities_in_no_more(tmp_path: Path) -> None:
    material = certificates.shared()
    ca = tmp_path / "ca.pem"
    shutil.copy(material.grpc_ca, ca)
    server = RpcServer(material.config("auth", tmp_path, ca=ca), allow={echo.NAME: frozenset({"edge"})})
    echo.add(echo.Echo(), server.grpc)
    await server.start()
    try:
        async with rpc.channel(server) as channel:
            assert await echo.call(channel, "Unary", b"x") == b"x"
        shutil.copy(certificates.foreign().grpc_ca, ca)
        async with rpc.channel(server) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo.call(channel, "Unary", b"x")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)
