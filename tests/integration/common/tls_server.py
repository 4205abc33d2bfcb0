"""A process like a service's: an RPC server, and a channel to the port that it is told. For test_tls.

Run as `python -m tests.integration.common.tls_server CERTIFICATE KEY CA`. Prints its port; then dials each port that it
reads from stdin, and prints whether the other side spoke TLS with it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.common.config import ServiceConfig
from services.common.rpc_client import open_channel
from services.common.rpc_server import RpcServer


async def main() -> None:
    certificate, key, ca = (Path(argument) for argument in sys.argv[1:])
    config = ServiceConfig(name="t", certificate=certificate, private_key=key, ca=ca, home=Path())
    server = RpcServer(config, allow={})
    print(await server.start(), flush=True)
    while port := (await asyncio.to_thread(sys.stdin.readline)).strip():
        async with open_channel(f"127.0.0.1:{port}", config=config, server="auth") as channel:
            channel.get_state(try_to_connect=True)
            await asyncio.to_thread(sys.stdin.readline)
    await server.stop(0)


asyncio.run(main())
