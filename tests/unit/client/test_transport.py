from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from client.address import Address
from client.errors import ConnectError, TrustError
from client.transport import TlsConnector, memory_pair, shown_fingerprint
from client.trust import Authority, Pin, Trust
from tests.helpers.certificates import make_authority, make_certificate


@asynccontextmanager
async def echoing(tls: ssl.SSLContext | None) -> AsyncIterator[Address]:
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        serving.add(task)
        await task

    server = await asyncio.start_server(remember, "127.0.0.1", 0, ssl=tls)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn


class Site:
    """A server's certificates: made by one authority, for some names."""

    def __init__(self, folder: Path, *, dns: list[str]) -> None:
        self.authority = make_authority(folder)
        certificate, key = make_certificate(folder, self.authority, dns=dns)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.tls.set_alpn_protocols(["parley/2"])
        self.tls.load_cert_chain(certificate, key)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, dns=["localhost"])


async def exchange(address: Address, trust: Trust) -> bytes:
    transport = await TlsConnector(address, trust).connect()
    transport.send(b"hello")
    try:
        return await transport.receive()
    finally:
        await transport.close()


async def test_a_verified_server_is_spoken_to(site: Site) -> None:
    async with echoing(site.tls) as address:
        assert await exchange(address, Authority("localhost", site.authority.file)) == b"hello"


async def test_an_authority_that_did_not_sign_it_refuses_it(site: Site, tmp_path: Path) -> None:
    other = make_authority(tmp_path, "other")
    async with echoing(site.tls) as address:
        with pytest.raises(TrustError) as refused:
            await exchange(address, Authority("localhost", other.file))
        assert not refused.value.may_pin
        with pytest.raises(TrustError) as unknown:
            await exchange(address, Authority("localhost", may_pin=True))
        assert unknown.value.may_pin
        assert unknown.value.fingerprint == await shown_fingerprint(address)


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, dns=["elsewhere.example"])
    async with echoing(site.tls) as address:
        with pytest.raises(TrustError, match="localhost"):
            await exchange(address, Authority("localhost", site.authority.file))


async def test_a_pinned_certificate_is_accepted_and_another_one_is_not(site: Site, tmp_path: Path) -> None:
    async with echoing(site.tls) as address:
        fingerprint = await shown_fingerprint(address)
        assert fingerprint is not None
        assert await exchange(address, Pin(fingerprint, tmp_path)) == b"hello"
        with pytest.raises(TrustError, match="another certificate"):
            await exchange(address, Pin("0" * 64, tmp_path))


async def test_tls_1_2_is_refused(site: Site) -> None:
    site.tls.minimum_version = ssl.TLSVersion.TLSv1_2
    site.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    async with echoing(site.tls) as address:
        with pytest.raises(ConnectError, match=r"TLS 1\.3"):
            await exchange(address, Authority("localhost", site.authority.file))


async def test_a_server_without_tls_is_refused(site: Site) -> None:
    async with echoing(None) as address:
        with pytest.raises(ConnectError):
            await exchange(address, Authority("localhost", site.authority.file))


async def test_nobody_there(site: Site) -> None:
    async with echoing(site.tls) as address:
        pass
    with pytest.raises(ConnectError, match="nobody listens"):
        await exchange(address, Authority("localhost", site.authority.file))
    assert await shown_fingerprint(address) is None


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "no-such-host.invalid"])
async def test_hosts_that_do_not_exist(host: str) -> None:
    with pytest.raises(ConnectError):
        await TlsConnector(Address(host, 8888), Authority(host)).connect()


async def test_the_end_is_seen_and_sending_after_it_is_harmless(site: Site) -> None:
    async with echoing(site.tls) as address:
        transport = await TlsConnector(address, Authority("localhost", site.authority.file)).connect()
        await transport.close()
        assert await transport.receive() == b""
        transport.send(b"into the void")
        await transport.close()


async def test_the_memory_twin_behaves_the_same() -> None:
    one, other = memory_pair()
    one.send(b"a")
    one.send(b"b")
    assert await other.receive() + await other.receive() == b"ab"
    one.send(b"last")
    await one.close()
    assert await other.receive() == b"last"
    assert await other.receive() == b""
    assert await one.receive() == b""
    other.send(b"into the void")
    await other.close()
    assert await one.receive() == b""
