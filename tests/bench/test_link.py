"""The benchmark's link: what it keeps and counts later is what it would have counted at once."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.bench.certificates import make_certificates
from tests.bench.link import Link, make_text


@pytest.mark.parametrize("keeps", [False, True])
async def test_counts_every_text_wherever_reads_and_records_cut_it(tmp_path: Path, *, keeps: bool) -> None:
    own = make_certificates(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(own.certificate, own.private_key)
    half, rest = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.readline()
        data = make_text(0) * 1_000
        for start in range(0, len(data), 333):
            if start == 333 * 150:
                await writer.drain()
                half.set()
                await rest.wait()
            writer.write(data[start : start + 333])
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, link = await asyncio.get_running_loop().create_connection(Link, "127.0.0.1", port)
        await link.secure(ssl.create_default_context(cafile=str(own.ca)))
        assert b"hello" in await link.until(b"\n")
        counted: list[int] = []
        link.count(counted.append)
        if keeps:
            link.keep()
        link.write(b"go\n")
        async with asyncio.timeout(30):
            await half.wait()
            while keeps and not link.kept():  # noqa: ASYNC110 - a link tells nobody what it keeps
                await asyncio.sleep(0.001)
            position = link.kept()
            rest.set()
            if keeps:
                while sum(map(len, link._kept or ())) < 100_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                assert counted == []
                before, after = link.count_kept(position, link.kept())
                assert 0 < before < after
                assert after == sum(counted)
            while sum(counted) < 1_000:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert sum(counted) == 1_000
        link.abort()
