"""A rooms process of its own, to be killed: `async with rooms_process(tmp_path) as (process, edge): …`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from services.common.rpc_client import open_channel
from tests.helpers import certificates
from tests.helpers.served_rooms import Edge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

STARTED_S = 30.0


def _start(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    material = certificates.shared()
    certificate, key = material.pair("rooms")
    settings = {
        "certificate": certificate,
        "private_key": key,
        "ca": material.grpc_ca,
        "home": folder,
        "ready_file": folder / "ready.json",
        "check_assertions": False,
    }
    environ = os.environ | {f"PARLEY_ROOMS_{name.upper()}": str(value) for name, value in settings.items()}
    environ |= environment
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen([sys.executable, "-m", "services.rooms"], env=environ, stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def rooms_process(
    folder: Path, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[subprocess.Popen[bytes], Edge]]:
    """A rooms process on the database in `folder`, and an edge that is connected to it."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    started = _start(folder, environment or {})
    try:
        async with asyncio.timeout(STARTED_S):
            for _ in range(100_000):
                if ready.exists():
                    break
                assert started.poll() is None
                await asyncio.sleep(0.02)
        channel = open_channel(
            json.loads(ready.read_text())["grpc"],
            config=certificates.shared().config("edge", folder),
            server="rooms",
        )
        yield started, Edge("edge-1", f"boot{started.pid}", channel)
        await channel.close()
    finally:
        started.kill()
        await asyncio.to_thread(started.wait)
